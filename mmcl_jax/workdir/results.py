"""The results of a run so far, and what `results.json` says of them at the end."""

import dataclasses
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from mmcl_jax.evaluation import label_spaces, metrics
from mmcl_jax.streams.base import Stream


@dataclasses.dataclass
class Results:
    """Grows by one row per stage; it is stored with each snapshot.

    Attributes:
        accuracy: Accuracies `[spaces, routes, T, T]`: after which task (row), on which
            test set (column); NaN where not evaluated.
        zero_shot: Accuracies `[spaces, T, T]` of the frozen encoder in the same label
            spaces.
        identification: Accuracy, balanced accuracy and confusion of the modality.
        seconds: Time spent in each part of the loop.
        compilations: Compilations of the train step, by modality. A resumed run
            compiles again, so this is the largest number that one process needed.
        forwards: Passes through a tower in a train step and in a prediction.
        batch_dependence: Number of samples that were `predicted_again` in mixed
            batches, and how many of these were predicted differently (`differing`).
        jitter: Largest value added to the diagonal of a nearly singular matrix, by
            stage; only stages with any.
        temperatures: Temperature of each route, by stage; see
            `calibration.temperature`.
        novelty: Quantiles of the novelty of each modality, by stage; see
            `novelty.quantiles`.
        unknown: How well each stage tells the unknown apart, see `novelty.of_stage`.
        reserved: Each control set, see `training.controls`.
        refused_steps: Number of steps that were skipped since their loss or gradient
            was not finite.
        restarts: Number of times the run was resumed.
        stages: Number of stages learnt and evaluated.
    """

    accuracy: np.ndarray
    zero_shot: np.ndarray
    identification: dict[str, Any]
    seconds: dict[str, float]
    compilations: dict[str, int]
    forwards: dict[str, int]
    batch_dependence: dict[str, int]
    jitter: dict[int, float]
    temperatures: dict[int, dict[str, float | None]]
    novelty: dict[int, dict[str, Any]]
    unknown: dict[int, dict[str, Any]]
    reserved: list[dict[str, Any]]
    refused_steps: int = 0
    restarts: int = 0
    stages: int = 0

    @classmethod
    def start(cls, tasks: int) -> "Results":
        """Returns the results before the first stage."""
        spaces, routes = len(label_spaces.SPACES), len(label_spaces.ROUTES)
        return cls(
            accuracy=np.full((spaces, routes, tasks, tasks), np.nan),
            zero_shot=np.full((spaces, tasks, tasks), np.nan),
            identification={},
            seconds={},
            compilations={},
            forwards={},
            batch_dependence={"predicted_again": 0, "differing": 0},
            jitter={},
            temperatures={},
            novelty={},
            unknown={},
            reserved=[],
        )

    @classmethod
    def from_json(cls, value: dict[str, Any], tasks: int) -> "Results":
        """Returns what `to_json` stored, for so many tasks; null is NaN.

        Versions before novelty was measured stored none, and are still read.
        """

        def padded(name: str) -> np.ndarray:
            stored = np.array(value[name], np.float64)
            left = tasks - stored.shape[-1]
            pads = [(0, 0)] * (stored.ndim - 2) + [(0, left)] * 2
            return np.pad(stored, pads, constant_values=np.nan)

        return cls(
            accuracy=padded("accuracy"),
            zero_shot=padded("zero_shot"),
            identification=value["identification"],
            seconds=value["seconds"],
            compilations=value["compilations"],
            forwards=value["forwards"],
            batch_dependence=value["batch_dependence"],
            jitter={int(stage): most for stage, most in value["jitter"].items()},
            temperatures={int(i): t for i, t in value["temperatures"].items()},
            novelty={int(i): n for i, n in value.get("novelty", {}).items()},
            unknown={int(i): u for i, u in value.get("unknown", {}).items()},
            reserved=value.get("reserved", []),
            refused_steps=value["refused_steps"],
            restarts=value["restarts"],
            stages=value["stages"],
        )

    def to_json(self) -> dict[str, Any]:
        """Returns plain lists and numbers, null for NaN."""
        return plain(dataclasses.asdict(self))

    def timed(self, part: str) -> "_Timer":
        """Returns a context manager that adds the time of its block to `seconds`."""
        return _Timer(self.seconds, part)

    def count(self, traces: Mapping[tuple, int], forwards: dict[str, int]) -> None:
        """Takes over the learner's counts of this process."""
        for (name, modality), times in traces.items():
            if name == "train_step":
                before = self.compilations.get(modality, 0)
                self.compilations[modality] = max(before, times)
        # a test set may be predicted in two parts, of which `answer` runs the tower
        for name, part in (
            ("train_step",) * 2,
            ("predict",) * 2,
            ("predict", "answer"),
        ):
            if part in forwards:
                self.forwards[name] = forwards[part]

    def scalars(self, stream: Stream, stage: int) -> dict[str, float]:
        """Returns the accuracies on the test sets seen so far, after a stage.

        Args:
            stream: The stream that is learnt.
            stage: Index of the stage, counted from 0.

        Returns:
            `accuracy/<route>/<task>` among the classes seen of the modality that is
            given or predicted, and the mean over tasks `average/<label space>/<route>`;
            only what is defined.
        """
        seen = [i for stage in stream.stages[: stage + 1] for i in stage]
        last = seen[-1]
        seen = [i for i in seen if not np.isnan(self.accuracy[..., i]).all()]
        row = self.accuracy[:, :, last, seen]
        routed, found = label_spaces.SPACES.index("routed"), {}
        for r, route in enumerate(label_spaces.ROUTES):
            for task, value in zip(seen, row[routed, r], strict=True):
                found[f"accuracy/{route}/{stream.tasks[task].name}"] = float(value)
            for s, space in enumerate(label_spaces.SPACES):
                found[f"average/{space}/{route}"] = float(row[s, r].mean())
        return {name: value for name, value in found.items() if np.isfinite(value)}

    def report(self) -> dict[str, Any]:
        """Returns the accuracy matrices and metrics by label space and route."""
        spaces, routes = label_spaces.SPACES, label_spaces.ROUTES
        accuracy = {
            space: {route: self.accuracy[s, r] for r, route in enumerate(routes)}
            for s, space in enumerate(spaces)
        }
        return {
            "accuracy": accuracy,
            "zero_shot": {space: self.zero_shot[s] for s, space in enumerate(spaces)},
            "metrics": {
                space: {
                    route: of_stream(accuracy[space][route], self.zero_shot[s])
                    for route in routes
                }
                for s, space in enumerate(spaces)
            },
            "modality_identification": self.identification,
            "batch_dependence": self.batch_dependence,
            "jitter": {str(stage): most for stage, most in self.jitter.items()},
            "novelty": {str(stage): told for stage, told in self.unknown.items()},
            "reserved": self.reserved,
            "refused_steps": self.refused_steps,
            "restarts": self.restarts,
        }


def of_stream(accuracy: np.ndarray, zero_shot: np.ndarray) -> dict[str, float]:
    """Returns every metric of a matrix `[T, T]`, given the frozen encoder's.

    Tasks whose test samples are gone, so that the last row lacks them, are left out.
    """
    rows = np.flatnonzero(~np.isnan(accuracy).all(axis=1))
    if rows.size and rows[-1] == len(accuracy) - 1:
        accuracy = metrics.columns(accuracy, ~np.isnan(accuracy[-1]))
    before = np.append(np.nan, np.diagonal(zero_shot, offset=1))
    return {name: metric(accuracy) for name, metric in metrics.METRICS.items()} | {
        "forward_transfer": metrics.forward_transfer(accuracy, before),
        "excess_forgetting": metrics.excess_forgetting(accuracy, zero_shot),
    }


class _Timer:
    def __init__(self, seconds: dict[str, float], part: str) -> None:
        self._seconds, self._part = seconds, part

    def __enter__(self) -> None:
        self._start = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        spent = time.perf_counter() - self._start
        self._seconds[self._part] = self._seconds.get(self._part, 0.0) + spent


def plain(value: Any) -> Any:
    """Returns lists, dicts and numbers as JSON knows them; NaN becomes None."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value
