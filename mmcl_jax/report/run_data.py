"""The data of a run that a page shows, and which runs belong together."""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from mmcl_jax.analysis import statistics
from mmcl_jax.modalities.base import InputSpec
from mmcl_jax.report.history import History
from mmcl_jax.streams.base import Stream
from mmcl_jax.workdir.predictions import StoredEmbeddings
from mmcl_jax.workdir.reading import LoggedStep, StoredRun
from mmcl_jax.workdir.results import of_stream

NO_PREDICTIONS = "the workdir has no predictions of its newest stage"
# sections of the config in which runs of one variant of a method may differ
_NO_VARIANT = ("seeds", "resume", "report", "checkpoint", "data", "logging", "mesh")


class Source(NamedTuple):
    """Where test samples come from, to show some of them.

    Attributes:
        stream: Stream with the references of all samples.
        inputs: Limits for decoding.
    """

    stream: Stream
    inputs: InputSpec


@dataclasses.dataclass(frozen=True)
class RunData:
    """One run, finished or not.

    Attributes:
        stored: Config and stream.
        results: Content of `results.json`, or what it would hold by now.
        rows: Last task of each stage that was learnt: the rows of the accuracy matrix.
        history: Snapshots and predictions over time.
        embeddings: Embeddings by the frozen encoder; None if there are none.
        source: Source of the test samples, or why there is none.
        log: Warnings of `log.txt`, each once.
        steps: Logged training steps.
        begun: Date on which it began, "" if its log does not say.
    """

    stored: StoredRun
    results: dict[str, Any]
    rows: tuple[int, ...]
    history: History
    embeddings: StoredEmbeddings | None
    source: Source | str
    log: tuple[str, ...]
    steps: tuple[LoggedStep, ...] = ()
    begun: str = ""

    @property
    def workdir(self) -> pathlib.Path:
        """Returns the folder of the run."""
        return self.stored.workdir

    @property
    def config(self) -> dict[str, Any]:
        """Returns what `config.json` holds."""
        return self.stored.settings

    @property
    def stream(self) -> Stream:
        """Returns classes, tasks and stages."""
        return self.stored.stream

    @property
    def finished(self) -> bool:
        """Returns whether all stages were learnt."""
        return len(self.rows) == len(self.stream.stages)

    @property
    def method(self) -> str:
        """Returns the name of its method."""
        return self.results["method"]

    @property
    def seeds(self) -> dict[str, Any]:
        """Returns the seeds by their purpose."""
        return self.config["seeds"]

    @property
    def tasks(self) -> list[dict[str, Any]]:
        """Returns name, modality, classes and sample counts of each task."""
        return self.results["tasks"]

    @property
    def modalities(self) -> tuple[str, ...]:
        """Returns the modalities in the order of learning."""
        return tuple(self.results["modalities"])

    @property
    def variant(self) -> dict[str, Any]:
        """Returns the flat config that runs share if they are averaged over."""
        kept = {k: v for k, v in self.config.items() if k not in _NO_VARIANT}
        return {k: v for k, v in flat(kept).items() if k != "stream.order"}

    def accuracy(self, space: str, route: str) -> np.ndarray:
        """Returns the accuracy matrix `[T, T]`, NaN where not evaluated."""
        return np.array(self.results["accuracy"][space][route], np.float64)

    def zero_shot(self, space: str) -> np.ndarray:
        """Returns the accuracy matrix `[T, T]` of the frozen encoder."""
        return np.array(self.results["zero_shot"][space], np.float64)

    def metrics(self, space: str, route: str) -> dict[str, float]:
        """Returns every metric over the tasks learnt so far."""
        size = self.rows[-1] + 1
        cut = self.accuracy(space, route)[:size, :size]
        return of_stream(cut, self.zero_shot(space)[:size, :size])


# by name, runs that differ by order and seeds alone
Groups = dict[str, list[RunData]]


def summary(
    runs: Sequence[RunData], space: str, route: str, name: str
) -> statistics.Summary:
    """Returns mean and interval of a metric over runs."""
    return statistics.summary([run.metrics(space, route)[name] for run in runs])


def flat(tree: dict[str, Any], path: str = "") -> dict[str, Any]:
    """Returns nested dicts as a single one, by dotted paths.

    >>> flat({"a": {"b": 1}, "c": 2})
    {'a.b': 1, 'c': 2}
    """
    found: dict[str, Any] = {}
    for key, value in tree.items():
        name = f"{path}{key}"
        if isinstance(value, dict):
            found |= flat(value, f"{name}.")
        else:
            found[name] = value
    return found


def group(runs: list[RunData]) -> Groups:
    """Groups runs that differ by order and seeds alone, under a short name.

    The name is the method's; if several groups share it, the fields in which they
    differ follow it.
    """
    by_variant: dict[str, list[RunData]] = {}
    for run in runs:
        by_variant.setdefault(repr(sorted(run.variant.items())), []).append(run)
    groups = list(by_variant.values())
    named: Groups = {}
    for members in groups:
        own = members[0]
        rivals = [g[0].variant for g in groups if g[0].method == own.method]
        keys = dict.fromkeys(key for rival in rivals for key in rival)
        differing = [k for k in keys if len({repr(r.get(k)) for r in rivals}) > 1]
        parts = [f"{k.rpartition('.')[2]}={own.variant.get(k)!r}" for k in differing]
        named[" ".join([own.method, *parts])] = members
    return named
