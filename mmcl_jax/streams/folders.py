"""Streams from folders of ordinary files, and from tables of sentences.

<root>/<modality>/<dataset>/{train,test}/<class>/<file>
<root>/<modality>/<dataset>/{train,test}.csv     sentences: columns text and label

A table may also be .jsonl or .parquet. Whatever else lies in the tree is named: as an
error where it looks like a misspelt modality or split, else as not used.
"""

import dataclasses
import difflib
import functools
import os
import pathlib
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from mmcl_jax.errors import DataError, Faults
from mmcl_jax.files import Path, is_junk
from mmcl_jax.modalities import MODALITIES
from mmcl_jax.modalities.base import (
    FileReference,
    Modality,
    Reference,
    UnreadableReference,
)
from mmcl_jax.streams import data_sets, table_files, tasks
from mmcl_jax.streams.base import Required, Stream, StreamSource
from mmcl_jax.streams.data_options import Selection
from mmcl_jax.streams.data_sets import PARTS, DataSet, Source

_LAYOUT = "<root>/<modality>/<dataset>/{train,test}/<class>/<file>"
# Suffixes of files that hold a part in a form that is not read.
_STORED = (
    *(".tsv", ".json", ".ndjson", ".txt", ".xls", ".xlsx", ".ods", ".pkl", ".arrow"),
    *(".feather", ".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".zst", ".7z", ".rar"),
    *(".part", ".partial", ".crdownload", ".download"),
)
# Names that other layouts give to the two parts, in lower case.
_PARTS: Mapping[str, str] = {
    **dict.fromkeys(("training", "trainval", "trn", "tr", "fit"), "train"),
    **dict.fromkeys(("testing", "tst", "val", "valid", "validation", "dev"), "test"),
    **dict.fromkeys(("eval", "evaluation"), "test"),
}
# Names that a folder of a modality is given by mistake, in lower case and singular.
_MODALITIES: Mapping[str, str] = {
    **dict.fromkeys(("img", "picture", "photo", "rgb", "jpg", "jpeg", "png"), "image"),
    **dict.fromkeys(("clip", "movie", "film", "mp4"), "video"),
    **dict.fromkeys(("sound", "speech", "music", "wav", "recording"), "audio"),
    **dict.fromkeys(("depth_map", "rgbd", "rgb-d", "disparity"), "depth"),
    **dict.fromkeys(("sentence", "language", "txt", "csv"), "text"),
}
# Words of longer names, such as `test_images` or `val2017`, that tell a part.
_WORDS = ("train", "training", "test", "testing", "val", "valid", "validation")
_SIMILAR = 0.8  # ratio of difflib above which two names are taken for the same


@dataclasses.dataclass(frozen=True)
class Folders(Selection):
    """A stream of ordinary files, `<root>/<modality>/<dataset>/{train,test}/<class>/`.

    Attributes:
        kind: Name of this kind of stream.
        root: Folder of the data; a relative path counts from the working directory.
        follow_links: Whether links may lead out of `root`.
    """

    kind: str = "folders"
    root: Path = ""
    follow_links: bool = False


def build(
    *, root: str, follow_links: bool = False, faults: Faults, **selection: Any
) -> Stream:
    """Reads a stream from a tree of folders; no sample is decoded.

    Args:
        root: Folder in the layout that the module describes.
        follow_links: Whether links may lead out of the root, to data that are stored
            elsewhere; data from strangers must not make a run read other files.
        faults: Receives whatever in the tree is wrong or not used.
        **selection: Arguments of `tasks.build`.

    Returns:
        The stream. Descriptions of its samples are relative to `root`.

    Raises:
        DataError: No valid data set is left; the message says why.
        ValueError: An argument is out of range.
    """
    tree = _Tree(pathlib.Path(root), follow_links, faults)
    return tasks.build(_scan(tree), **selection, faults=faults)


def _scan(tree: "_Tree") -> list[DataSet]:
    if not tree.root.is_dir():
        raise DataError(f"{tree.root}: no such folder; expected {_LAYOUT}")
    found = []
    for path in tree.inside(tree.root):
        modality = MODALITIES.get(path.name)
        if modality is None or not path.is_dir():
            tree.leave(path, _mistaken_modality(path))
            continue
        with tree.faults.collecting():
            for each in tree.inside(path):
                if _is_split(each) and not _is_data_set(each):
                    fault = "a split at the place of a data set"
                    tree.leave(each, f"{fault}; expected {_LAYOUT}")
                elif each.is_dir():
                    with tree.faults.collecting():
                        found.append(_open(tree, each, modality))
                else:
                    tree.leave(each)
    if not found:
        tree.faults.check()
        raise DataError(
            f"{tree.root}: no data set in it; expected {_LAYOUT}, modality one of "
            f"{tuple(MODALITIES)}"
        )
    return found


def _open(tree: "_Tree", path: pathlib.Path, modality: Modality) -> DataSet:
    inside = tree.inside(path)
    parts: dict[str, Mapping[str, Source]] = {}
    rest = []
    for each in inside:
        part, table = each.stem, each.suffix in table_files.SUFFIXES
        if part not in PARTS or not (each.is_dir() and not each.suffix or table):
            rest.append(each)
            continue
        if table and modality.tower != "text":
            tree.leave(each, unused="tables of files are read by configs/manifest.py")
            continue
        if part in parts:
            raise DataError(
                f"{path}: several folders or tables are named {part!r}; keep one"
            )
        if table:
            rows = table_files.read_table(each, tree.root, tree.faults)
            parts[part] = data_sets.by_class(str(each), rows.items())
        else:
            parts[part] = data_sets.by_class(str(each), _classes(tree, each, modality))
    classes = []
    for each in rest:
        fault = _mistaken_part(each, parts)
        tree.leave(each, fault)
        classes += [each.name] if each.is_dir() and not fault else []
    if not parts.get("train"):
        hint = "".join(
            f"; move {name!r} there if it is a class" for name in classes[:1]
        )
        raise DataError(
            f"{path}: no class in a folder 'train'{hint}; expected {_LAYOUT}"
        )
    name = path.relative_to(tree.root).as_posix()
    return DataSet(str(path), name, modality, parts)


def _classes(
    tree: "_Tree", folder: pathlib.Path, modality: Modality
) -> Iterable[tuple[str, Callable[[], list[Reference]]]]:
    for path in tree.inside(folder):
        if path.is_dir():
            yield path.name, functools.partial(_files, tree, path, modality)
        else:
            tree.leave(path)


def _files(tree: "_Tree", folder: pathlib.Path, modality: Modality) -> list[Reference]:
    references: list[Reference] = []
    inside = tree.inside(folder)
    for path in inside:
        place = path.relative_to(tree.root).as_posix()
        if path.is_dir():
            tree.faults.errors.append(
                f"{path}: a folder in that of a class, not a file; move its files up, "
                f"or remove it; expected {_LAYOUT}"
            )
        elif not path.is_file():
            tree.faults.errors.append(f"{path}: not a file; expected {_LAYOUT}")
        elif path.suffix.lower() not in modality.suffixes:
            fault = (
                f"suffix {path.suffix!r}; modality {modality.name!r} takes "
                f"{', '.join(modality.suffixes)}; convert or remove it"
            )
            references.append(UnreadableReference(place, fault))
        else:
            references.append(FileReference(str(path), place))
    if not references:
        what = "only folders in it" if inside else "no file in it"
        raise DataError(f"{folder}: {what}; add files or remove the folder")
    return references


class _Tree:
    """The folders below a root, of which every entry is accounted for."""

    def __init__(self, root: pathlib.Path, follow_links: bool, faults: Faults) -> None:
        self.root = root
        self.faults = faults
        self._follow_links = follow_links

    def inside(self, folder: pathlib.Path) -> list[pathlib.Path]:
        """Returns what lies in a folder, sorted, without what is hidden or invalid."""
        try:
            with os.scandir(folder) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError as error:
            raise DataError(f"{folder}: cannot be listed ({error.strerror})") from error
        kept, hidden = [], []
        for entry in entries:
            if is_junk(entry.name):
                continue
            if entry.name.startswith("."):
                hidden.append(entry.name)
            elif fault := self._fault(entry):
                self.faults.errors.append(fault)
            else:
                kept.append(folder / entry.name)
        if hidden:
            more = f" and {len(hidden) - 1} more" if len(hidden) > 1 else ""
            self.leave(folder / hidden[0], unused=f"hidden{more}")
        return kept

    def _fault(self, entry: os.DirEntry[str]) -> str | None:
        if entry.name.encode(errors="ignore").decode() != entry.name:
            folder = os.path.dirname(entry.path)
            return f"{folder}: the name {entry.name!r} in it is not UTF-8; rename it"
        if not entry.is_symlink():
            return None
        target = pathlib.Path(os.path.realpath(entry.path))
        if not os.path.exists(target):
            return f"{entry.path}: a broken link; remove it"
        # Data from elsewhere must not make a run read files outside of its root.
        outside = not target.is_relative_to(os.path.realpath(self.root))
        if outside and not self._follow_links:
            return (
                f"{entry.path}: a link that leads out of {self.root}, to {target}; "
                "replace it by a copy of its target, or allow such links by "
                "--config.stream.follow_links=True"
            )
        return None

    def leave(
        self, path: pathlib.Path, fault: str | None = None, unused: str = ""
    ) -> None:
        """Notes an entry that is not used; it is an error if there is a fault."""
        if fault:
            self.faults.errors.append(f"{path}: {fault}")
        else:
            place = path.relative_to(self.root).as_posix()
            reason = unused or ("a folder" if path.is_dir() else "a file")
            self.faults.unused.append(f"{place} ({reason})")


def _mistaken_modality(path: pathlib.Path) -> str | None:
    """Returns the fault of an entry of the root that was probably meant as data."""
    expected = f"expected {_LAYOUT}, modality one of {', '.join(MODALITIES)}"
    name = path.name.lower()
    if _is_split(path):
        return f"a split at the place of a modality; {expected}"
    if not path.is_dir():
        return None
    meant = _MODALITIES.get(name) or _MODALITIES.get(name.removesuffix("s"))
    near = difflib.get_close_matches(name, MODALITIES, n=1, cutoff=_SIMILAR)
    if meant or near:
        return f"not a modality; rename it to {(meant or near[0])!r}, or move it away"
    if _is_data_set(path):
        return f"a data set at the place of a modality; {expected}"
    inside = [each for each in path.iterdir() if each.is_dir()]
    if any(_is_data_set(each) for each in inside):
        return f"data sets of no known modality; {expected}; rename it or move it away"
    if any(each.name in MODALITIES for each in inside):
        return f"modalities at the place of one; move them up, or away; {expected}"
    return None


def _is_split(path: pathlib.Path) -> bool:
    """Returns whether an entry is named as a part: a folder, a table or an archive."""
    is_part = path.name.split(".")[0].lower() in (*PARTS, *_PARTS)
    held = path.suffix.lower() in (*table_files.SUFFIXES, *_STORED)
    return is_part and (path.is_dir() or held)


def _is_data_set(path: pathlib.Path) -> bool:
    return (path / "train").is_dir()


def _mistaken_part(
    path: pathlib.Path, parts: Mapping[str, Mapping[str, Source]]
) -> str | None:
    """Returns the fault of an entry of a data set that was probably meant as a part."""
    suffix = path.suffix.lower()
    if path.is_dir() and _is_data_set(path):
        return f"a folder with splits in it, inside of a data set; expected {_LAYOUT}"
    if not (path.is_dir() or suffix in (*table_files.SUFFIXES, *_STORED)):
        return None
    name = path.name.split(".")[0].lower() or path.name
    near = difflib.get_close_matches(name, PARTS, n=1, cutoff=_SIMILAR)
    words = [word for word in re.split(r"[\W_\d]+", name) if word in _WORDS]
    meant = _PARTS.get(name) or next(iter((*near, *words)), None)
    meant = _PARTS.get(meant or "", meant)
    if meant is None and _has_classes_of(path, parts):
        meant = "test"
    if meant is None or (meant in parts and meant != name):
        return None
    kind = "folder" if path.is_dir() else "file" if suffix in _STORED else "table"
    if meant in parts and kind == "file":
        return None
    if meant in parts:
        return f"a second {meant} part beside {meant!r}; remove or merge one"
    taken = "" if path.is_dir() else f" with one of {', '.join(table_files.SUFFIXES)}"
    how = "unpack or convert" if kind == "file" else "rename"
    return (
        f"not used: a {kind} of this name is no part of a data set; {how} it to "
        f"{meant!r}{taken}, or move it away"
    )


def _has_classes_of(
    path: pathlib.Path, parts: Mapping[str, Mapping[str, Source]]
) -> bool:
    """Returns whether a folder has a class of the training part in it."""
    known = parts.get("train", {})
    return path.is_dir() and any(
        unicodedata.normalize("NFC", each.name) in known
        for each in path.iterdir()
        if each.is_dir()
    )


SOURCE = StreamSource(
    Folders, build, Required("root", "the folder of your data", "/data/streams")
)
