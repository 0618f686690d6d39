"""The files of each split of a data set of the library `datasets`, or of its Hub.

<folder>/dataset_dict.json, <folder>/<split>/{state.json,data-*.arrow}   save_to_disk
<folder>/{state.json,data-00000-of-00001.arrow}                  the same, of one split
<folder>/[data/]<split>-00000-of-00001.parquet, <split>.parquet, <split>/*.parquet
"""

import fnmatch
import os
import pathlib
import re
from collections.abc import Iterable, Mapping
from typing import Any

from mmcl_jax.errors import DataError
from mmcl_jax.files import read_json
from mmcl_jax.streams import features

EXPECTED = (
    "a folder of Parquet files, such as data/train-00000-of-00001.parquet, or one that "
    "`save_to_disk` of the library datasets has written"
)
_CONVERTED = "; the Hub may have it as org/name@refs/convert/parquet"
# What is downloaded of a repository.
PATTERNS = ("README.md", "*.json", "*.parquet", "*.arrow")
_DICT, _STATE = "dataset_dict.json", "state.json"
_SHARD = re.compile(r"(.*?)-?(\d{5})-of-(\d{5})(?:-[0-9a-f]+)?")
_NUMBER = re.compile(r"(?:part[-_]?|data[-_]?)?\d*")
_FOLDERS = {"train", "training", "test", "testing", "validation", "valid", "val", "dev"}
_LISTED = 10

Splits = dict[str, list[pathlib.Path]]


def find(folder: pathlib.Path) -> Splits:
    """Returns the files of each split, in the order in which their rows count.

    Raises:
        DataError: There are none, files of a split are missing, or there are several
            configs; the message names them.
    """
    if (folder / _DICT).is_file():
        names = read_json(folder / _DICT).get("splits")
        if not isinstance(names, list) or not all(map(_is_plain, names)):
            raise DataError(f"{folder / _DICT}: no list of splits; save it again")
        return {name: _saved(folder / name)[1] for name in names}
    if (folder / _STATE).is_file():
        name, files = _saved(folder)
        return {name: files}
    files = _below(folder)
    if not files:
        raise DataError(
            f"{folder}: no Parquet file in it; expected {EXPECTED}{_CONVERTED}"
        )
    configs = features.header(folder).get("configs")
    if isinstance(configs, list) and configs:
        found = _of_config(folder, files, configs)
    else:
        found = _of_names(folder, files)
    _check_shards(folder, found)
    return {name: [folder / file for file in found[name]] for name in found}


def _is_plain(name: Any) -> bool:
    return isinstance(name, str) and pathlib.PurePath(name).name == name != ".."


def _saved(folder: pathlib.Path) -> tuple[str, list[pathlib.Path]]:
    """Returns name and files of a split that `save_to_disk` has written."""
    state = read_json(folder / _STATE, "the state of a saved data set")
    listed = state.get("_data_files")
    files = [e.get("filename") for e in listed or () if isinstance(e, dict)]
    names = [str(name) for name in files if _is_plain(name)]
    if not names or len(names) < len(files):
        raise DataError(f"{folder / _STATE}: no list of files; save the data set again")
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise DataError(f"{folder}: {_missing(missing)}")
    if state.get("_indices_data_files") or state.get("_indices_files"):
        raise DataError(
            f"{folder / _STATE}: the rows are a selection of those that are stored, by "
            "an old version of the library datasets; call `flatten_indices` and save "
            "the data set again"
        )
    split = state.get("_split") or "train"
    return str(split), [folder / name for name in names]


def _missing(names: Iterable[str]) -> str:
    names = list(names)
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    shown = ", ".join(names[:_LISTED])
    return f"missing are {shown}{more}; copy or download the data set again"


def _below(folder: pathlib.Path) -> list[str]:
    """Returns the Parquet files below a folder, relative to it, without hidden ones."""
    found = []
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in files:
            if name.lower().endswith(".parquet") and not name.startswith("."):
                path = pathlib.Path(parent, name).relative_to(folder)
                found.append(path.as_posix())
    return sorted(found)


def _of_config(
    folder: pathlib.Path, files: list[str], configs: list[Any]
) -> dict[str, list[str]]:
    """Returns the files that the only or default config of a README lists."""
    where = folder / features.README
    known = [config for config in configs if isinstance(config, dict)]
    chosen = [
        config
        for config in known
        if config.get("default") is True or config.get("config_name") == "default"
    ]
    if len(known) == 1:
        chosen = known
    if len(chosen) != 1:
        names = ", ".join(str(config.get("config_name")) for config in known)
        raise DataError(
            f"{where}: several configs, {names}; give the folder of the files of one"
        )
    patterns = _patterns(chosen[0].get("data_files"))
    if not patterns:
        return _of_names(folder, files)
    found: dict[str, list[str]] = {}
    for split, pattern in patterns:
        matched = fnmatch.filter(files, pattern.removeprefix("./"))
        if not matched:
            raise DataError(
                f"{where}: no Parquet file matches {pattern!r} of split {split!r}; "
                "copy or download the data set again, or write it as Parquet"
            )
        found.setdefault(split, []).extend(matched)
    return found


def _patterns(listed: Any) -> list[tuple[str, str]]:
    """Returns split and pattern of each entry of `data_files`."""
    entries = listed if isinstance(listed, list) else [listed]
    pairs = []
    for entry in entries:
        split, paths = "train", entry
        if isinstance(entry, Mapping):
            split, paths = str(entry.get("split", "train")), entry.get("path")
        paths = paths if isinstance(paths, list) else [paths]
        pairs += [(split, path) for path in paths if isinstance(path, str)]
    return pairs


def _of_names(folder: pathlib.Path, files: list[str]) -> dict[str, list[str]]:
    """Returns the files of each split by their names."""
    found: dict[str, dict[str, list[str]]] = {}
    for file in files:
        path = pathlib.PurePosixPath(file)
        shard = _SHARD.fullmatch(path.stem)
        split, config = shard[1] if shard else path.stem, path.parent
        if _NUMBER.fullmatch(split) or config.name in _FOLDERS:
            split, config = config.name, config.parent
        config = config.parent if config.name == "data" else config
        found.setdefault(config.as_posix(), {}).setdefault(split, []).append(file)
    if len(found) > 1:
        names = ", ".join(sorted(found))
        raise DataError(
            f"{folder}: Parquet files of several data sets, in {names}; give the "
            "folder of one"
        )
    (splits,) = found.values()
    return {split or "train": splits[split] for split in splits}


def _check_shards(folder: pathlib.Path, splits: Mapping[str, list[str]]) -> None:
    there = {file for files in splits.values() for file in files}
    missing = set()
    for file in there:
        if found := re.search(r"-(\d{5})-of-(\d{5})", file):
            for number in range(int(found[2])):
                other = f"-{number:05}-of-{found[2]}"
                # A hash may follow, which differs between the files.
                head = file[: found.start()] + other
                if not any(each.startswith(head) for each in there):
                    missing.add(f"{head}.parquet")
    if missing:
        raise DataError(f"{folder}: {_missing(sorted(missing))}")
