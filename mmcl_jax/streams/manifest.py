"""Streams from a manifest: a table that lists files anywhere below its folder.

    path,label,modality,split,dataset,task,scale,invalid
    clips/0017.wav,dog,audio,train,esc50,dogs,,

`split` is `train` or `test`; a data set without `test` rows gets a test part split off.
`dataset` may be left out; it is then the name of the table. `task` may give the tasks,
in the order of their first rows, see `task_column`. `scale` and `invalid` say how a
depth map is stored, see `storage`. The table is CSV, JSON Lines or Parquet.
"""

import csv
import dataclasses
import difflib
import io
import os
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from mmcl_jax.errors import DataError, Faults
from mmcl_jax.files import Path, write_text
from mmcl_jax.modalities import MODALITIES
from mmcl_jax.modalities.base import (
    FileReference,
    Reference,
    Storage,
    UnreadableReference,
)
from mmcl_jax.streams import data_sets, storage, tasks
from mmcl_jax.streams.base import Required, Stream, StreamSource, visible
from mmcl_jax.streams.data_options import Selection
from mmcl_jax.streams.data_sets import PARTS, DataSet, Mark
from mmcl_jax.streams.roots import Root
from mmcl_jax.streams.table_files import LABEL, Column, read_rows

COLUMNS = (
    Column("path"),
    LABEL,
    Column("modality"),
    Column("split", required=False),
    Column("dataset", required=False),
    Column("task", required=False, numbers=(int,)),
    Column("scale", required=False, numbers=(int, float)),
    Column("invalid", required=False, numbers=(int, float)),
)
EXPECTED = (
    "a table with the columns `path`, `label` and `modality`, and perhaps `split`, "
    "`dataset`, `task`, `scale` and `invalid`: UTF-8 CSV with commas, JSON Lines or "
    "Parquet"
)
_MAX_NAME = 255
_OTHER_SPLITS = ("val", "valid", "validation", "dev", "eval", "evaluation", "holdout")


@dataclasses.dataclass(frozen=True)
class Manifest(Selection):
    """A stream of the files that a table lists, see `streams.manifest`.

    Attributes:
        kind: Name of this kind of stream.
        path: Path of the table (.csv, .jsonl or .parquet), with the columns path,
            label, modality, split, dataset, task, scale and invalid.
        follow_links: Whether links may lead out of the folder of the table.
    """

    kind: str = "manifest"
    path: Path = ""
    follow_links: bool = False


class Row(NamedTuple):
    """One file of a manifest.

    Attributes:
        path: Path relative to the folder of the manifest, with `/` between names.
        label: Name of its class.
        modality: Name of its modality.
        split: "train" or "test".
        dataset: Name of its data set.
        scale: Scale of a depth map, see `storage.parse_scale`; empty: the default.
        invalid: Stored values of no reading, see `storage.parse_invalid`.
        task: Name of its task; empty: tasks are not given.
    """

    path: str
    label: str
    modality: str
    split: str
    dataset: str
    scale: str = ""
    invalid: str = ""
    task: str = ""


def write(path: pathlib.Path, rows: Sequence[Row]) -> None:
    """Writes a manifest atomically, without optional columns that are empty.

    Raises:
        DataError: The file exists and is not this manifest.
    """
    used = {field for row in rows for field in Row._fields if getattr(row, field)}
    fields = [f for f in Row._fields if f in used or f not in Row._field_defaults]
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(fields)
    table.writerows([getattr(row, field) for field in fields] for row in rows)
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


def build(
    *, path: str, follow_links: bool = False, faults: Faults, **selection: Any
) -> Stream:
    """Reads a stream from a manifest; no sample is decoded.

    Args:
        path: Path of the table.
        follow_links: Whether links may lead out of the table's folder, to files that
            are stored elsewhere.
        faults: Receives each row that is invalid, or whose file is missing or outside
            of the table's folder, with its line; and columns that are not used.
        **selection: Arguments of `tasks.build`.

    Returns:
        The stream. Descriptions of its samples are relative to the table's folder: a
        manifest of a tree that `folders` reads gives the same stream if its rows are
        sorted by path.

    Raises:
        DataError: The file is no such table, or no valid data set is left.
        ValueError: An argument is out of range.
    """
    table = pathlib.Path(path)
    found = _read(table, Root(table.parent, follow_links), faults)
    return tasks.build(found, **selection, faults=faults)


def _read(path: pathlib.Path, root: Root, faults: Faults) -> list[DataSet]:
    found: dict[tuple[str, str], dict[str, dict[str, list[Reference]]]] = {}
    lines: dict[tuple[str, str, str], int] = {}
    given: dict[str, Mark] = {}
    marks: dict[tuple[str, str], dict[str, Mark]] = {}
    for line, values in read_rows(path, COLUMNS, EXPECTED, faults):
        where = f"{path}:{line}"
        with faults.collecting():
            row = _row(where, values, path.stem)
            reference = _reference(where, path.parent, row, root)
            key = (row.modality, row.dataset, os.path.normpath(row.path))
            first = lines.setdefault(key, line)
            if first != line:
                raise DataError(
                    f"{where}: {row.path} is that of line {first}; remove one"
                )
            parts = found.setdefault((row.modality, row.dataset), {})
            parts.setdefault(row.split, {}).setdefault(row.label, []).append(reference)
            if row.task:
                mark = given.setdefault(row.task, Mark(row.task, where, len(given)))
                marks.setdefault(key[:2], {})[reference.describe()] = mark
    if not found:
        faults.check()
        raise DataError(f"{path}: no row below its first line; expected {EXPECTED}")
    _check_names(path, found, faults)
    return [
        DataSet(
            f"{path}: {modality}/{name}",
            f"{modality}/{name}",
            MODALITIES[modality],
            parts,
            marks=marks.get((modality, name), {}),
        )
        for (modality, name), parts in sorted(found.items())
    ]


def _check_names(
    path: pathlib.Path, found: Iterable[tuple[str, str]], faults: Faults
) -> None:
    shown: dict[tuple[str, str], str] = {}
    for modality, name in found:
        other = shown.setdefault((modality, name.casefold()), name)
        if other != name:
            faults.errors.append(
                f"{path}: data sets {other!r} and {name!r} differ in case alone; "
                "rename one"
            )


def _row(where: str, values: dict[str, str], name: str) -> Row:
    """Returns a row, with everything but its path checked."""
    split = values["split"] or "train"
    dataset = visible(values["dataset"] or name)
    task = visible(values["task"])
    row = Row(**(values | {"split": split, "dataset": dataset, "task": task}))
    if row.modality not in MODALITIES:
        raise DataError(
            f"{where}: modality {row.modality!r}; expected one of "
            f"{', '.join(MODALITIES)}{_nearest(row.modality, MODALITIES)}"
        )
    if split.lower() in _OTHER_SPLITS:
        raise DataError(
            f"{where}: split {split!r}; expected train or test: write test for samples "
            "that score, or remove the row"
        )
    if split not in PARTS:
        raise DataError(
            f"{where}: split {split!r}; expected train or test{_nearest(split, PARTS)}"
        )
    if "/" in dataset or not dataset.isprintable() or len(dataset) > _MAX_NAME:
        raise DataError(
            f"{where}: data set {dataset[:40]!r}; expected at most {_MAX_NAME} "
            "printable characters without a slash"
        )
    data_sets.check_name(where, row.label)
    if row.modality != "depth" and (row.scale or row.invalid):
        raise DataError(
            f"{where}: scale and invalid are of depth maps; leave them empty for "
            f"modality {row.modality!r}"
        )
    return row


def _nearest(name: str, names: Iterable[str]) -> str:
    near = difflib.get_close_matches(name.strip().lower(), names, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _reference(where: str, folder: pathlib.Path, row: Row, root: Root) -> Reference:
    # What is checked must be what is opened: with a link in the path, dropping `..`
    # can lead to another file.
    file = os.path.normpath(row.path)
    if reason := root.complaint(file):
        raise DataError(f"{where}: {reason}")
    suffixes = MODALITIES[row.modality].suffixes
    if pathlib.PurePath(file).suffix.lower() not in suffixes:
        fault = (
            f"line {where.rpartition(':')[2]} lists it for modality {row.modality!r}, "
            f"which takes {', '.join(suffixes)}; convert or remove it"
        )
        return UnreadableReference(file, fault)
    return FileReference(str(folder / file), file, _storage(where, row))


def _storage(where: str, row: Row) -> Storage | None:
    fields: dict[str, Any] = {}
    if row.scale:
        fields |= storage.parse_scale(f"{where}: scale", row.scale)
    if row.invalid:
        invalid = storage.parse_invalid(f"{where}: invalid", row.invalid)
        fields["depth_invalid"] = invalid
    return Storage(**fields) if fields else None


SOURCE = StreamSource(
    Manifest, build, Required("path", "the table of your files", "/data/manifest.csv")
)
