"""Which samples each task has, as a run keeps it: so the data are listed only once.

A task that has been learnt needs its training samples no more, and nothing looks for
them; its test samples are scored as long as they are there.
"""

import functools
import gzip
import json
import os
import pathlib
from collections.abc import Iterable
from typing import Any

from mmcl_jax.errors import reading
from mmcl_jax.files import keep
from mmcl_jax.streams.base import Record, Task
from mmcl_jax.streams.stored_references import from_json, to_json
from mmcl_jax.workdir import identity
from mmcl_jax.workdir.layout import SAMPLES

_EXPECTED = "the list of a task's samples, as a run has written it"
_MAX_BYTES = 2**30  # a small file can be a very long list
Samples = tuple[tuple[Record, ...], tuple[Record, ...]]


def write(workdir: pathlib.Path, tasks: Iterable[tuple[int, Task]], root: str) -> None:
    """Writes the training and test samples of some tasks.

    Args:
        workdir: Workdir of the run.
        tasks: Tasks with their indices in the stream.
        root: Folder of the data, which may be elsewhere when the run resumes; empty:
            they have none.
    """
    folder = workdir / SAMPLES
    folder.mkdir(exist_ok=True)
    for index, task in tasks:
        content = {
            "root": os.path.abspath(root) if root else "",
            "train": to_json(task.train),
            "test": to_json(task.test),
        }
        path = _path(workdir, index)
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
    path = _path(workdir, index)
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


def _path(workdir: pathlib.Path, index: int) -> pathlib.Path:
    return workdir / SAMPLES / f"{index:03d}.json.gz"
