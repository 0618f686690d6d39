r"""Trains a method on a stream of tasks; evaluates after each.

Instead of a file, `--config` may name a config that comes with the package, such as
`demo` or `folders`; after a colon it takes arguments. The same command, with the same
`--workdir`, resumes a run that was stopped.

Examples:
  mmcl-train --config=demo --workdir=runs/demo
  mmcl-train --config=folders:method=ridge --config.stream.root=DATA \
      --workdir=runs/own
"""

import os
import pathlib
from typing import TYPE_CHECKING

import ml_collections
from absl import flags, logging

from mmcl_jax.cli import command_line, run_endings
from mmcl_jax.errors import ConfigError
from mmcl_jax.workdir.layout import CONFIG

if TYPE_CHECKING:
    from mmcl_jax.config import Config

_CONFIG = command_line.define_config(
    "Config of the run; without it the run in the workdir resumes."
)
_WORKDIR = command_line.define_path(
    "workdir", None, "Folder to which the run writes everything."
)
_STOP_AFTER = flags.DEFINE_integer(
    "stop_after", None, "Stop after this many stages; the same command resumes.", 1
)
_ALLOW_DOWNLOAD = flags.DEFINE_bool(
    "allow_download",
    False,
    "Whether the stored config of a run that resumes without --config may name an "
    "encoder or data in a remote repository, which are then downloaded.",
)
_COORDINATOR = flags.DEFINE_string(
    "coordinator", None, "host:port of process 0, or 'auto' on a known cluster."
)
_PROCESSES = flags.DEFINE_integer(
    "processes", None, "Number of processes of the run, with --coordinator.", 1
)
_PROCESS = flags.DEFINE_integer(
    "process", None, "Index of this process, from 0, with --coordinator.", 0
)


def main(argv: list[str]) -> None:
    """Resolves the config and runs it; `run_endings` lists the exit codes."""
    # imported late, since JAX takes seconds to load, and --help does without it
    from mmcl_jax.parallel import compilation_cache, distributed, host_memory
    from mmcl_jax.report.live import Reporter
    from mmcl_jax.training import experiment, run_summary
    from mmcl_jax.training.preemption import Interrupt
    from mmcl_jax.workdir import snapshots
    from mmcl_jax.workdir.logs import is_writer

    host_memory.bound()
    interrupt = Interrupt()
    interrupt.catch()
    interrupt.follow_parent()
    snapshots.silence_failures()
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)
    with run_endings.explained():
        command_line.refuse_arguments(argv)
        if not _WORKDIR.value:
            raise ConfigError(
                "--workdir: missing; give a folder, for instance --workdir=runs/demo"
            )
        _check_processes()
        config = _config(_CONFIG.value, _WORKDIR.value)
        compilation_cache.keep_compiled_programs()
        distributed.start(_COORDINATOR.value, _PROCESSES.value, _PROCESS.value)
        ended = experiment.run(
            config, _WORKDIR.value, _STOP_AFTER.value, interrupt, Reporter
        )
        if ended and is_writer():
            print(run_summary.next_steps(_WORKDIR.value))


def _check_processes() -> None:
    processes, process = _PROCESSES.value, _PROCESS.value
    if _COORDINATOR.value in (None, "auto"):
        if processes is not None or process is not None:
            raise ConfigError(
                "--processes, --process: only with --coordinator=host:port"
            )
    elif processes is None or process is None or process >= processes:
        raise ConfigError(
            f"--coordinator={_COORDINATOR.value}: needs --processes and a lower "
            f"--process; they are {processes} and {process}"
        )


def _config(given: ml_collections.ConfigDict | None, workdir: str) -> "Config":
    from mmcl_jax import config as configs
    from mmcl_jax.training import remote_names

    if given:
        return configs.resolve(given)
    path = pathlib.Path(workdir) / CONFIG
    if not os.path.isfile(path):  # also false for a file that may not be accessed
        raise ConfigError(
            f"--config: missing, and there is no {path} to resume from; give a file, "
            "for instance --config=configs/demo.py"
        )
    stored = configs.load(path)
    if not _ALLOW_DOWNLOAD.value:
        remote_names.check(stored, path)
    return stored


def cli() -> None:
    """Runs the program."""
    command_line.run(main, with_config=True)


if __name__ == "__main__":
    cli()
