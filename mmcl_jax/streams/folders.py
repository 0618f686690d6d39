"""Streams from folders of ordinary files, and from tables of sentences.

<root>/<modality>/<dataset>/{train,test}/<class>/<file>
<root>/<modality>/<dataset>/{train,test}.csv     sentences: columns text and label
"""

import dataclasses
import functools
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from absl import logging

from mmcl_jax.errors import DataError
from mmcl_jax.modalities import MODALITIES
from mmcl_jax.modalities.base import FileReference, Modality, Reference
from mmcl_jax.streams import data_sets
from mmcl_jax.streams.base import Required, Stream, StreamSource
from mmcl_jax.streams.data_options import Selection
from mmcl_jax.streams.data_sets import PARTS, DataSet, Source
from mmcl_jax.streams.table_files import read_table

_LAYOUT = "<root>/<modality>/<dataset>/{train,test}/<class>/<file>"
_JUNK = ("thumbs.db", "desktop.ini", "__macosx")


@dataclasses.dataclass(frozen=True)
class Folders(Selection):
    """A stream of ordinary files, `<root>/<modality>/<dataset>/{train,test}/<class>/`.

    Attributes:
        kind: Name of this kind of stream.
        root: Folder of the data; a relative path counts from the working directory.
    """

    kind: str = "folders"
    root: str = ""


def build(*, root: str, **selection: Any) -> Stream:
    """Reads a stream from a tree of folders; no sample is decoded.

    Args:
        root: Folder in the layout that the module describes. Folders that are not named
            after a modality, and files beside data sets, are ignored.
        **selection: Arguments of `data_sets.build`.

    Returns:
        The stream. Descriptions of its samples are relative to `root`.

    Raises:
        DataError: The tree violates the layout; the message names the path.
        ValueError: An argument is out of range.
    """
    return data_sets.build(_scan(pathlib.Path(root)), **selection)


def _scan(root: pathlib.Path) -> list[DataSet]:
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; expected {_LAYOUT}")
    found = []
    for folder in _folders(root, root):
        if modality := MODALITIES.get(folder.name):
            found += [_open(root, path, modality) for path in _folders(folder, root)]
        else:
            logging.info("%s: ignored, not one of %s", folder, tuple(MODALITIES))
    if not found:
        raise DataError(
            f"{root}: no data set in it; expected {_LAYOUT}, modality one of "
            f"{tuple(MODALITIES)}"
        )
    return found


def _open(root: pathlib.Path, path: pathlib.Path, modality: Modality) -> DataSet:
    inside = {entry.name for entry in _entries(path, root)}
    parts: dict[str, Mapping[str, Source]] = {}
    for part in PARTS:
        if modality.tower == "text" and f"{part}.csv" in inside:
            parts[part] = read_table(path / f"{part}.csv", root)
        elif part in inside:
            parts[part] = {
                folder.name: functools.partial(_files, folder, root, modality)
                for folder in _folders(path / part, root)
            }
    if not parts.get("train"):
        raise DataError(f"{path}: no class in a folder 'train'; expected {_LAYOUT}")
    return DataSet(str(path), path.relative_to(root).as_posix(), modality, parts)


def _entries(folder: pathlib.Path, root: pathlib.Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda entry: entry.name)
    except NotADirectoryError:
        return []
    except OSError as error:
        raise DataError(f"{folder}: cannot be listed ({error.strerror})") from error
    kept = []
    for entry in entries:
        if entry.name.startswith(".") or entry.name.lower() in _JUNK:
            continue
        if entry.name.encode(errors="ignore").decode() != entry.name:
            raise DataError(
                f"{folder}: the name {entry.name!r} in it is not UTF-8; rename it"
            )
        # Data from elsewhere must not make a run read files outside of its root.
        if entry.is_symlink():
            target = pathlib.Path(os.path.realpath(entry.path))
            if not target.is_relative_to(os.path.realpath(root)):
                raise DataError(
                    f"{entry.path}: a link that leads out of {root}, to {target}; "
                    "replace it by a copy of its target"
                )
            if not os.path.exists(target):
                raise DataError(f"{entry.path}: a broken link; remove it")
        kept.append(entry)
    return kept


def _folders(folder: pathlib.Path, root: pathlib.Path) -> list[pathlib.Path]:
    return [folder / entry.name for entry in _entries(folder, root) if entry.is_dir()]


def _files(
    folder: pathlib.Path, root: pathlib.Path, modality: Modality
) -> list[Reference]:
    references: list[Reference] = []
    for entry in _entries(folder, root):
        path = folder / entry.name
        if not entry.is_file():
            raise DataError(f"{path}: not a file; expected {_LAYOUT}")
        if path.suffix.lower() not in modality.suffixes:
            raise DataError(
                f"{path}: suffix {path.suffix!r}; modality {modality.name!r} takes "
                f"{', '.join(modality.suffixes)}; convert or remove it"
            )
        references.append(FileReference(str(path), path.relative_to(root).as_posix()))
    if not references:
        raise DataError(f"{folder}: no file in it; add some or remove the folder")
    return references


SOURCE = StreamSource(
    Folders, build, Required("root", "the folder of your data", "/data/streams")
)
