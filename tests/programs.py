"""Many commands of one program: it is imported once, and each is a child of its own."""

import json
import pathlib
import subprocess
import sys
from collections.abc import Sequence

from tests import helpers

# a program ends its process, and flags can be parsed but once in it
_FORK = """
import importlib, json, os, sys, tempfile, traceback
start = getattr(importlib.import_module(sys.argv[1]), sys.argv[2])
said = []
for flags in json.load(sys.stdin):
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
    done = subprocess.run(
        # JAX warns of forks; none of its threads is started before them
        [sys.executable, "-W", "ignore", "-c", _FORK, program, start],
        input=json.dumps([list(map(str, flags)) for flags in commands]),
        cwd=folder,
        env=helpers.environment() | {"PYTHONPATH": str(helpers.REPOSITORY)},
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    return [
        helpers.Finished(*said, folder, tuple(map(str, flags)))
        for said, flags in zip(json.loads(done.stdout), commands, strict=True)
    ]
