"""Streams from a manifest: a CSV table that lists files anywhere below its folder.

    path,label,modality,split,dataset
    clips/0017.wav,dog,audio,train,esc50

`split` is `train` or `test`; a data set without `test` rows gets a test part split off.
`dataset` may be left out; it is then the name of the table.
"""

import csv
import dataclasses
import io
import os
import pathlib
import unicodedata
from collections.abc import Iterable
from typing import Any, NamedTuple

from mmcl_jax.errors import DataError, Faults
from mmcl_jax.files import Path, write_text
from mmcl_jax.modalities import MODALITIES
from mmcl_jax.modalities.base import FileReference, Reference
from mmcl_jax.streams import data_sets
from mmcl_jax.streams.base import Required, Stream, StreamSource
from mmcl_jax.streams.data_options import Selection
from mmcl_jax.streams.data_sets import PARTS, DataSet
from mmcl_jax.streams.table_files import read_rows

COLUMNS = ("path", "label", "modality")
EXPECTED = (
    "a UTF-8 CSV table with the columns `path`, `label` and `modality`, and perhaps "
    "`split` and `dataset`"
)
# Rows that a message names, if several are wrong in the same way.
_NAMED = 10
_MAX_NAME = 255


@dataclasses.dataclass(frozen=True)
class Manifest(Selection):
    """A stream of the files that a CSV table lists, see `streams.manifest`.

    Attributes:
        kind: Name of this kind of stream.
        path: Path of the table, with the columns path, label, modality, split and
            dataset.
    """

    kind: str = "manifest"
    path: Path = ""


class Row(NamedTuple):
    """One file of a manifest.

    Attributes:
        path: Path relative to the folder of the manifest, with `/` between names.
        label: Name of its class.
        modality: Name of its modality.
        split: "train" or "test".
        dataset: Name of its data set.
    """

    path: str
    label: str
    modality: str
    split: str
    dataset: str


def write(path: pathlib.Path, rows: Iterable[Row]) -> None:
    """Writes a manifest atomically.

    Raises:
        DataError: The file exists and is not this manifest.
    """
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(Row._fields)
    table.writerows(rows)
    content = text.getvalue()
    if path.exists():
        if _same(path, content):
            return
        raise DataError(f"{path} exists with other rows; move or remove it")
    write_text(path, content)


def _same(path: pathlib.Path, content: str) -> bool:
    """Returns whether a file has this content; a file of another size is not read."""
    wanted = content.encode()
    return path.stat().st_size == len(wanted) and path.read_bytes() == wanted


def build(*, path: str, faults: Faults, **selection: Any) -> Stream:
    """Reads a stream from a manifest; no sample is decoded.

    Args:
        path: Path of the table.
        faults: Receives what is wrong with the table.
        **selection: Arguments of `data_sets.build`.

    Returns:
        The stream. Descriptions of its samples are relative to the table's folder: a
        manifest of a tree that `folders` reads gives the same stream if its rows are
        sorted by path.

    Raises:
        DataError: A row is invalid, or its file is missing or outside of the table's
            folder; the message names the line.
        ValueError: An argument is out of range.
    """
    return data_sets.build(_read(pathlib.Path(path)), **selection, faults=faults)


def _read(path: pathlib.Path) -> list[DataSet]:
    found: dict[tuple[str, str], dict[str, dict[str, list[Reference]]]] = {}
    root, wrong = _Root(path.parent), []
    lines: dict[tuple[str, str, str], int] = {}
    for line, values in read_rows(path, COLUMNS, EXPECTED):
        where = f"{path}:{line}"
        row = _row(where, values, path.stem)
        # What is checked must be what is opened: with a link in the path, dropping `..`
        # can lead to another file.
        file = os.path.normpath(row.path)
        if reason := root.complaint(file):
            wrong.append(f"{where}: {reason}")
            if len(wrong) == _NAMED:
                break
            continue
        first = lines.setdefault((row.modality, row.dataset, file), line)
        if first != line:
            raise DataError(f"{where}: {row.path} is that of line {first}; remove one")
        parts = found.setdefault((row.modality, row.dataset), {})
        classes = parts.setdefault(row.split, {})
        reference = FileReference(str(path.parent / file), file)
        classes.setdefault(row.label, []).append(reference)
    if wrong:
        more = " or more" if len(wrong) == _NAMED else ""
        raise DataError("\n  ".join([f"{len(wrong)}{more} files are wrong:", *wrong]))
    if not found:
        raise DataError(f"{path}: no row below its first line; expected {EXPECTED}")
    return [
        DataSet(
            f"{path}: {modality}/{name}",
            f"{modality}/{name}",
            MODALITIES[modality],
            parts,
        )
        for (modality, name), parts in sorted(found.items())
    ]


def _row(where: str, values: dict[str, str], name: str) -> Row:
    """Returns a row, with everything but its path checked."""
    split, dataset = values.get("split") or "train", values.get("dataset") or name
    row = Row(values["path"], values["label"], values["modality"], split, dataset)
    if row.modality not in MODALITIES:
        raise DataError(
            f"{where}: modality {row.modality!r}; expected one of "
            f"{', '.join(MODALITIES)}"
        )
    if split not in PARTS:
        raise DataError(f"{where}: split {split!r}; expected train or test")
    if "/" in dataset or not dataset.isprintable() or len(dataset) > _MAX_NAME:
        raise DataError(
            f"{where}: data set {dataset[:40]!r}; expected at most {_MAX_NAME} "
            "printable characters without a slash"
        )
    suffixes = MODALITIES[row.modality].suffixes
    if pathlib.PurePath(row.path).suffix.lower() not in suffixes:
        raise DataError(
            f"{where}: {row.path}: modality {row.modality!r} takes "
            f"{', '.join(suffixes)}; convert or remove it"
        )
    return row


class _Root:
    """The folder of a manifest; no path may lead out of it, links included."""

    def __init__(self, folder: pathlib.Path) -> None:
        self._real = os.path.realpath(folder)
        # Resolved folders: a folder has many files, and resolving one takes many calls.
        self._folders: dict[str, str] = {}

    def complaint(self, path: str) -> str | None:
        """Returns the fault of a normalized path, or None."""
        if any(unicodedata.category(character) == "Cc" for character in path):
            return f"{path!r} has a control character; rename the file"
        if os.path.isabs(path):
            return f"{path}: expected a path relative to the folder of the table"
        parent, name = os.path.split(os.path.join(self._real, path))
        if parent not in self._folders:
            self._folders[parent] = os.path.realpath(parent)
        file = os.path.join(self._folders[parent], name)
        if os.path.islink(file):
            file = os.path.realpath(file)
        if os.path.commonpath([self._real, file]) != self._real:
            return f"{path}: leads out of {self._real}; copy the file there"
        if not os.path.isfile(file):
            return f"{path}: no such file"
        return None


SOURCE = StreamSource(
    Manifest, build, Required("path", "the table of your files", "/data/manifest.csv")
)
