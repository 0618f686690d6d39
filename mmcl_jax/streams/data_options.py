"""Options that all sources of data sets share, and the section `data` of a config."""

import dataclasses
from typing import Literal

from mmcl_jax.errors import ConfigError
from mmcl_jax.fields import (
    Count,
    Fraction,
    NonNegative,
    NonNegativeInt,
    Share,
    check_name,
)
from mmcl_jax.files import Path
from mmcl_jax.streams.arrangement import ClassOrder, Scenario
from mmcl_jax.streams.base import EvaluateOn
from mmcl_jax.streams.protocols import PROTOCOLS


@dataclasses.dataclass(frozen=True)
class Selection:
    """Selection of classes and samples from data sets, and their division into tasks.

    Attributes:
        classes_per_task: Number of classes of a task.
        order: Order of the tasks: `by_modality`: all of one modality, then all of the
            next; `interleaved`: one of each in turn; `recurring`: two of each in turn;
            `random`. Where a plan, a protocol or a table gives the tasks, it is not
            read, but by the protocols `mmcl_real` and `mmcl_real_development`.
        class_order: Order in which the classes of a data set are cut into tasks: that
            of their names, `drawn` by the order seed or not (`alphabetical`).
        plan: File that lists the tasks, see `docs/data.md`; empty: none.
        protocol: Published stream that the data are put into; empty: none.
        scenario: How tasks are related: with other classes each (`disjoint`); with
            classes that return in later tasks (`blurry`); or with equal classes of
            other data sets (`domains`).
        disjoint_share: Probability that a class does not return, if `blurry`.
        blurry_share: Share of the training samples of the others that come later.
        online: Training samples of the slices into which tasks are cut, after each of
            which all classes seen are evaluated. Each sample is seen once: the run has
            one epoch. None: tasks are whole.
        include: Comma-separated globs on `<modality>/<dataset>/<class>`; empty: all.
        exclude: Globs of classes to leave out; `!` before a glob takes back what an
            earlier one left out; empty: none.
        reserve: Globs of classes that are never learnt, included or not, such as
            `audio` or `*/digits`: after every stage they are scored among themselves,
            by modality; empty: none.
        max_train_per_class: Training samples kept of a class in a task; None: all. In
            the protocols of two modalities, such as `mmcl_real_sounds_after_pictures`,
            it is for the later one.
        test_fraction: Share of a class that is split off for testing if a data set has
            no test part.
        evaluate_on: Samples that score: those of the `test` part, or `validation`
            samples that are split off the training samples.
        validation_fraction: Share of a class's training samples that is split off for
            validation.
        first_tasks: Number of tasks that are kept, in the final order; None: all.
        depth_scale: Stored units of a depth map in a metre: `5000` for all data sets,
            or `tum=5000,kitti=256`; `sunrgbd` stands for the rotated bits of SUN RGB-D.
            Empty: 1000 for integers, which are then millimetres, and 1 for floats.
        depth_invalid: Stored values that stand for "no reading" besides 0, given as
            those of `depth_scale`; several are separated by blanks.
        transparency: Whether transparent pixels of pictures are put on `white`, or
            transparency is dropped (`drop`), as the preprocessing of CLIP does.
    """

    classes_per_task: Count = 5
    order: str = "interleaved"
    class_order: ClassOrder = "drawn"
    plan: Path = ""
    protocol: str = ""
    scenario: Scenario = "disjoint"
    disjoint_share: Share = 0.5
    blurry_share: Share = 0.1
    online: Count | None = None
    include: str = ""
    exclude: str = ""
    reserve: str = ""
    max_train_per_class: Count | None = None
    test_fraction: Fraction = 0.2
    evaluate_on: EvaluateOn = "test"
    validation_fraction: Fraction = 0.2
    first_tasks: Count | None = None
    depth_scale: str = ""
    depth_invalid: str = ""
    transparency: Literal["white", "drop"] = "white"


def check(options: Selection) -> None:
    """Raises `ConfigError` for options that contradict each other."""
    if options.protocol:
        check_name("config.stream.protocol", options.protocol, PROTOCOLS)
    given = [name for name in ("plan", "protocol") if getattr(options, name)]
    if options.scenario == "domains":
        given.append("scenario")
    if len(given) > 1:
        names = " and ".join(f"config.stream.{name}" for name in given)
        raise ConfigError(f"{names}: each of them gives the tasks; leave one out")


@dataclasses.dataclass(frozen=True)
class DataOptions:
    """How samples are read.

    Attributes:
        worker_processes: Number of Grain worker processes; 0: threads of this process.
        threads: Number of decoding threads.
        memory_gib: Memory for decoded samples, GiB, so that later epochs and
            evaluations do not decode them again.
        verify: Whether every file is decoded once before the first task.
        on_error: Reaction to files that `verify` cannot decode: `stop` with an error
            that names them, or `skip` them: they are left out of the stream, listed in
            `log.txt` and counted in `results.json`.
        feature_cache: Whether frozen features are kept on disk for later runs, see
            `docs/data.md`.
        modality_modules: User-defined Python files with modalities, see
            `docs/extending.md`.
    """

    worker_processes: NonNegativeInt = 0
    threads: Count = 2
    memory_gib: NonNegative = 2.0
    verify: bool = True
    on_error: Literal["stop", "skip"] = "stop"
    feature_cache: bool = True
    modality_modules: tuple[str, ...] = ()
