"""Many commands of one program, each in a child of its own."""

import json
import pathlib
from collections.abc import Sequence

from tests import fork_server, helpers

# a program ends its process, and flags can be parsed but once in it
_FORK = """
import importlib, json, os, sys, tempfile, traceback
start = getattr(importlib.import_module(sys.argv[1]), sys.argv[2])
said = []
for flags in json.loads(sys.argv[3]):
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        if not (child := os.fork()):
            os.dup2(output.fileno(), 1)
            os.dup2(errors.fileno(), 2)
            sys.argv, code = [sys.argv[1], *flags], 1
            try:
                start()
                code = 0
            except SystemExit as end:
                code = end.code or 0
                if isinstance(code, str):
                    print(code, file=sys.stderr)
                    code = 1
            except BaseException:
                traceback.print_exc()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
        _, status = os.waitpid(child, 0)
        texts = []
        for file in (output, errors):
            file.seek(0)
            texts.append(file.read().decode())
        said.append([os.waitstatus_to_exitcode(status), *texts])
json.dump(said, sys.stdout)
"""


def run_each(
    program: str,
    commands: Sequence[Sequence[str]],
    folder: pathlib.Path,
    start: str = "cli",
) -> list[helpers.Finished]:
    """Runs a program with each of some lists of flags.

    Args:
        program: its module.
        commands: flags of each.
        folder: that they are run in.
        start: the function that starts it.
    """
    lists = json.dumps([list(map(str, flags)) for flags in commands])
    # one fork of the server for all: a child that ends at once costs less than a fork
    # that takes its interpreter down
    words = ["-c", _FORK, program, start, lists]
    done = fork_server.run(words, folder, helpers.environment())
    done.check_returncode()
    return [
        helpers.Finished(*said, folder, tuple(map(str, flags)))
        for said, flags in zip(json.loads(done.stdout), commands, strict=True)
    ]
