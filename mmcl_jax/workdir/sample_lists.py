"""Which samples each task has, as a run keeps it: so the data are listed only once.

A task that has been learnt needs its training samples no more, and nothing looks for
them; its test samples are scored as long as they are there, as those of control sets.
"""

import functools
import gzip
import json
import os
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

from mmcl_jax.errors import reading
from mmcl_jax.files import keep
from mmcl_jax.streams.base import Record, Task
from mmcl_jax.streams.stored_references import from_json, to_json
from mmcl_jax.workdir import identity
from mmcl_jax.workdir.layout import SAMPLES

_EXPECTED = "the list of a task's samples, as a run has written it"
_MAX_BYTES = 2**30  # a small file can be a very long list
_CONTROLS = "reserved"
Samples = tuple[tuple[Record, ...], tuple[Record, ...]]


def write(workdir: pathlib.Path, tasks: Iterable[tuple[int, Task]], root: str) -> None:
    """Writes the training and test samples of some tasks.

    Args:
        workdir: Workdir of the run.
        tasks: Tasks with their indices in the stream.
        root: Folder of the data, which may be elsewhere when the run resumes; empty:
            they have none.
    """
    for index, task in tasks:
        _write(_path(workdir, _name(index)), task.train, task.test, root)


def write_controls(workdir: pathlib.Path, sets: Sequence[Task], root: str) -> None:
    """Writes the samples of all control sets, if there are any, as `write` does."""
    if sets:
        every = [record for task in sets for record in task.test]
        _write(_path(workdir, _CONTROLS), (), every, root)


def _write(
    path: pathlib.Path, train: Sequence[Record], test: Sequence[Record], root: str
) -> None:
    content = {
        "root": os.path.abspath(root) if root else "",
        "train": to_json(train),
        "test": to_json(test),
    }
    path.parent.mkdir(exist_ok=True)
    temporary = path.with_name(f"{path.name}.tmp")
    with temporary.open("wb") as file:
        text = json.dumps(identity.sealed(content)).encode()
        file.write(gzip.compress(text, mtime=0))
        keep(file)
    temporary.replace(path)


def read(workdir: pathlib.Path, index: int, root: str | None = None) -> Samples | None:
    """Returns the training and the test samples of a task; None: there is no list.

    Args:
        workdir: Workdir of the run.
        index: Index of the task.
        root: Folder in which the data are now; None: where they were.

    Raises:
        DataError: The list is damaged.
    """
    return _read(_path(workdir, _name(index)), root)


def read_controls(
    workdir: pathlib.Path, root: str | None = None
) -> tuple[Record, ...] | None:
    """Returns the samples of all control sets; arguments and errors as of `read`."""
    found = _read(_path(workdir, _CONTROLS), root)
    return None if found is None else found[1]


def _read(path: pathlib.Path, root: str | None) -> Samples | None:
    if not path.is_file():
        return None
    with reading(str(path), _EXPECTED):
        with gzip.open(path) as file:
            text = file.read(_MAX_BYTES + 1)
        if len(text) > _MAX_BYTES:
            raise ValueError(f"more than {_MAX_BYTES} bytes")
        content: dict[str, Any] = json.loads(text)
        stored = identity.unsealed(path, content)
        relocate = functools.partial(_moved, stored["root"], root)
        train, test = (from_json(stored[part], relocate) for part in ("train", "test"))
    return train, test


def _moved(old: str, new: str | None, path: str) -> str:
    if not old or not new or not path.startswith(old.rstrip(os.sep) + os.sep):
        return path
    return os.path.join(os.path.abspath(new), os.path.relpath(path, old))


def _name(index: int) -> str:
    return f"{index:03d}"


def _path(workdir: pathlib.Path, name: str) -> pathlib.Path:
    return workdir / SAMPLES / f"{name}.json.gz"
