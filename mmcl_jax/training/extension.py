"""Adds tasks to a run that has learnt some: one more data set, month after month.

What the run has learnt is its newest state; of its past data nothing is needed. The
tasks are committed by one rename, of `stream.json`. A run that is killed before it has
none of them, and one that is killed after it resumes as any other does.
"""

import dataclasses
import datetime
import pathlib
import shutil
from collections.abc import Sequence
from typing import Any

from rich.console import Console

from mmcl_jax import config as configs
from mmcl_jax.errors import ConfigError, WorkdirError
from mmcl_jax.files import read_json, write_json
from mmcl_jax.modalities import MODALITIES
from mmcl_jax.streams import registry as sources
from mmcl_jax.streams.appending import appended, named
from mmcl_jax.streams.base import Stream, display_name, stream_hash
from mmcl_jax.streams.data_options import Selection
from mmcl_jax.streams.retirement import retired_after
from mmcl_jax.training import build, capacity, forgetting, known_tasks
from mmcl_jax.training.run_description import contents, describe
from mmcl_jax.workdir import identity, layout, sample_lists
from mmcl_jax.workdir.reading import read_run

# classes of a task, where all of a data set are one
_ALL = 2**31


def source_of(
    data: str, base: configs.Config, classes_per_task: int | None = None
) -> Any:
    """Returns the options of the source that reads some data.

    Args:
        data: Folder `<modality>/<data set>/...`, folder of a data set in Parquet or
            Arrow files, or a table that lists files.
        base: Config of the run, whose options of the data apply where they are not
            about which classes are taken.
        classes_per_task: Number of classes of a task; None: one task a data set.

    Raises:
        ConfigError: There is nothing at that place.
    """
    path = pathlib.Path(data)
    if not path.exists():
        raise ConfigError(f"--data: no such file or folder: {data}")
    given: dict[str, Any] = {}
    if path.is_file():
        kind, given["path"] = "manifest", data
    elif not any((path / name).is_dir() for name in MODALITIES) and _has_tables(path):
        kind, given["paths"] = "parquet", (data,)
    else:
        kind, given["root"] = "folders", data
    options = sources.SOURCES[kind].options
    if isinstance(base.stream, Selection):
        for name in ("test_fraction", "evaluate_on", "validation_fraction"):
            given[name] = getattr(base.stream, name)
        for name in ("max_train_per_class", "depth_scale", "depth_invalid"):
            given[name] = getattr(base.stream, name)
        given["transparency"] = base.stream.transparency
    return options(classes_per_task=classes_per_task or _ALL, **given)


def _has_tables(path: pathlib.Path) -> bool:
    """Returns whether a folder holds Parquet or Arrow files, at any depth."""
    return any(next(path.rglob(f"*{end}"), None) for end in (".parquet", ".arrow"))


def extend(
    workdir: pathlib.Path,
    data: Any,
    name: str | None = None,
    console: Console | None = None,
) -> bool:
    """Adds the tasks of a source to a run; it learns them when it resumes.

    Args:
        workdir: Workdir of a run, on which the caller has the lock.
        data: Options of the source, see `source_of`.
        name: Name of the new task, or of all of them with a number; None: as the source
            names them.
        console: Shows progress.

    Returns:
        Whether anything was added; not if the last tasks of the run are these.

    Raises:
        ConfigError: The data are no tasks that this run can learn.
        WorkdirError: The workdir has no lists of samples.
        DataError: A sample cannot be decoded, or the workdir is damaged.
    """
    config = configs.load(workdir / layout.CONFIG)
    if build.learns_at_once(config):
        raise ConfigError(
            f"--workdir: {workdir}: {config.method.name} learns all tasks at once and "
            "cannot be extended; learn them all in a new run"
        )
    stored = read_json(workdir / layout.STREAM, "the stream of a run")
    known = known_tasks.of_workdir(workdir, config, always=True)
    if known is None:
        raise WorkdirError(
            f"--workdir: {workdir}: it has no lists of samples; they were deleted, or "
            "an earlier version has made it. Restore them, or learn in a new run"
        )
    more = sources.build(data, config.seeds.order, config.seeds.data)
    more = more if name is None else named(more, name)
    if _is_last(known.stream, more):
        return False
    longer = known._replace(stream=appended(known.stream, more))
    # reads and verifies what is new, and checks that the encoder reads it
    console = console or Console(quiet=True)
    run = build.assemble(config, console, known=longer)
    settings = read_json(workdir / layout.CONFIG)
    source = identity.owner(workdir, settings, stored)
    first = len(known.stream.tasks)
    added = {
        "first": first,
        "data": known_tasks.place_of(data),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    stream = identity.continued(
        settings,
        describe(run) | {"contents": contents(run)},
        source,
        len(known.stream.stages),
        stored,
        added,
    )
    tasks = list(enumerate(run.stream.tasks))
    sample_lists.write(workdir, tasks[first:], root="")
    # results of fewer tasks; they can be had again from the newest snapshot
    (workdir / layout.RESULTS).unlink(missing_ok=True)
    write_json(workdir / layout.STREAM, stream)
    return True


def retire(workdir: pathlib.Path, names: Sequence[str]) -> list[str]:
    """Retires classes: they are answered no more, and not scored.

    What a state holds of them alone, such as means and stored samples, is dropped when
    the run learns its next task.

    Args:
        workdir: Workdir of a run, on which the caller has the lock.
        names: Display names of classes, in whatever modality and data set.

    Returns:
        Paths of the arrays in which something of them remains, since these belong to
        several classes together.

    Raises:
        ConfigError: The run has not learnt such a class.
        DataError: The workdir is damaged.
    """
    run = read_run(workdir)
    stored = read_json(workdir / layout.STREAM, "the stream of a run")
    gone = retired_after(run.stream, run.stages)
    met = range(capacity.met_classes(run.stream, run.stages - 1))
    known = {
        run.stream.classes[c].name.casefold(): run.stream.classes[c].canonical
        for c in met
        if c not in gone
    }
    more = []
    for name in names:
        wanted = display_name(name).casefold()
        configs.check_name("--retire", wanted, known)
        slots = (c for c in met if run.stream.classes[c].canonical == known[wanted])
        more += [(c, run.stages) for c in slots if c not in gone]
    settings = read_json(workdir / layout.CONFIG)
    write_json(workdir / layout.STREAM, identity.with_retired(settings, stored, more))
    config = configs.load(workdir / layout.CONFIG)
    model = build.build_model(build.encoder_of(config))
    room = capacity.at_stage(run.stream, run.stages - 1)
    return forgetting.shared_arrays(build.method_of(config)(model).init, room)


def _is_last(stream: Stream, more: Stream) -> bool:
    """Returns whether the last tasks of a stream are those of another one."""
    first = len(stream.tasks) - len(more.tasks)
    if first < 1:
        return False
    before = dataclasses.replace(
        stream,
        classes=stream.classes[: capacity.met_classes(stream, first - 1)],
        tasks=stream.tasks[:first],
        stages=stream.stages[:first],
    )
    return stream_hash(appended(before, more)) == stream_hash(stream)


def copied(workdir: pathlib.Path, into: pathlib.Path) -> None:
    """Copies a run to a new workdir, in which it is extended.

    Raises:
        ConfigError: There is something in the new workdir.
    """
    if into.exists() and any(into.iterdir()):
        raise ConfigError(f"--into: {into} is not empty; choose another folder")
    unfinished = into.with_name(f"{into.name}.tmp")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.parent.mkdir(parents=True, exist_ok=True)
    skipped = shutil.ignore_patterns(layout.LOCK, layout.CHECKPOINTS, layout.DAMAGED)
    shutil.copytree(workdir, unfinished, ignore=skipped)
    if into.exists():
        into.rmdir()
    # by a rename: the folder appears only when the copy is complete
    unfinished.replace(into)
