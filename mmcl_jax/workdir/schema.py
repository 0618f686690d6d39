"""What the JSON files of a run must hold; they may have been edited by anyone.

A file that conforms is read without further checks; any other raises a `DataError` that
names the file and the field.
"""

import math
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from mmcl_jax.errors import DataError
from mmcl_jax.evaluation.label_spaces import ROUTES, SPACES
from mmcl_jax.streams.base import Stream

# fields of `results.json` that runs are compared by, besides the accuracies
METRICS = (
    "last_average_accuracy",
    "average_incremental_accuracy",
    "forgetting_chaudhry",
    "excess_forgetting",
    "learning_accuracy",
)
COSTS = (
    "parameters_trained",
    "bytes_remembered",
    "bytes_per_class",
    "bytes_per_task",
    "forwards_per_step",
    "forwards_per_prediction",
)

_NUMBER = (int, float)
_MAYBE = (*_NUMBER, type(None))
_TASK = {"name": str, "modality": str, "classes": [str], "train": int, "test": int}
# a type or several; [schema of each item]; {field: schema}, ... for any other field
_CONFIG = {"method": {"name": str}, "seeds": {...: int}}
_STREAM = {
    "hash": str,
    "contents": (list, type(None)),
    "encoder": str,
    "modalities": [str],
    "towers": {...: str},
    "preprocessing": {...: str},
    "stages": [[int]],
    "classes": [{"name": str, "modality": str, "dataset": str, "canonical": int}],
    "tasks": [_TASK],
}
_SO_FAR = {
    "method": str,
    "seeds": {...: int},
    "environment": dict,
    "modalities": [str],
    "tasks": [_TASK],
    "accuracy": {space: dict.fromkeys(ROUTES, list) for space in SPACES},
    "zero_shot": dict.fromkeys(SPACES, list),
    "metrics": {
        space: dict.fromkeys(ROUTES, dict.fromkeys(METRICS, _MAYBE)) for space in SPACES
    },
    "modality_identification": dict,
    "skipped_samples": int,
    "unscored": [str],
    "jitter": {...: _NUMBER},
    "refused_steps": int,
    "batch_dependence": {"differing": int, "predicted_again": int},
    "restarts": int,
    "cost": {"seconds": {...: _NUMBER}, ...: _NUMBER},
}
# results of versions before these fields were there are still read
_LATER = {
    "across_modalities": [
        {
            "task": str,
            "modality": str,
            "learnt_in": [str],
            "chance": _NUMBER,
            **dict.fromkeys(("frozen", "given", "predicted"), _MAYBE),
        }
    ],
    "novelty": {...: {"false_alarms": {...: _MAYBE}}},
    "reserved": [
        {
            "modality": str,
            "classes": int,
            "samples": int,
            "zero_shot": _MAYBE,
            "accuracy": [_MAYBE],
        }
    ],
}
_TOLD_APART = {...: {"auroc": _MAYBE, "fpr95": _MAYBE, "rejected": _MAYBE}}
_RESULTS = _SO_FAR | {"cost": _SO_FAR["cost"] | dict.fromkeys(COSTS, _NUMBER)}
_IDENTIFICATION = {"accuracy": _MAYBE, "confusion": list}


def check_config(config: dict[str, Any], source: pathlib.Path) -> None:
    """Checks what every reader needs of `config.json`; `config.load` checks the rest.

    Args:
        config: Content of the file.
        source: Path of the file.

    Raises:
        DataError: A field is missing or has a wrong type; names file and field.
    """
    _check(config, _CONFIG, source, ())


def check_stream(stream: dict[str, Any], source: pathlib.Path) -> None:
    """Checks `stream.json`, as `check_config` does."""
    _check(stream, _STREAM, source, ())
    for name in stream["modalities"]:
        if name not in stream["towers"]:
            raise DataError(f"{source}: towers.{name} is missing")
    for i, slot in enumerate(stream["classes"]):
        if slot["modality"] not in stream["modalities"]:
            _complain(source, ("classes", i, "modality"), slot["modality"])
        if not 0 <= slot["canonical"] < len(stream["classes"]):
            _complain(source, ("classes", i, "canonical"), slot["canonical"])
    tasks = sorted(i for stage in stream["stages"] for i in stage)
    if tasks != list(range(len(stream["tasks"]))) or not all(stream["stages"]):
        raise DataError(f"{source}: stages do not hold each task exactly once")


def check_results(
    results: dict[str, Any], stream: Stream, source: pathlib.Path, whole: bool = True
) -> None:
    """Checks `results.json`, as `check_config` does.

    Args:
        results: Content of the file, or what it would hold by now.
        stream: Stream that the run learns.
        source: Path that the results are from.
        whole: Whether the run is finished; before, costs may be missing.
    """
    _check(results, _RESULTS if whole else _SO_FAR, source, ())
    for name in _LATER.keys() & results.keys():
        _check(results[name], _LATER[name], source, (name,))
    for stage, told in results.get("novelty", {}).items():
        for kind in told.keys() - {"false_alarms"}:
            _check(told[kind], _TOLD_APART, source, ("novelty", stage, kind))
    tasks, modalities = len(results["tasks"]), results["modalities"]
    for space in SPACES:
        for route in ROUTES:
            _shares(results, ("accuracy", space, route), tasks, source)
        _shares(results, ("zero_shot", space), tasks, source)
    for i, task in enumerate(results["tasks"]):
        if task["modality"] not in modalities:
            _complain(source, ("tasks", i, "modality"), task["modality"])
    for i, name in enumerate(modalities):
        if name not in stream.modalities:
            _complain(source, ("modalities", i), name)
    if identified := results["modality_identification"]:
        path = ("modality_identification",)
        _check(identified, _IDENTIFICATION, source, path)
        _matrix(results, (*path, "confusion"), len(modalities), source)
    for stage in results["jitter"]:
        if not stage.isdecimal():
            _complain(source, ("jitter",), stage)
    if tasks != len(stream.tasks):
        raise DataError(
            f"{source}: tasks: {tasks}, but the stream has {len(stream.tasks)}"
        )


def _check(
    value: Any, expected: Any, source: pathlib.Path, path: Sequence[str | int]
) -> None:
    if isinstance(expected, dict):
        if not isinstance(value, dict):
            _complain(source, path, value)
        for name in expected.keys() - {...} - value.keys():
            raise DataError(f"{source}: {_dotted([*path, name])} is missing")
        for name, item in value.items():
            if name in expected or ... in expected:
                _check(
                    item, expected.get(name, expected.get(...)), source, [*path, name]
                )
    elif isinstance(expected, list):
        if not isinstance(value, list):
            _complain(source, path, value)
        for i, item in enumerate(value):
            _check(item, expected[0], source, [*path, i])
    # Python counts booleans as integers, and JSON has integers beyond any float
    elif not isinstance(value, expected) or isinstance(value, bool):
        _complain(source, path, value)
    elif isinstance(value, int) and abs(value) > sys.float_info.max:
        _complain(source, path, value)
    elif isinstance(value, float) and not math.isfinite(value):
        _complain(source, path, value)


def _shares(
    results: dict[str, Any], path: Sequence[str], size: int, source: pathlib.Path
) -> None:
    values = _matrix(results, path, size, source)
    wrong = values[~np.isnan(values) & ~((values >= 0) & (values <= 1))]
    if wrong.size:
        raise DataError(
            f"{source}: {_dotted(path)} has {wrong[0]:g}, which is no accuracy between "
            "0 and 1"
        )


def _matrix(
    results: dict[str, Any], path: Sequence[str], size: int, source: pathlib.Path
) -> np.ndarray:
    value: Any = results
    for name in path:
        value = value[name]
    try:
        values = np.array(value, np.float64)
    except (TypeError, ValueError, OverflowError):
        values = np.zeros(0)
    if values.shape != (size, size):
        raise DataError(
            f"{source}: {_dotted(path)} is not a matrix of {size} x {size} numbers"
        )
    return values


def _complain(source: pathlib.Path, path: Sequence[str | int], value: Any) -> None:
    raise DataError(
        f"{source}: {_dotted(path)} cannot be {str(value)[:60]!r} "
        f"({type(value).__name__})"
    )


def _dotted(path: Sequence[str | int]) -> str:
    return ".".join(map(str, path))
