"""Layouts of data sets of pictures."""

import json
import pathlib
from typing import Any

from mmcl_jax.errors import DataError, Faults, check_bytes, reading
from mmcl_jax.streams.layouts import lists
from mmcl_jax.streams.manifest import Row

_COOP = "a split of CoOp, with lists of [path, label, class] for train, val and test"
_MAX_BYTES = 64 * 2**20


def coop(root: pathlib.Path) -> list[Row]:
    """Returns the pictures of a data set with a `split_zhou_*.json` of CoOp.

    The names of classes are those of the split, which CoOp has made readable; its
    validation part is left out.

    Args:
        root: Folder of the split; pictures are looked for in it and in the folders in
            it, since each data set has another one that paths are relative to.

    Raises:
        DataError: There is not one such file, it is damaged, or lists files that are
            not there.

    References:
        K. Zhou, J. Yang, C. C. Loy, Z. Liu, "Learning to Prompt for Vision-Language
        Models", IJCV 2022.
    """
    found = sorted(root.glob("split_zhou_*.json"))
    if len(found) != 1:
        raise DataError(f"{root}: {len(found)} files split_zhou_*.json; expected one")
    (path,) = found
    faults = Faults()
    dataset = path.stem.removeprefix("split_zhou_")
    rows = [
        Row(file, label, "image", split, dataset)
        for split, entries in _read(path).items()
        for number, entry in enumerate(entries)
        for file, label in _entry(f"{path}: {split}[{number}]", entry, faults)
    ]
    faults.check()
    base = _base(root, rows)
    place = base.relative_to(root).as_posix()
    if place != ".":
        rows = [row._replace(path=f"{place}/{row.path}") for row in rows]
    rows = lists.present(root, rows, faults)
    faults.check()
    return rows


def _read(path: pathlib.Path) -> dict[str, list[Any]]:
    with reading(str(path), _COOP):
        check_bytes(path, _MAX_BYTES)
        value = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(value, dict):
            raise DataError(f"{path}: a {type(value).__name__}; expected {_COOP}")
        parts = {name: value.get(name) for name in ("train", "test")}
        for name, entries in parts.items():
            if not isinstance(entries, list) or not entries:
                raise DataError(f"{path}: no list {name!r}; expected {_COOP}")
        return {name: list(entries or ()) for name, entries in parts.items()}


def _entry(where: str, entry: Any, faults: Faults) -> list[tuple[str, str]]:
    """Returns path and class of an entry, or nothing and a fault."""
    types = [type(value) for value in entry] if isinstance(entry, list) else []
    if types != [str, int, str] or not entry[2].strip():
        shown = str(entry)[:80]
        faults.errors.append(f"{where}: {shown}; expected [path, label, class]")
        return []
    file = lists.relative(where, entry[0], faults)
    return [(file, entry[2])] if file else []


def _base(root: pathlib.Path, rows: list[Row]) -> pathlib.Path:
    """Returns the folder in which most of the files are."""
    folders = [root, *sorted(path for path in root.iterdir() if path.is_dir())]
    return max(folders, key=lambda f: sum((f / row.path).is_file() for row in rows))
