"""Options that sources of data sets share, and the section `data` of a config."""

import dataclasses
from typing import Annotated, Literal

from mmcl_jax.fields import Count, Fraction, NonNegative, NonNegativeInt, Range
from mmcl_jax.streams.base import EvaluateOn

Classes = Annotated[int, Range(2)]


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
