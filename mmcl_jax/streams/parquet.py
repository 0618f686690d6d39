"""Streams from data sets in Parquet or Arrow files, as the library `datasets` has them.

A row holds a medium, as bytes or as the path of a file, or a text; and a class. They
are read without that library, and without code that a data set brings along. Media stay
in their files: a sample is the place of its row.
"""

import dataclasses
import itertools
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from absl import logging

from mmcl_jax.errors import DataError, Faults
from mmcl_jax.files import Path
from mmcl_jax.modalities import MODALITIES
from mmcl_jax.modalities.base import (
    FileReference,
    Modality,
    Reference,
    TextReference,
    UnreadableReference,
)
from mmcl_jax.models.pretrained import hub
from mmcl_jax.streams import features, shards, splits, storage, tasks
from mmcl_jax.streams.base import Required, Stream, StreamSource, visible
from mmcl_jax.streams.data_options import Selection
from mmcl_jax.streams.data_sets import DataSet
from mmcl_jax.streams.features import Feature
from mmcl_jax.streams.roots import Root

_LABELS = ("label", "labels")
_OPTION = "--config.stream"
_COMMIT = 12  # digits of a commit in descriptions


@dataclasses.dataclass(frozen=True)
class Parquet(Selection):
    """A stream of data sets in Parquet or Arrow files, see `streams.parquet`.

    Attributes:
        kind: Name of this kind of stream.
        paths: Folders of data sets; or repositories of the Hugging Face Hub, as
            `org/name` or `org/name@revision`, which are downloaded.
        train: Split that is trained on.
        test: Split that scores; empty: a part of the training split is split off.
        media: Column of the media or texts; empty: the only one of that kind.
        label: Column of the classes; empty: the only one of classes, or `label`.
        modality: Modality of the media, where the data sets do not say it or say
            otherwise: `depth` for all of them, or `rooms=depth,birds=audio`.
        follow_links: Whether links of files that rows name may lead out of a data set.
    """

    kind: str = "parquet"
    paths: tuple[Path, ...] = ()
    train: str = "train"
    test: str = "test"
    media: str = ""
    label: str = ""
    modality: str = ""
    follow_links: bool = False


class _Columns(NamedTuple):
    """The columns of a data set that are read.

    Attributes:
        media: Name of the column of media, of their paths, or of texts.
        label: Name of the column of classes.
        modality: Modality of the media.
        kind: What the column of media holds, see `features.Feature`.
        names: Names of the classes; empty if the column holds names.
    """

    media: str
    label: str
    modality: Modality
    kind: str
    names: tuple[str, ...]


class _Place(NamedTuple):
    """Where a data set is.

    Attributes:
        folder: Its folder.
        name: Its name.
        root: Its folder, as paths in rows are checked.
        origin: The name with the commit of a repository, with which descriptions of
            samples begin: a stream of another commit is another stream.
    """

    folder: pathlib.Path
    name: str
    origin: str
    root: Root


def build(
    *,
    paths: Sequence[str],
    train: str = "train",
    test: str = "test",
    media: str = "",
    label: str = "",
    modality: str = "",
    follow_links: bool = False,
    faults: Faults,
    **selection: Any,
) -> Stream:
    """Reads a stream from data sets in Parquet or Arrow files; no sample is decoded.

    Args:
        paths: Folders, or names of repositories.
        train: Split that is trained on.
        test: Split that scores; "": a part of the training split is split off.
        media: Column of the media or texts; "": found by what the columns hold.
        label: Column of the classes; "": found by what the columns hold.
        modality: Modality for all data sets, or for each by its name; "": as they say.
        follow_links: Whether links of files that rows name may lead out of a data set.
        faults: Receives what is wrong with data sets, which are then left out, and
            with rows.
        **selection: Arguments of `tasks.build`.

    Returns:
        The stream.

    Raises:
        DataError: No valid data set is left, or one split is given for training and for
            testing.
        ValueError: An argument is out of range.
    """
    if train == test:
        raise DataError(
            f"split {train!r} is given for training and for testing; give two splits, "
            f"or an empty test split, {_OPTION}.test=, so that a part is split off"
        )
    places = [_place(path, follow_links) for path in paths]
    names = [place.name for place in places]
    modalities = storage.by_name("config.stream.modality", modality, names)
    for name in names:
        if names.count(name) > 1:
            raise DataError(f"two data sets are named {name!r}; rename a folder")
        if (chosen := modalities.get(name)) and chosen not in MODALITIES:
            raise DataError(
                f"config.stream.modality: {chosen!r}; expected one of "
                f"{', '.join(MODALITIES)}"
            )
    found = []
    for place in places:
        with faults.collecting():
            chosen = modalities.get(place.name)
            parts = {"train": train, "test": test} if test else {"train": train}
            found.append(_data_set(place, parts, (media, label, chosen), faults))
    if not found:
        faults.check()
    found.sort(key=lambda each: each.path.split("/"))
    return tasks.build(found, **selection, faults=faults)


def _place(path: str, follow_links: bool) -> _Place:
    source = hub.resolve_files(path, splits.PATTERNS, "dataset")
    root = Root(source.folder, follow_links)
    if source.revision is None:
        name = visible(pathlib.Path(os.path.abspath(source.folder)).name)
        return _Place(source.folder, name, name, root)
    logging.info("%s is read at revision %s", source.source, source.revision)
    name = source.source.removeprefix("hf://").replace("/", "-")
    return _Place(source.folder, name, f"{name}@{source.revision[:_COMMIT]}", root)


def _data_set(
    place: _Place,
    parts: Mapping[str, str],
    chosen: tuple[str, str, str | None],
    faults: Faults,
) -> DataSet:
    there = splits.find(place.folder)
    lacking = [split for split in parts.values() if split not in there]
    if lacking:
        raise DataError(
            f"{place.folder}: no split {lacking[0]!r}; there are {', '.join(there)}; "
            f"choose by {_OPTION}.train and {_OPTION}.test, which may be empty"
        )
    first = there[parts["train"]][0]
    columns = _columns(place, first, *chosen)
    unused = [split for split in there if split not in parts.values()]
    faults.unused += [f"{place.name} (split {split!r})" for split in unused]
    found = {}
    for part, split in parts.items():
        classes: dict[str, list[Reference]] = {}
        for path in there[split]:
            _check_columns(place, path, columns, first)
            for name, reference in _rows(place, path, columns, faults):
                classes.setdefault(name, []).append(reference)
        if not classes:
            raise DataError(
                f"{place.folder}: no row with a class in split {split!r}; choose "
                f"another by {_OPTION}.{part}"
            )
        found[part] = classes
    path = f"{columns.modality.name}/{place.name}"
    return DataSet(str(place.folder), path, columns.modality, found)


def _columns(
    place: _Place, path: pathlib.Path, media: str, label: str, modality: str | None
) -> _Columns:
    """Returns the columns that are read, by the features of a file."""
    held = features.of_schema(shards.schema(path), path, place.folder)
    for option, name in (("media", media), ("label", label)):
        if name and name not in held:
            raise DataError(
                f"{path}: no column {name!r}, which {_OPTION}.{option} names; there "
                f"are {', '.join(held)}"
            )
    label = label or _only(path, "label", _label_candidates(held), held)
    rest = {name: feature for name, feature in held.items() if name != label}
    media = media or _only(path, "media", _media_candidates(rest), held)
    feature = held[media]
    if feature.kind not in ("media", "text"):
        raise DataError(
            f"{path}: column {media!r} holds neither media nor texts; choose another "
            f"by {_OPTION}.media"
        )
    name = modality or feature.modality or ("text" if feature.kind == "text" else None)
    if name is None:
        raise DataError(
            f"{path}: column {media!r} does not say of which modality its media are; "
            f"give {_OPTION}.modality, one of {', '.join(MODALITIES)}"
        )
    classes = held[label]
    if classes.kind not in ("classes", "text"):
        raise DataError(
            f"{path}: column {label!r} holds no names of classes but numbers or other "
            "values; save it as ClassLabel(names=[...]), or choose a column of names "
            f"by {_OPTION}.label"
        )
    return _Columns(media, label, MODALITIES[name], feature.kind, classes.names)


def _check_columns(
    place: _Place, path: pathlib.Path, columns: _Columns, first: pathlib.Path
) -> None:
    """Raises `DataError` if the columns of a file are not those of the first.

    A test split may lack the names of classes; other names, or the same in another
    order, would silently give its rows other classes.
    """
    held = features.of_schema(shards.schema(path), path, place.folder)
    for name in (columns.media, columns.label):
        if name not in held:
            raise DataError(
                f"{path}: no column {name!r}, which {first} has; there are "
                f"{', '.join(held)}; write all files of the data set alike"
            )
    names = held[columns.label].names
    if names and columns.names and names != columns.names:
        pairs = zip(names, columns.names, strict=False)
        same = itertools.takewhile(lambda pair: pair[0] == pair[1], pairs)
        where = sum(1 for _ in same)
        one, other = (str(list(n[where : where + 3])) for n in (names, columns.names))
        raise DataError(
            f"{path}: its classes from number {where} on are {one}, those of {first} "
            f"are {other}; write both with the same ClassLabel(names=[...])"
        )


def _only(
    path: pathlib.Path, what: str, found: Sequence[str], held: Mapping[str, Feature]
) -> str:
    if len(found) == 1:
        return found[0]
    shown = ", ".join(f"{name} ({feature.kind})" for name, feature in held.items())
    number = "several columns may be" if found else "no column is clearly"
    raise DataError(
        f"{path}: {number} the {what}, of {shown}; choose by {_OPTION}.{what}"
    )


def _label_candidates(held: Mapping[str, Feature]) -> list[str]:
    classes = [name for name, feature in held.items() if feature.kind == "classes"]
    return classes or [name for name in held if name.lower() in _LABELS]


def _media_candidates(held: Mapping[str, Feature]) -> list[str]:
    for kind in ("media", "text"):
        found = [name for name, feature in held.items() if feature.kind == kind]
        if len(found) > 1 and "text" in found:
            return ["text"]
        if found:
            return found
    return []


def _rows(
    place: _Place, path: pathlib.Path, columns: _Columns, faults: Faults
) -> Iterator[tuple[str, Reference]]:
    """Yields the class and the sample of each row of a file."""
    name = f"{place.origin}/{path.relative_to(place.folder).as_posix()}"
    held = columns.kind == "media"
    texts = [] if held else [columns.media]
    media = columns.media if held else ""
    read = shards.columns(path, [columns.label, *texts], media)
    number, unlabelled = 0, []
    for group, (table, filled) in enumerate(read):
        labels = table.column(columns.label).to_pylist()
        values = _column(table, columns.media)
        for row, (label, value) in enumerate(zip(labels, values, strict=True)):
            number += 1
            shown = _class(label, columns.names)
            if shown is None:
                unlabelled.append((number, label))
            elif columns.modality.name == "text" and not held:
                yield shown, _text(value, name, number)
            elif filled is not None and filled[row]:
                suffix = pathlib.PurePath(value or "").suffix
                yield (
                    shown,
                    shards.RowReference(
                        str(path), name, group, row, number, columns.media, suffix
                    ),
                )
            else:
                place_of_row = f"{name}:{number}"
                yield shown, _file(place, place_of_row, value, columns.modality)
    if unlabelled:
        row, value = unlabelled[0]
        faults.errors.append(
            f"{path}: {len(unlabelled)} of {number} rows have no valid class, the first"
            f" of them row {row}, with {value!r}; remove them, or choose another split "
            "if this one is published without labels"
        )


def _column(table: Any, name: str) -> list[str | None]:
    """Returns texts or paths; None for each row if there is no such column."""
    if name not in table.column_names:
        return [None] * table.num_rows
    values = table.column(name).to_pylist()
    return [v.get("path") if isinstance(v, dict) else v for v in values]


def _class(label: Any, names: Sequence[str]) -> str | None:
    """Returns the name of a class; None if the label is not valid."""
    if names and isinstance(label, int):
        return visible(names[label]) if 0 <= label < len(names) else None
    return (visible(label) or None) if isinstance(label, str) else None


def _text(value: str | None, name: str, number: int) -> Reference:
    if value is None or not visible(value):
        fault = "a row without text; add some or remove the row"
        return UnreadableReference(f"{name}:{number}", fault)
    return TextReference(value.strip(), name, number)


def _file(place: _Place, row: str, value: str | None, modality: Modality) -> Reference:
    """Returns the sample of a row that names a file, relative to the data set."""
    if not value:
        return UnreadableReference(row, "neither content nor a path; remove the row")
    file = os.path.normpath(value)
    if fault := place.root.complaint(file):
        return UnreadableReference(row, f"{fault}; or store the content in the row")
    if pathlib.PurePath(file).suffix.lower() not in modality.suffixes:
        fault = (
            f"{value}: modality {modality.name!r} takes {', '.join(modality.suffixes)};"
            " convert or remove it"
        )
        return UnreadableReference(row, fault)
    return FileReference(str(place.folder / file), f"{place.origin}/{file}")


def _remote(options: Parquet) -> list[str]:
    return [path for path in options.paths if not os.path.exists(path)]


SOURCE = StreamSource(
    Parquet,
    build,
    Required("paths", "folders or repositories of data sets", "DATA"),
    remote=_remote,
)
