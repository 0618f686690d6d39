"""Streams from folders of ordinary files, and from tables of sentences.

    <root>/<modality>/<dataset>/{train,test}/<class>/<file>
    <root>/<modality>/<dataset>/{train,test}.csv     sentences: columns text and label

Without a test part, one is split off by a hash of each file's place, so that adding
files does not move others between the parts.
"""

import dataclasses
import difflib
import fnmatch
import hashlib
import os
import pathlib
import unicodedata
import zlib
from collections.abc import Mapping, Sequence

import numpy as np
from absl import logging

from mmcl_jax.modalities import MODALITIES
from mmcl_jax.modalities.base import (
    DataError,
    FileReference,
    Modality,
    Reference,
    TextReference,
)
from mmcl_jax.streams.base import (
    EvaluateOn,
    Stream,
    TaskDraft,
    arrange,
    build_stream,
    display_name,
    first,
)
from mmcl_jax.streams.tables import read_table

_LAYOUT = "<root>/<modality>/<dataset>/{train,test}/<class>/<file>"
_JUNK = ("thumbs.db", "desktop.ini", "__macosx")
# of classes that are wrong in the same way
_NAMED = 10
_MAX_NAME = 255  # of a class; more is a sentence, or a table with its columns mistaken

# The folder that holds a class's samples, or the rows of a table.
Source = pathlib.Path | list[Reference]


@dataclasses.dataclass(frozen=True)
class _DataSet:
    """One data set, nothing of it decoded and no class folder listed."""

    path: str
    root: pathlib.Path
    modality: Modality
    parts: dict[str, Mapping[str, Source]]

    @property
    def name(self) -> str:
        return self.path.split("/")[1]

    def samples(self, part: str, name: str) -> list[Reference]:
        source = self.parts[part][name]
        if isinstance(source, list):
            return source
        return _files(source, self.root, self.modality)


def build(
    *,
    root: str,
    classes_per_task: int,
    order: str = "by_modality",
    include: str | Sequence[str] | None = None,
    exclude: str | Sequence[str] | None = None,
    max_train_per_class: int | None = None,
    test_fraction: float = 0.2,
    evaluate_on: EvaluateOn = "test",
    validation_fraction: float = 0.2,
    first_tasks: int | None = None,
    order_seed: int = 0,
    data_seed: int = 0,
) -> Stream:
    """Reads a stream from a tree of folders; no sample is decoded.

    The classes of a data set are sorted, permuted by `order_seed` and cut into tasks
    named `<modality>/<dataset>/<k>`. A single class that remains joins the last task,
    since a task of one class cannot be got wrong; two or more are a task.

    Args:
        root: folder laid out as the module says. Folders of other names than those of
            modalities, and files beside data sets, are ignored.
        classes_per_task: classes of one task.
        order: one of `streams.base.ORDERS`.
        include: globs on `<modality>/<dataset>/<class>`, as a sequence or separated by
            commas; one that matches a modality or data set counts for all below it.
            A class is taken if one of them matches; None or empty = all classes.
        exclude: globs of classes to leave out. One that begins with `!` takes back what
            those before it left out: `text/clinc150,!text/clinc150/[bc]*`.
        max_train_per_class: training samples kept of each class, chosen by `data_seed`;
            None = all.
        test_fraction: part of each class that is split off for testing where a data set
            has no test part; one sample at least is left on either side.
        evaluate_on: `validation`: the samples that score are split off the training
            samples, which are the fewer then, and the test samples are left alone.
        validation_fraction: part of each class that is split off for it, as above.
        first_tasks: tasks that are kept, once in order; None: all.
        order_seed: decides which classes form a task, and the order of tasks.
        data_seed: decides the split and the choice of training samples.

    Returns:
        The stream. Descriptions of its samples are relative to `root`.

    Raises:
        DataError: something in the tree is not as it should be; names the path.
        ValueError: an argument makes no sense.
    """
    if classes_per_task < 1:
        raise ValueError(f"classes_per_task={classes_per_task}: expected at least 1")
    for name, share in (
        ("test_fraction", test_fraction),
        ("validation_fraction", validation_fraction),
    ):
        if not 0 < share < 1:
            raise ValueError(f"{name}={share}: expected between 0 and 1")
    if max_train_per_class is not None and max_train_per_class < 1:
        raise ValueError(f"max_train_per_class={max_train_per_class}: expected 1 or up")
    data_sets = _scan(pathlib.Path(root))
    drafts = []
    for data_set, names in _select(data_sets, _globs(include), _globs(exclude)):
        parts = [_parts(data_set, name, test_fraction, data_seed) for name in names]
        if evaluate_on == "validation":
            # hashed apart from the other split, which has taken the smallest draws
            seed = f"validation {data_seed}"
            parts = [
                _split(part[0], validation_fraction, seed, data_set, name)
                for part, name in zip(parts, names, strict=True)
            ]
        train = [_keep(part[0], max_train_per_class, data_seed) for part in parts]
        seeds = [order_seed, zlib.crc32(data_set.path.encode())]
        places = np.random.default_rng(seeds).permutation(len(names))
        for k, chosen in enumerate(_cut(places, classes_per_task)):
            draft = TaskDraft(
                name=f"{data_set.path}/{k}",
                modality=data_set.modality.name,
                classes=tuple((names[i], data_set.name) for i in chosen),
                train=tuple(train[i] for i in chosen),
                test=tuple(parts[i][1] for i in chosen),
            )
            drafts.append(draft)
    return build_stream(first(arrange(drafts, order, order_seed), first_tasks))


def _cut(places: np.ndarray, size: int) -> list[np.ndarray]:
    cuts = list(range(size, len(places), size))
    if len(places) % size == 1 and len(cuts) > 0:
        cuts.pop()
    return np.split(places, cuts)


def _scan(root: pathlib.Path) -> list[_DataSet]:
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


def _open(root: pathlib.Path, path: pathlib.Path, modality: Modality) -> _DataSet:
    inside = {entry.name for entry in _entries(path, root)}
    parts: dict[str, Mapping[str, Source]] = {}
    for part in ("train", "test"):
        if modality.name == "text" and f"{part}.csv" in inside:
            parts[part] = read_table(path / f"{part}.csv", root)
        elif part in inside:
            parts[part] = {
                folder.name: folder for folder in _folders(path / part, root)
            }
    if not parts.get("train"):
        raise DataError(f"{path}: no class in a folder 'train'; expected {_LAYOUT}")
    shown: dict[str, str] = {}
    for name in parts["train"]:
        _check_name(path, name)
        other = shown.setdefault(display_name(name).casefold(), name)
        if other != name:
            raise DataError(
                f"{path}: classes {other!r} and {name!r} read the same; rename one"
            )
    for part, other in (("train", "test"), ("test", "train")):
        lacking = set(parts.get(other, ())) - set(parts.get(part, parts["train"]))
        if lacking:
            raise DataError(
                f"{path}: in {other!r} but not in {part!r} are the classes "
                f"{sorted(lacking)[:_NAMED]}{' and more' * (len(lacking) > _NAMED)}; "
                "add samples there or remove these classes"
            )
    return _DataSet(path.relative_to(root).as_posix(), root, modality, parts)


def _check_name(path: pathlib.Path, name: str) -> None:
    shown = display_name(name)
    if not shown or len(shown) > _MAX_NAME:
        raise DataError(
            f"{path}: a class name of {len(shown)} characters, {name[:40]!r}; expected "
            f"1 to {_MAX_NAME}, underscores and white space at its ends not counted"
        )
    if any(unicodedata.category(character) == "Cc" for character in shown):
        raise DataError(f"{path}: class {name!r} has a control character; rename it")


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
        if entry.is_symlink():
            target = pathlib.Path(os.path.realpath(entry.path))
            if not target.is_relative_to(os.path.realpath(root)):
                raise DataError(
                    f"{entry.path}: a link that leads out of {root}, to {target}; copy "
                    "what it points at"
                )
            if not os.path.exists(target):
                raise DataError(f"{entry.path}: a link to nowhere; remove it")
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


def _globs(value: str | Sequence[str] | None) -> list[str]:
    items = value.split(",") if isinstance(value, str) else value or ()
    return [item.strip().rstrip("/") for item in items if item.strip()]


def _select(
    data_sets: Sequence[_DataSet], include: Sequence[str], exclude: Sequence[str]
) -> list[tuple[_DataSet, list[str]]]:
    unused = {glob.removeprefix("!") for glob in exclude} | set(include)

    def matches(glob: str, path: str, name: str) -> bool:
        paths = (path.split("/")[0], path, f"{path}/{name}")
        found = any(fnmatch.fnmatchcase(path, glob) for path in paths)
        if found:
            unused.discard(glob)
        return found

    def taken(path: str, name: str) -> bool:
        included = [matches(glob, path, name) for glob in include]
        removed = False
        for glob in exclude:
            if matches(glob.removeprefix("!"), path, name):
                removed = not glob.startswith("!")
        return (any(included) or not include) and not removed

    known = [(d, sorted(d.parts["train"])) for d in data_sets]
    chosen = [
        (d, [name for name in names if taken(d.path, name)]) for d, names in known
    ]
    for glob in sorted(unused):
        paths = [
            f"{data_set.path}/{name}" for data_set, names in known for name in names
        ]
        near = difflib.get_close_matches(glob, paths, n=1, cutoff=0.0)[0]
        raise DataError(f"pattern {glob!r} matches no class; nearest: {near!r}")
    chosen = [(data_set, names) for data_set, names in chosen if names]
    if not chosen:
        raise DataError(f"include={include} and exclude={exclude} leave no class")
    return chosen


def _draw(seed: int | str, reference: Reference) -> float:
    # A sentence moves with its words, so that one that is there twice is never on both
    # sides of the split; a file with its place.
    text = isinstance(reference, TextReference)
    place = reference.text if text else reference.describe()
    digest = hashlib.sha256(f"{seed}\0{place}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def _parts(
    data_set: _DataSet, name: str, fraction: float, seed: int
) -> tuple[list[Reference], list[Reference]]:
    train = data_set.samples("train", name)
    if "test" in data_set.parts:
        return train, data_set.samples("test", name)
    return _split(train, fraction, seed, data_set, name)


def _split(
    references: list[Reference],
    fraction: float,
    seed: int | str,
    data_set: _DataSet,
    name: str,
) -> tuple[list[Reference], list[Reference]]:
    draws = [_draw(seed, reference) for reference in references]
    if min(draws) == max(draws):
        raise DataError(
            f"{data_set.root / data_set.path}: class {name!r} has one sample only to "
            "train on, and another is needed to score with; add samples"
        )
    limit = min(max(fraction, np.nextafter(min(draws), 2)), max(draws))
    pairs = list(zip(draws, references, strict=True))
    return [r for d, r in pairs if d >= limit], [r for d, r in pairs if d < limit]


def _keep(references: list[Reference], limit: int | None, seed: int) -> list[Reference]:
    if limit is None or len(references) <= limit:
        return references
    # Hashed apart from the split, which has taken the smallest of those draws.
    draws = [_draw(~seed, reference) for reference in references]
    chosen = np.argsort(draws, kind="stable")[:limit]
    return [references[i] for i in sorted(chosen)]
