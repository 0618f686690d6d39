"""Teaches a run more classes or modalities; retires classes.

The tasks in a folder, or in the files that a table lists, are learnt after those of the
run: new classes, a modality not met before, or more samples of classes that are known.
The data of earlier tasks are not needed any more. The same command resumes if it is
stopped.

Examples:
  mmcl-extend --workdir=runs/own --data=NEW
  mmcl-extend --workdir=runs/own --retire=cat,wren
"""

import pathlib

from absl import flags, logging
from rich.console import Console

from mmcl_jax.cli import command_line, run_endings
from mmcl_jax.errors import ConfigError, WorkdirError
from mmcl_jax.workdir.layout import CONFIG
from mmcl_jax.workdir.lock import Lock

_WORKDIR = command_line.define_path("workdir", None, "Folder of the run to extend.")
_DATA = command_line.define_path(
    "data",
    None,
    "What to learn: a folder <modality>/<data set>/{train,test}/<class>/, a folder of "
    "Parquet or Arrow files, or a table that lists files.",
)
_NAME = flags.DEFINE_string(
    "name", None, "Name of the new task; by default the source names it."
)
_INTO = command_line.define_path(
    "into", None, "New workdir for the longer run; by default it grows in place."
)
_RETIRE = flags.DEFINE_list(
    "retire", [], "Names of classes that are not answered any more, without --data."
)
_CLASSES = flags.DEFINE_integer(
    "classes_per_task",
    None,
    "Number of classes of a task; by default a data set is one task.",
    1,
)


def main(argv: list[str]) -> None:
    """Extends the run, and learns what was added; exit codes are those of `main`."""
    # imported late, since JAX takes seconds to load, and --help does without it
    from mmcl_jax import config as configs
    from mmcl_jax.parallel import compilation_cache, host_memory
    from mmcl_jax.report.live import Reporter
    from mmcl_jax.training import experiment, extension, remote_names, run_summary
    from mmcl_jax.training.preemption import Interrupt
    from mmcl_jax.workdir import snapshots

    host_memory.bound()
    interrupt = Interrupt()
    interrupt.catch()
    interrupt.follow_parent()
    snapshots.silence_failures()
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)
    with run_endings.explained():
        command_line.refuse_arguments(argv)
        workdir = _workdir()
        path = workdir / CONFIG
        config = configs.load(path)
        remote_names.check(config, path)
        compilation_cache.keep_compiled_programs()
        if _RETIRE.value:
            _retire(workdir, _RETIRE.value)
            return
        data = extension.source_of(_DATA.value, config, _CLASSES.value)
        # one lock for both, so that nobody else adds tasks in between
        lock = Lock(workdir)
        if not extension.extend(workdir, data, _NAME.value, Console()):
            print(f"{workdir} has these tasks already; give others a --name")
        experiment.run(config, workdir, None, interrupt, Reporter, lock)
        print(run_summary.next_steps(workdir))


def _retire(workdir: pathlib.Path, names: list[str]) -> None:
    from mmcl_jax.training import extension

    lock = Lock(workdir)
    try:
        shared = extension.retire(workdir, names)
    finally:
        lock.release()
    print(
        f"{workdir} does not answer {', '.join(names)} any more. Means and samples of "
        "these classes alone are dropped when the next task is learnt; snapshots until "
        "then hold them. What was learnt of several classes together remains: "
        f"{', '.join(shared) or 'nothing'}"
    )


def _workdir() -> pathlib.Path:
    """Returns the workdir that is extended, which may first have to be copied."""
    if not _WORKDIR.value:
        raise ConfigError("--workdir: missing; give the folder of a run")
    if bool(_DATA.value) == bool(_RETIRE.value):
        raise ConfigError("--data, --retire: give one of them")
    workdir = pathlib.Path(_WORKDIR.value)
    if not (workdir / CONFIG).is_file():
        raise WorkdirError(
            f"--workdir: {workdir}: no run in it; give the folder of one, or start one "
            "by mmcl_jax.main"
        )
    if not _INTO.value:
        return workdir
    from mmcl_jax.training import extension

    into = pathlib.Path(_INTO.value)
    # the same command resumes: what is there may be this copy
    if not (into / CONFIG).is_file():
        extension.copied(workdir, into)
    return into


def cli() -> None:
    """Runs the program."""
    command_line.run(main)


if __name__ == "__main__":
    cli()
