"""`python -m mmcl_jax.main --config=FILE.py[:variant,key=value] --workdir=DIR`.

Instead of a file, `--config` may name one that comes with the package: `demo`.
"""

import errno
import os
import pathlib
import re
import sys

import ml_collections
from absl import app, flags, logging
from ml_collections import config_flags

from mmcl_jax import config as configs
from mmcl_jax import distributed, experiment, heap, learner
from mmcl_jax.experiment import DivergedError
from mmcl_jax.invariance import BatchDependenceError
from mmcl_jax.modalities.base import DataError
from mmcl_jax.preemption import RUN_AGAIN, Interrupt, Preempted
from mmcl_jax.snapshots import SaveError
from mmcl_jax.workdir import WorkdirError

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "The experiment; without it the workdir's own is gone on with."
)
_WORKDIR = flags.DEFINE_string("workdir", None, "Where everything is written.")
_STOP_AFTER = flags.DEFINE_integer(
    "stop_after", None, "Stop after this many stages; run again to go on.", 1
)
_COORDINATOR = flags.DEFINE_string(
    "coordinator", None, "host:port of process 0, or 'auto' on a known cluster."
)
_PROCESSES = flags.DEFINE_integer("processes", None, "Processes of the run.", 1)
_PROCESS = flags.DEFINE_integer("process", None, "Index of this process.", 0)

# in a clone, a link to the folder of the repository
CONFIGS = pathlib.Path(__file__).parent / "configs"
USAGE_ERROR = 2
# of a disk that is full, a quota, a limit of a file's size
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def main(argv: list[str]) -> None:
    """Resolves the config and runs it.

    Bad input ends with exit code 2; a method that breaks the rules or diverges, a disk
    that is full, with 1; a run that was asked to leave and should be started again,
    with `RUN_AGAIN`.
    """
    heap.bound()
    interrupt = Interrupt()
    interrupt.catch()
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)
    try:
        if len(argv) > 1:
            raise configs.ConfigError(f"unexpected argument {argv[1]!r}")
        if not _WORKDIR.value:
            raise configs.ConfigError(
                "--workdir: missing; give a folder, for instance --workdir=runs/demo"
            )
        _check_processes()
        config = _config(_CONFIG.value, _WORKDIR.value)
        learner.keep_compiled_programs()
        distributed.start(_COORDINATOR.value, _PROCESSES.value, _PROCESS.value)
        experiment.run(config, _WORKDIR.value, _STOP_AFTER.value, interrupt)
    except (configs.ConfigError, WorkdirError, DataError) as error:
        sys.exit(_complain(error))
    except (BatchDependenceError, DivergedError) as error:
        sys.exit(f"error: {error}")
    except Preempted:
        print("asked to leave: saved; the same command goes on", file=sys.stderr)
        sys.exit(RUN_AGAIN)
    except (SaveError, OSError) as error:
        if not isinstance(error, SaveError) and error.errno not in NO_ROOM:
            sys.exit(f"error: {error}")
        sys.exit(
            f"error: {error}. What was saved before is as it was; once this is mended, "
            "the same command goes on"
        )


def _check_processes() -> None:
    processes, process = _PROCESSES.value, _PROCESS.value
    if _COORDINATOR.value in (None, "auto"):
        if processes is not None or process is not None:
            raise configs.ConfigError(
                "--processes, --process: only with --coordinator=host:port"
            )
    elif processes is None or process is None or process >= processes:
        raise configs.ConfigError(
            f"--coordinator={_COORDINATOR.value}: needs --processes and a lower "
            f"--process; they are {processes} and {process}"
        )


def _config(given: ml_collections.ConfigDict | None, workdir: str) -> configs.Config:
    if given:
        return configs.resolve(given)
    path = pathlib.Path(workdir) / "config.json"
    if not os.path.isfile(path):  # one that cannot be looked at is none, either
        raise configs.ConfigError(
            f"--config: missing, and {path} is not there to go on with; give a file, "
            "for instance --config=configs/demo.py"
        )
    return configs.load(path)


def _parse(argv: list[str]) -> list[str]:
    """Parses flags; whatever is wrong with them or the config file is one message."""
    argv = list(argv)
    for i, flag in enumerate(argv):
        name, equals, value = flag.partition("=")
        if name not in ("--config", "-config") or i + 1 == len(argv) and not equals:
            continue
        at, start = (i, f"{name}=") if equals else (i + 1, "")
        value = value if equals else argv[at]
        path, colon, argument = value.partition(":")
        if path in _shipped():
            path = str(CONFIGS / f"{path}.py")
            argv[at] = f"{start}{path}{colon}{argument}"
        if not pathlib.Path(path).is_file():
            names = ", ".join(_shipped())
            message = f"--config: no file {path!r}, and none of {names}"
            sys.exit(_complain(configs.ConfigError(message)))
    try:
        return flags.FLAGS(argv)
    except (KeyError, AttributeError) as error:
        sys.exit(_complain(configs.ConfigError(_unknown_field(error, argv))))
    except (flags.Error, ValueError, TypeError, OSError) as error:
        # what a config file raises arrives as a traceback inside a message
        _, ours, message = str(error).rpartition(f"{configs.ConfigError.__name__}: ")
        sys.exit(_complain(configs.ConfigError(message.strip()) if ours else error))


def _shipped() -> list[str]:
    """Returns the names of the configs that come with the package."""
    return sorted(path.stem for path in CONFIGS.glob("*.py"))


def _unknown_field(error: Exception, argv: list[str]) -> str:
    """Puts the flag into the message of ConfigDict, which names the field alone."""
    text = str(error.args[0]) if error.args else ""
    name, *nearest = re.findall(r"[\w-]+", re.sub(r"\\n|Did you mean", " ", text))
    flag = next(
        (arg for arg in argv if name in arg.partition("=")[0].split(".")), "--config"
    ).partition("=")[0]
    hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
    return f"{flag}: {name!r} is not a field of the config{hint}"


def _complain(error: Exception) -> int:
    message = error.args[0] if error.args else error
    print(f"error: {message}", file=sys.stderr)
    return USAGE_ERROR


def cli() -> None:
    """Runs the program."""
    app.run(main, flags_parser=_parse)


if __name__ == "__main__":
    cli()
