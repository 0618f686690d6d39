"""What a stream is made of and how it is read: sections `stream` and `data`."""

import dataclasses
from typing import Annotated, Literal

from mmcl_jax.fields import Count, Fraction, NonNegative, NonNegativeInt, Range
from mmcl_jax.streams.base import EvaluateOn
from mmcl_jax.streams.procedural import Concepts

Classes = Annotated[int, Range(2)]


@dataclasses.dataclass(frozen=True)
class World:
    """A stream of novel concepts of the procedural world.

    Attributes:
        kind: says that the stream is of this sort.
        tasks: number of tasks, dealt to the modalities in turn; one of each at least.
        classes_per_task: concepts of a task.
        modalities: which of the five take part.
        order: of tasks: `by_modality`: all of one, then all of the next; `interleaved`:
            one of each in turn; `recurring`: two of each in turn; `random`.
        train_per_class: training samples of a class.
        test_per_class: test samples of a class.
        concepts: those of the benchmark (`novel`), or those that hyper-parameters and
            the difficulty of the world are chosen on (`development`).
        evaluate_on: whether the samples that score are test draws or validation draws,
            which share none.
        first_tasks: tasks that are kept, once in order; None: all.
    """

    kind: str = "world"
    tasks: Count = 10
    classes_per_task: Classes = 5
    modalities: tuple[str, ...] = ("image", "video", "audio", "depth", "text")
    order: str = "interleaved"
    train_per_class: Count = 40
    test_per_class: Count = 20
    concepts: Concepts = "novel"
    evaluate_on: EvaluateOn = "test"
    first_tasks: Count | None = None


@dataclasses.dataclass(frozen=True)
class Selection:
    """What is taken of data sets, and how it is cut into tasks.

    Attributes:
        classes_per_task: classes of a task.
        order: of tasks: `by_modality`: all of one, then all of the next; `interleaved`:
            one of each in turn; `recurring`: two of each in turn; `random`.
        include: comma-separated globs on `<modality>/<dataset>/<class>`; empty: all.
        exclude: globs of what is left out; `!` in front takes back what an earlier
            one left out; empty: nothing.
        max_train_per_class: training samples kept of a class; None: all.
        test_fraction: share of a class that tests it where a data set has no test part.
        evaluate_on: the samples that score: those of the `test` part, or `validation`
            samples that are split off the training samples.
        validation_fraction: share of a class's training samples that is split off.
        first_tasks: tasks that are kept, once in order; None: all.
    """

    classes_per_task: Classes = 5
    order: str = "interleaved"
    include: str = ""
    exclude: str = ""
    max_train_per_class: Count | None = None
    test_fraction: Fraction = 0.2
    evaluate_on: EvaluateOn = "test"
    validation_fraction: Fraction = 0.2
    first_tasks: Count | None = None


@dataclasses.dataclass(frozen=True)
class Folders(Selection):
    """A stream of ordinary files, `<root>/<modality>/<dataset>/{train,test}/<class>/`.

    Attributes:
        kind: says that the stream is of this sort.
        root: the folder; a relative one counts from the working directory.
    """

    kind: str = "folders"
    root: str = ""


@dataclasses.dataclass(frozen=True)
class Manifest(Selection):
    """A stream of the files that a CSV table lists, see `streams.manifest`.

    Attributes:
        kind: says that the stream is of this sort.
        path: the table, with the columns path, label, modality, split and dataset.
    """

    kind: str = "manifest"
    path: str = ""


@dataclasses.dataclass(frozen=True)
class Tfds(Selection):
    """A stream of data sets that TensorFlow Datasets has prepared, see `streams.tfds`.

    Attributes:
        kind: says that the stream is of this sort.
        names: of the data sets, each with its config and version, if need be:
            `mnist`, `coil100/1.0.0`.
        data_dir: where they are; empty: where TensorFlow Datasets puts them.
        train: the split that is trained on.
        test: the split that scores; empty: a part is split off.
    """

    kind: str = "tfds"
    names: tuple[str, ...] = ()
    data_dir: str = ""
    train: str = "train"
    test: str = "test"


STREAMS = {"world": World, "folders": Folders, "manifest": Manifest, "tfds": Tfds}


@dataclasses.dataclass(frozen=True)
class DataOptions:
    """How samples are read.

    Attributes:
        worker_processes: Grain worker processes; 0: threads of this process.
        threads: decoding threads.
        memory_gib: decoded samples are kept up to this size, so that later epochs and
            evaluations do not decode again.
        verify: whether every file is decoded once before the first task.
        on_error: what to do when that finds files that cannot be decoded: `stop` with
            an error that names them, or `skip` them: they are left out of the stream,
            listed in `log.txt` and counted in `results.json`.
        feature_cache: whether frozen features are kept on disk for later runs, see
            `docs/data.md`.
        modality_modules: Python files of your own with modalities, see
            `docs/extending.md`.
    """

    worker_processes: NonNegativeInt = 0
    threads: Count = 2
    memory_gib: NonNegative = 2.0
    verify: bool = True
    on_error: Literal["stop", "skip"] = "stop"
    feature_cache: bool = True
    modality_modules: tuple[str, ...] = ()
