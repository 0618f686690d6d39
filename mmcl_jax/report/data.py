"""What a workdir holds, read and checked for a page."""

import dataclasses
import pathlib
import zipfile
from typing import Any, NamedTuple

import numpy as np

from mmcl_jax import assemble
from mmcl_jax import config as configs
from mmcl_jax.evaluate import ROUTES, SPACES
from mmcl_jax.files import read_json
from mmcl_jax.modalities.base import DataError, InputSpec, reading
from mmcl_jax.models import pretrained
from mmcl_jax.report.history import History
from mmcl_jax.results import Results, plain
from mmcl_jax.states import read_results, sealed
from mmcl_jax.streams.base import Stream

_MAX_ARRAY_BYTES = 256 * 2**20
_MAX_LOG_BYTES = 2**20
# column of `predictions/`: classes among all met, modality not told
CHOSEN = "chosen/union/predicted"
# of config, what does not make two runs of one method two methods
_NO_VARIANT = ("seeds", "resume", "report", "checkpoint", "data", "logging", "mesh")


class Source(NamedTuple):
    """Where test samples come from, to show some of them.

    Attributes:
        stream: with the references of all samples.
        inputs: bounds what is decoded.
    """

    stream: Stream
    inputs: InputSpec


@dataclasses.dataclass(frozen=True)
class RunData:
    """One run, as far as it has come.

    Attributes:
        workdir: of the run.
        config: what `config.json` holds.
        stream: what `stream.json` holds.
        results: what `results.json` holds, or would hold by now.
        finished: whether all stages were learnt.
        rows: last task of each stage that was learnt: the rows of the accuracy matrix.
        history: what the snapshots say.
        predictions: columns of the newest file of `predictions/`; None: there is none.
        embeddings: arrays of `embeddings.npz`; None: there is none.
        source: of the test samples, or why there is none.
        log: warnings of `log.txt`, each once.
    """

    workdir: pathlib.Path
    config: dict[str, Any]
    stream: dict[str, Any]
    results: dict[str, Any]
    finished: bool
    rows: tuple[int, ...]
    history: History
    predictions: dict[str, np.ndarray] | None
    embeddings: dict[str, np.ndarray] | None
    source: Source | str
    log: tuple[str, ...]

    @property
    def method(self) -> str:
        """Returns the name of its method."""
        return str(self.results["method"])

    @property
    def tasks(self) -> list[dict[str, Any]]:
        """Returns name, modality, classes and sample counts of each task."""
        return self.results["tasks"]

    @property
    def modalities(self) -> tuple[str, ...]:
        """Returns the modalities in the order they are met."""
        return tuple(self.results["modalities"])

    @property
    def variant(self) -> dict[str, Any]:
        """Returns what runs that are averaged over have in common, flat."""
        kept = {k: v for k, v in self.config.items() if k not in _NO_VARIANT}
        return {k: v for k, v in flat(kept).items() if k != "stream.order"}

    def accuracy(self, space: str, route: str) -> np.ndarray:
        """Returns the accuracy matrix `[T, T]`, NaN where not evaluated."""
        return np.array(self.results["accuracy"][space][route], np.float64)

    def zero_shot(self, space: str) -> np.ndarray:
        """Returns that of the frozen encoder."""
        return np.array(self.results["zero_shot"][space], np.float64)


def load(
    workdir: pathlib.Path,
    results: dict[str, Any] | None = None,
    history: History | None = None,
    source: Source | None = None,
) -> RunData:
    """Reads a workdir.

    Args:
        workdir: of a run that may still be on its way.
        results: of a run that is on its way; None: from `results.json`, or else from
            the newest snapshot.
        history: that has read the snapshots before; None: all are read.
        source: of the test samples; None: built anew from `config.json`.

    Raises:
        DataError: a file is absent or damaged; names it.
    """
    config = read_json(workdir / "config.json", "the config of a run")
    stream = read_json(workdir / "stream.json", "the stream of a run")
    path = workdir / "results.json"
    if results is None:
        results = (
            read_json(path) if path.is_file() else _so_far(workdir, stream, config)
        )
    with reading(str(workdir / "config.json"), "the results of a run"):
        rows = _check(results, stream)
        stages = stream["stages"]
        newest = f"{len(rows) - 1:03d}.npz"
        towers = {name: stream["towers"][name] for name in results["modalities"]}
    history = history or History(workdir)
    history.follow(towers)
    predictions = _arrays(
        workdir / "predictions" / newest,
        len(stream["classes"]),
        ("id", "label", CHOSEN),
    )
    embeddings = _arrays(
        workdir / "embeddings.npz", len(stream["classes"]), ("id", "label"), ("query",)
    )
    return RunData(
        workdir=workdir,
        config=config,
        stream=stream,
        results=results,
        finished=len(rows) == len(stages),
        rows=rows,
        history=history,
        predictions=predictions,
        embeddings=embeddings,
        source=source or _source(config, stream),
        log=_warnings(workdir / "log.txt"),
    )


def _so_far(
    workdir: pathlib.Path, stream: dict[str, Any], config: dict[str, Any]
) -> dict[str, Any]:
    """Returns what the newest snapshot holds of the results."""
    numbers = sealed(workdir / "snapshots")
    path = workdir / "snapshots"
    if not numbers:
        raise DataError(
            f"{workdir}: neither results.json nor a snapshot is there; a report needs "
            "one learnt task at least"
        )
    with reading(str(workdir / "stream.json"), "the stream of a run"):
        try:
            stored = Results.from_json(read_results(path, numbers[-1]))
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise DataError(f"{path}: cannot be read ({error})") from error
        return {
            "method": config["method"]["name"],
            "seeds": config["seeds"],
            "environment": {},
            "modalities": stream["modalities"],
            "tasks": stream["tasks"],
            "skipped_samples": 0,
            **plain(stored.report()),
            "cost": {"seconds": stored.seconds},
        }


def _check(results: dict[str, Any], stream: dict[str, Any]) -> tuple[int, ...]:
    """Returns the rows that were learnt, or raises what `reading` makes an error of."""
    tasks = len(results["tasks"])
    shape = (tasks, tasks)
    for space in SPACES:
        for route in ROUTES:
            matrix = np.array(results["accuracy"][space][route], np.float64)
            if matrix.shape != shape:
                raise DataError(
                    f"results: a matrix of {matrix.shape}; expected {shape}"
                )
        if np.array(results["zero_shot"][space], np.float64).shape != shape:
            raise DataError(f"results: zero_shot is not of shape {shape}")
    for task in results["tasks"]:
        texts = [task["name"], task["modality"], *task["classes"]]
        if not all(isinstance(text, str) for text in texts):
            raise DataError("results: a task with names that are no text")
        if task["modality"] not in results["modalities"]:
            raise DataError(f"results: no modality {task['modality']!r}")
    identified = results["modality_identification"]
    if (
        identified
        and np.shape(identified["confusion"]) != (len(results["modalities"]),) * 2
    ):
        raise DataError("results: a confusion of other modalities")
    for slot in stream["classes"]:
        if slot["modality"] not in results["modalities"]:
            raise DataError(f"stream: no modality {slot['modality']!r}")
        if not {"name", "canonical"} <= slot.keys():
            raise DataError("stream: a class without a name")
    learnt = np.array(results["accuracy"]["task"]["given"], np.float64)
    rows = [int(stage[-1]) for stage in stream["stages"]]
    found = tuple(row for row in rows if not np.isnan(learnt[row]).all())
    if not found:
        raise DataError("results: no task was scored yet")
    return found


def _arrays(
    path: pathlib.Path,
    classes: int,
    columns: tuple[str, ...],
    features: tuple[str, ...] = (),
) -> dict[str, np.ndarray] | None:
    """Reads an `.npz` of plain arrays; None: there is none.

    Args:
        path: of the file.
        classes: slots of the stream.
        columns: arrays of whole numbers, one a sample; `label` is below `classes`.
        features: arrays of vectors, one a sample; then there is `text`, one a class.
    """
    if not path.is_file():
        return None
    with reading(str(path), "an .npz of plain arrays"):
        with zipfile.ZipFile(path) as file:
            size = sum(entry.file_size for entry in file.infolist())
        if size > _MAX_ARRAY_BYTES:
            raise DataError(f"{path}: {size} bytes of arrays; expected fewer")
        try:
            with np.load(path, allow_pickle=False) as stored:
                arrays = {name: stored[name] for name in stored.files}
        except MemoryError as error:
            raise DataError(f"{path}: an impossible size in it") from error
        label = arrays["label"]
        shapes = {arrays[name].shape for name in columns}
        fits = shapes == {(len(label),)} and (
            not len(label) or 0 <= label.min() <= label.max() < classes
        )
        for name in features:
            width = arrays["text"].shape[1]
            fits &= arrays["text"].shape == (classes, width)
            fits &= arrays[name].shape == (len(label), width)
        if not fits:
            raise DataError(f"{path}: arrays of another stream or version")
        return arrays


def _source(config: dict[str, Any], stream: dict[str, Any]) -> Source | str:
    """Returns the test samples of a config, or why they cannot be had."""
    try:
        resolved = configs.resolve(config, stored=True)
        built = assemble.build_stream(resolved)
        name = assemble.encoder_name(resolved.encoder)
        if not pretrained.is_here(name):
            return "the encoder is a repository, and a page fetches nothing"
        inputs = pretrained.read_inputs(name)
    except (ValueError, OSError) as error:
        return f"the samples are not at hand ({str(error).splitlines()[0]})"
    if [dataclasses.asdict(slot) for slot in built.classes] != stream["classes"]:
        return "the data are not those that the run was made with"
    return Source(built, inputs)


def _warnings(path: pathlib.Path) -> tuple[str, ...]:
    """Returns the lines of a log that a reader of its results should know."""
    if not path.is_file():
        return ()
    with path.open("rb") as file:
        lines = file.read(_MAX_LOG_BYTES).decode("utf-8", "replace").splitlines()
    # behind date and time
    said = [line.split(" ", 2)[2] for line in lines if line.count(" ") > 2]
    kept = ("warning: ", "skipped: ")
    marks = (" is damaged: ", " was close to singular", " was not written: ")
    found = [s for s in said if s.startswith(kept) or any(mark in s for mark in marks)]
    return tuple(dict.fromkeys(found))


def flat(tree: dict[str, Any], path: str = "") -> dict[str, Any]:
    """Returns nested dicts as one, by paths with dots.

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


def group(runs: list[RunData]) -> dict[str, list[RunData]]:
    """Returns runs that differ by order and seeds alone together, by a short name.

    The name is the method's; where several groups have the same, what they differ in
    stands behind it.
    """
    by_variant: dict[str, list[RunData]] = {}
    for run in runs:
        by_variant.setdefault(repr(sorted(run.variant.items())), []).append(run)
    groups = list(by_variant.values())
    named: dict[str, list[RunData]] = {}
    for members in groups:
        own = members[0]
        rivals = [g[0].variant for g in groups if g[0].method == own.method]
        keys = dict.fromkeys(key for rival in rivals for key in rival)
        differing = [k for k in keys if len({repr(r.get(k)) for r in rivals}) > 1]
        parts = [f"{k.rpartition('.')[2]}={own.variant.get(k)!r}" for k in differing]
        named[" ".join([own.method, *parts])] = members
    return named
