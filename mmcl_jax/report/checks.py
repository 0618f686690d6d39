"""What a page reads of a run's JSON files has to be there, whoever has edited them."""

import pathlib
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from mmcl_jax.errors import DataError
from mmcl_jax.evaluation.label_spaces import ROUTES, SPACES

_NUMBER = (int, float)
# a type, or several; [of all items]; {of a field}, where ... is any other field
_STREAM = {
    "stages": [[int]],
    "classes": [{"name": str, "modality": str, "canonical": int}],
    "towers": {...: str},
}
_RESULTS = {
    "method": str,
    "seeds": dict,
    "environment": dict,
    "modalities": [str],
    "tasks": [{"name": str, "modality": str, "classes": [str]}],
    "accuracy": {space: dict.fromkeys(ROUTES, list) for space in SPACES},
    "zero_shot": dict.fromkeys(SPACES, list),
    "modality_identification": dict,
    "skipped_samples": int,
    "jitter": {...: _NUMBER},
    "refused_steps": int,
    "batch_dependence": {"differing": int, "predicted_again": int},
    "restarts": int,
    "cost": {"seconds": {...: _NUMBER}, ...: _NUMBER},
}
_IDENTIFICATION = {"accuracy": (*_NUMBER, type(None)), "confusion": list}


def check_config(config: dict[str, Any], source: pathlib.Path) -> None:
    """Raises `DataError` that names file and field if a page cannot be made of it."""
    _check(config, {"method": {"name": str}, "seeds": dict}, source, ())


def check_stream(stream: dict[str, Any], source: pathlib.Path) -> None:
    """As `check_config`, of `stream.json`."""
    _check(stream, _STREAM, source, ())
    for i, slot in enumerate(stream["classes"]):
        if slot["modality"] not in stream["towers"]:
            _complain(source, ("classes", i, "modality"), slot["modality"])
        if not 0 <= slot["canonical"] < len(stream["classes"]):
            _complain(source, ("classes", i, "canonical"), slot["canonical"])


def check_results(
    results: dict[str, Any], stream: dict[str, Any], source: pathlib.Path
) -> tuple[int, ...]:
    """As `check_config`, of `results.json`.

    Args:
        results: what a page is made of.
        stream: that was checked, and that they must be of.
        source: that the results are from.

    Returns:
        The last task of each stage that was learnt.
    """
    _check(results, _RESULTS, source, ())
    tasks, modalities = len(results["tasks"]), results["modalities"]
    for space in SPACES:
        for route in ROUTES:
            _matrix(results, ("accuracy", space, route), tasks, source)
        _matrix(results, ("zero_shot", space), tasks, source)
    for i, task in enumerate(results["tasks"]):
        if task["modality"] not in modalities:
            _complain(source, ("tasks", i, "modality"), task["modality"])
    for i, name in enumerate(modalities):
        if name not in stream["towers"]:
            _complain(source, ("modalities", i), name)
    if identified := results["modality_identification"]:
        path = ("modality_identification",)
        _check(identified, _IDENTIFICATION, source, path)
        _matrix(results, (*path, "confusion"), len(modalities), source)
    for stage in results["jitter"]:
        if not stage.isdecimal():
            _complain(source, ("jitter",), stage)
    rows = [stage[-1] for stage in stream["stages"] if stage]
    if sorted(sum(stream["stages"], [])) != list(range(tasks)):
        raise DataError(f"{source}: tasks: {tasks}, which are not those of stream.json")
    learnt = np.array(results["accuracy"]["task"]["given"], np.float64)
    found = tuple(row for row in rows if not np.isnan(learnt[row]).all())
    if not found:
        raise DataError(f"{source}: accuracy: no task was scored yet")
    return found


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
    elif not isinstance(value, expected) or isinstance(value, bool):
        _complain(source, path, value)
    elif isinstance(value, int) and abs(value) > sys.float_info.max:
        _complain(source, path, value)


def _matrix(
    results: dict[str, Any], path: Sequence[str], size: int, source: pathlib.Path
) -> None:
    value: Any = results
    for name in path:
        value = value[name]
    try:
        fits = np.array(value, np.float64).shape == (size, size)
    except (TypeError, ValueError, OverflowError):
        fits = False
    if not fits:
        raise DataError(
            f"{source}: {_dotted(path)} is no matrix of {size} x {size} numbers"
        )


def _complain(source: pathlib.Path, path: Sequence[str | int], value: Any) -> None:
    raise DataError(
        f"{source}: {_dotted(path)} cannot be {str(value)[:60]!r} "
        f"({type(value).__name__})"
    )


def _dotted(path: Sequence[str | int]) -> str:
    return ".".join(map(str, path))
