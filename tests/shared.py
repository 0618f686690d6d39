"""What a session makes once and the tests of all its workers read."""

import fcntl
import json
import os
import pathlib
from collections.abc import Callable

import pytest

from tests import helpers


def folder(
    factory: pytest.TempPathFactory,
    name: str,
    make: Callable[[pathlib.Path], object],
) -> pathlib.Path:
    """Returns a folder that the first worker to ask for it has filled.

    Args:
        factory: of a worker's temporary folders.
        name: of the folder.
        make: fills the folder, which is there and empty. Where it fails, the next
            worker tries it.
    """
    base = factory.getbasetemp()
    # a worker's folder is in that of the session
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    path, made = base / f"shared-{name}", base / f"shared-{name}.made"
    with (base / f"shared-{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            path.mkdir(exist_ok=True)
            make(path)
            made.touch()
    return path


def run(factory: pytest.TempPathFactory, name: str, *flags: str) -> helpers.Finished:
    """Returns what a run with some flags has left, which one worker runs."""

    def make(path: pathlib.Path) -> None:
        done = helpers.run(*flags, workdir=path / "run")
        said = [done.code, done.output, done.errors]
        (path / "said.json").write_text(json.dumps(said))

    path = folder(factory, name, make)
    said = json.loads((path / "said.json").read_text())
    return helpers.Finished(*said, path / "run", flags)
