"""What a workdir holds, read and checked for a page."""

import dataclasses
import pathlib
import zipfile
from typing import Any, NamedTuple

import numpy as np

from mmcl_jax import config as configs
from mmcl_jax.errors import DataError, reading
from mmcl_jax.files import read_json
from mmcl_jax.modalities.base import InputSpec
from mmcl_jax.models import pretrained
from mmcl_jax.report.checks import check_config, check_results, check_stream
from mmcl_jax.report.history import History
from mmcl_jax.streams.base import Stream
from mmcl_jax.training import build
from mmcl_jax.workdir.results import Results, plain
from mmcl_jax.workdir.states import read_results, sealed

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
        history: what snapshots and predictions say over time.
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
    def seeds(self) -> dict[str, Any]:
        """Returns the seeds by what they are of."""
        return self.config["seeds"]

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
    inside: bool = True,
) -> RunData:
    """Reads a workdir.

    Args:
        workdir: of a run that may still be on its way.
        results: of a run that is on its way; None: from `results.json`, or else from
            the newest snapshot.
        history: that has read the snapshots before; None: all are read.
        source: of the test samples; None: built anew from `config.json`.
        inside: whether snapshots, predictions, embeddings and samples are read, which
            a page of several runs has no room for.

    Raises:
        DataError: a file is absent or damaged; names it.
    """
    config = read_json(workdir / "config.json", "the config of a run")
    check_config(config, workdir / "config.json")
    stream = read_json(workdir / "stream.json", "the stream of a run")
    check_stream(stream, workdir / "stream.json")
    path = workdir / "results.json"
    if results is None:
        if path.is_file():
            results = read_json(path, "the results of a run")
        else:
            path = workdir / "snapshots"
            results = _so_far(path, stream, config)
    rows = check_results(results, stream, path)
    run = RunData(
        workdir=workdir,
        config=config,
        stream=stream,
        results=results,
        finished=len(rows) == len(stream["stages"]),
        rows=rows,
        history=history or History(workdir),
        predictions=None,
        embeddings=None,
        source="a page of several runs shows none",
        log=_warnings(workdir / "log.txt"),
    )
    return _with_inside(run, source) if inside else run


def _with_inside(run: RunData, source: Source | None) -> RunData:
    """Returns a run with what its snapshots, arrays and samples say."""
    towers = {name: run.stream["towers"][name] for name in run.modalities}
    run.history.follow(towers)
    tasks, slots = len(run.tasks), len(run.stream["classes"])
    run.history.follow_predictions(run.stream["stages"][: len(run.rows)], tasks, slots)
    classes, newest = len(run.stream["classes"]), f"{len(run.rows) - 1:03d}.npz"
    return dataclasses.replace(
        run,
        predictions=_arrays(
            run.workdir / "predictions" / newest, classes, ("id", "label", CHOSEN)
        ),
        embeddings=_arrays(
            run.workdir / "embeddings.npz", classes, ("id", "label"), ("query",)
        ),
        source=source or _source(run.config, run.stream),
    )


def _so_far(
    snapshots: pathlib.Path, stream: dict[str, Any], config: dict[str, Any]
) -> dict[str, Any]:
    """Returns what the newest snapshot holds of the results."""
    numbers = sealed(snapshots)
    if not numbers:
        raise DataError(
            f"{snapshots.parent}: neither results.json nor a snapshot is there; a "
            "report needs one learnt task at least"
        )
    try:
        stored = Results.from_json(read_results(snapshots, numbers[-1]))
        report = plain(stored.report())
    except (OSError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{snapshots}: cannot be read ({error!r})") from error
    return {
        "method": config["method"]["name"],
        "seeds": config["seeds"],
        "environment": {},
        "modalities": list(stream["towers"]),
        "tasks": stream["tasks"],
        "skipped_samples": 0,
        **report,
        "cost": {"seconds": stored.seconds},
    }


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
        if any(arrays[name].dtype.kind not in "iu" for name in columns):
            raise DataError(f"{path}: columns that are no whole numbers")
        shapes = {arrays[name].shape for name in columns}
        fits = shapes == {(len(label),)} and all(
            not len(label) or low <= column.min() <= column.max() < classes
            for column, low in ((label, 0), (arrays.get(CHOSEN, label), -1))
        )
        for name in features:
            width = arrays["text"].shape[1]
            fits &= arrays["text"].shape == (classes, width)
            fits &= arrays[name].shape == (len(label), width)
            fits &= arrays["text"].dtype.kind == arrays[name].dtype.kind == "f"
        if not fits:
            raise DataError(f"{path}: arrays of another stream or version")
        return arrays


def _source(config: dict[str, Any], stream: dict[str, Any]) -> Source | str:
    """Returns the test samples of a config, or why they cannot be had."""
    try:
        resolved = configs.resolve(config, stored=True)
        built = build.build_stream(resolved)
        name = build.encoder_name(resolved.encoder)
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
