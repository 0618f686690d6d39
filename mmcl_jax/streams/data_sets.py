"""Data sets: samples by class, which are selected and cut into tasks.

`folders`, `manifest` and `tfds` read them. If there is no test part, one is split off
by a hash of each sample's place, so that new samples do not move others between the
parts.
"""

import dataclasses
import difflib
import hashlib
import re
import unicodedata
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from mmcl_jax.errors import DataError, Faults
from mmcl_jax.modalities.base import (
    FileReference,
    Modality,
    Reference,
    Storage,
    UnreadableReference,
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
from mmcl_jax.streams.reserve import globs, matches, with_reserved
from mmcl_jax.streams.storage import merged, per_data_set

PARTS = ("train", "test")
# Classes that a message names, if several are wrong in the same way.
_NAMED = 10
_NUMBER = re.compile(r"(\d+)(?:\.(\d*))?", re.ASCII)
_MAX_NAME = 255  # of a class; longer ones are sentences, as in a table of wrong columns

# The samples of a class, or a function that lists them on demand.
Source = list[Reference] | Callable[[], list[Reference]]


@dataclasses.dataclass(frozen=True)
class DataSet:
    """One data set, with nothing decoded.

    Attributes:
        source: Location of the data set, for messages.
        path: `<modality>/<name>`.
        modality: Modality of all its samples.
        parts: Samples of each class of "train", and of "test" if there is one. Names of
            classes are in the Unicode form NFC.
        storage: How its media are stored, unless a sample says otherwise.
    """

    source: str
    path: str
    modality: Modality
    parts: Mapping[str, Mapping[str, Source]]
    storage: Storage = Storage()

    @property
    def name(self) -> str:
        """Returns its name."""
        return self.path.split("/")[1]

    def samples(self, part: str, name: str) -> list[Reference]:
        """Returns the samples of a class in one part."""
        source = self.parts[part][name]
        found = source() if callable(source) else source
        if self.storage == Storage():
            return found
        return [self._stored(reference) for reference in found]

    def _stored(self, reference: Reference) -> Reference:
        if not hasattr(reference, "storage"):
            return reference
        stored: Any = reference
        return dataclasses.replace(stored, storage=merged(stored.storage, self.storage))

    def check(self) -> None:
        """Raises `DataError` if its parts or its classes are invalid."""
        if not self.parts.get("train"):
            raise DataError(f"{self.source}: no class to train on")
        shown: dict[str, str] = {}
        for name in self.parts["train"]:
            check_name(self.source, name)
            other = shown.setdefault(_look(name), name)
            if other != name:
                raise DataError(
                    f"{self.source}: classes {other!r} and {name!r} read the same; "
                    "rename one"
                )
        for part, other in (PARTS, PARTS[::-1]):
            theirs = self.parts.get(part, self.parts["train"])
            lacking = set(self.parts.get(other, ())) - set(theirs)
            known = {_look(name): name for name in theirs}
            for name in sorted(lacking):
                if near := known.get(_look(name)):
                    raise DataError(
                        f"{self.source}: class {name!r} in {other!r} and {near!r} in "
                        f"{part!r} read the same; give both one name"
                    )
            if lacking:
                raise DataError(
                    f"{self.source}: in {other!r} but not in {part!r} are the classes "
                    f"{sorted(lacking)[:_NAMED]}{' and more' * (len(lacking) > _NAMED)}"
                    "; add samples there or remove these classes"
                )


def build(
    data_sets: Sequence[DataSet],
    *,
    classes_per_task: int,
    order: str = "by_modality",
    include: str | Sequence[str] | None = None,
    exclude: str | Sequence[str] | None = None,
    reserve: str | Sequence[str] | None = None,
    max_train_per_class: int | None = None,
    test_fraction: float = 0.2,
    evaluate_on: EvaluateOn = "test",
    validation_fraction: float = 0.2,
    first_tasks: int | None = None,
    depth_scale: str = "",
    depth_invalid: str = "",
    transparency: Literal["white", "drop"] = "white",
    order_seed: int = 0,
    data_seed: int = 0,
    faults: Faults,
) -> Stream:
    """Returns a stream of data sets; no sample is decoded.

    The classes of a data set are sorted, permuted by `order_seed` and cut into tasks
    named `<modality>/<dataset>/<k>`. A single remaining class joins the last task,
    since a task of one class cannot be got wrong; two or more form a task.

    Args:
        data_sets: Data sets that the stream is made of.
        classes_per_task: Number of classes of a task.
        order: One of `streams.base.ORDERS`.
        include: Globs on `<modality>/<dataset>/<class>`, as a sequence or separated by
            commas; a match of a modality or data set counts for all below it. A class
            is taken if one of them matches; None or empty: all classes.
        exclude: Globs of classes to leave out. A glob that begins with `!` takes back
            what those before it left out: `text/clinc150,!text/clinc150/[bc]*`.
        reserve: Globs of classes that are never learnt, whether or not they are
            included: their test samples are control sets, see `streams.reserve`.
        max_train_per_class: Training samples kept of each class, chosen by `data_seed`;
            None: all.
        test_fraction: Share of each class that is split off for testing if a data set
            has no test part; both sides keep at least one sample.
        evaluate_on: Samples that score: the `test` samples, or `validation` samples
            that are split off the training samples, with test samples left unused.
        validation_fraction: Share of each class that is split off for validation.
        first_tasks: Number of tasks that are kept, in the final order; None: all.
        depth_scale: Stored units of a depth map in a metre, see `storage`.
        depth_invalid: Stored values that stand for "no reading", see `storage`.
        transparency: What becomes of transparent pixels, see `modalities.base.Storage`.
        order_seed: Seed of the grouping of classes into tasks, and of the order of
            tasks.
        data_seed: Seed of the split and of the choice of training samples.
        faults: Receives a message for each data set that is left out because it is
            invalid, for instance because a class has too few samples.

    Returns:
        The stream of all other data sets.

    Raises:
        DataError: No data set is left, or a glob or name matches none; the message
            names it.
        ValueError: An argument is out of range.
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
    stored = per_data_set(
        [data_set.name for data_set in data_sets],
        depth_scale,
        depth_invalid,
        transparency,
    )
    valid = []
    for data_set in data_sets:
        with faults.collecting():
            data_set.check()
            storage = stored[data_set.name]
            valid.append(dataclasses.replace(data_set, storage=storage))
    if not valid:
        faults.check()
    fraction = validation_fraction if evaluate_on == "validation" else None
    learnt, reserved = _apart(valid, globs(include), globs(exclude), globs(reserve))
    drafts, controls = [], []
    for data_set, names in reserved:
        with faults.collecting():
            parts = _scored(data_set, names, test_fraction, fraction, data_seed)
            test, every = [part[1] for part in parts], np.arange(len(names))
            controls += _tasks(data_set, names, test, test, every, len(names))
    for data_set, names in learnt:
        with faults.collecting():
            parts = _scored(data_set, names, test_fraction, fraction, data_seed)
            train = [
                _keep(part[0], max_train_per_class, data_seed, data_set.modality)
                for part in parts
            ]
            test = [part[1] for part in parts]
            total = sum(len(part[0]) for part in parts)
            if left_out := total - sum(map(len, train)):
                faults.unused.append(
                    f"{data_set.path} ({left_out} of {total} training samples, beyond "
                    "max_train_per_class: they are not looked at either)"
                )
            # By name, so that a data set is cut in the same way whatever else is
            # included.
            seeds = [order_seed, zlib.crc32(data_set.path.encode())]
            places = np.random.default_rng(seeds).permutation(len(names))
            drafts += _tasks(data_set, names, train, test, places, classes_per_task)
    if not drafts:
        faults.check()
    stream = build_stream(first(arrange(drafts, order, order_seed), first_tasks))
    return with_reserved(stream, controls)


def _scored(
    data_set: DataSet,
    names: Sequence[str],
    test_fraction: float,
    validation_fraction: float | None,
    seed: int,
) -> list[tuple[list[Reference], list[Reference]]]:
    """Returns the training samples of each class, and those that score."""
    parts = [_parts(data_set, name, test_fraction, seed) for name in names]
    if validation_fraction is None:
        return parts
    # Hashed with another seed than the test split, which has taken the smallest draws
    # of its own: else nothing of the same range would be left here.
    return [
        _split(part[0], validation_fraction, f"validation {seed}", data_set, name)
        for part, name in zip(parts, names, strict=True)
    ]


def _tasks(
    data_set: DataSet,
    names: Sequence[str],
    train: Sequence[list[Reference]],
    test: Sequence[list[Reference]],
    places: np.ndarray,
    classes_per_task: int,
) -> Iterator[TaskDraft]:
    """Yields the tasks of a data set whose classes are in the order of `places`."""
    for k, chosen in enumerate(_cut(places, classes_per_task)):
        yield TaskDraft(
            name=f"{data_set.path}/{k}",
            modality=data_set.modality.name,
            classes=tuple((names[int(i)], data_set.name) for i in chosen),
            train=tuple(train[i] for i in chosen),
            test=tuple(test[i] for i in chosen),
        )


def _cut(places: np.ndarray, size: int) -> list[np.ndarray]:
    cuts = list(range(size, len(places), size))
    if len(places) % size == 1 and len(cuts) > 0:
        cuts.pop()
    return np.split(places, cuts)


def by_class(source: str, found: Iterable[tuple[str, Source]]) -> dict[str, Source]:
    """Returns the samples of each class by its name in the Unicode form NFC.

    Args:
        source: Location of the data set, for messages.
        found: Names as they are stored, each with its samples.

    Raises:
        DataError: Two names are the same but for their Unicode form.
    """
    classes: dict[str, Source] = {}
    for name, samples in found:
        composed = unicodedata.normalize("NFC", name)
        if composed in classes:
            raise DataError(
                f"{source}: two classes are named {composed!r}, the same but for their "
                "Unicode form (NFC and NFD); merge them"
            )
        classes[composed] = samples
    return classes


def check_name(source: str, name: str) -> None:
    """Raises `DataError` for a name that no class may have."""
    shown = display_name(name)
    if not shown or len(shown) > _MAX_NAME:
        raise DataError(
            f"{source}: a class name of {len(shown)} characters, {name[:40]!r}; "
            f"expected 1 to {_MAX_NAME}, underscores and white space at its ends not "
            "counted"
        )
    if any(unicodedata.category(character) == "Cc" for character in shown):
        raise DataError(f"{source}: class {name!r} has a control character; rename it")


def _look(name: str) -> str:
    """Returns a form that names have in common which readers take for the same.

    Letters of another width are the same, and numbers of the same value, such as "01"
    and "1.0", which programs for tables make of "1".
    """
    shown = unicodedata.normalize("NFKC", display_name(name)).casefold()
    if number := _NUMBER.fullmatch(shown):
        return f"{number[1].lstrip('0') or '0'}.{(number[2] or '').rstrip('0')}"
    return shown


def _apart(
    data_sets: Sequence[DataSet],
    include: Sequence[str],
    exclude: Sequence[str],
    reserve: Sequence[str],
) -> tuple[list[tuple[DataSet, list[str]]], list[tuple[DataSet, list[str]]]]:
    """Returns the classes of each data set that are learnt, and those reserved."""
    chosen = _select(data_sets, include, exclude)
    if not reserve:
        return chosen, []
    reserved = _select(data_sets, reserve, exclude)
    away = {(data_set.path, name) for data_set, names in reserved for name in names}
    rest = [(d, [n for n in names if (d.path, n) not in away]) for d, names in chosen]
    rest = [(data_set, names) for data_set, names in rest if names]
    if not rest:
        raise DataError(f"reserve={list(reserve)} leaves no class to learn")
    return rest, reserved


def _select(
    data_sets: Sequence[DataSet], include: Sequence[str], exclude: Sequence[str]
) -> list[tuple[DataSet, list[str]]]:
    unused = {glob.removeprefix("!") for glob in exclude} | set(include)

    def found(glob: str, path: str, name: str) -> bool:
        hit = matches(glob, path, name)
        if hit:
            unused.discard(glob)
        return hit

    def taken(path: str, name: str) -> bool:
        included = [found(glob, path, name) for glob in include]
        removed = False
        for glob in exclude:
            if found(glob.removeprefix("!"), path, name):
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
        hint = "; write ? for a comma in a name" * ("," in near)
        raise DataError(f"pattern {glob!r} matches no class; nearest: {near!r}{hint}")
    chosen = [(data_set, names) for data_set, names in chosen if names]
    if not chosen:
        raise DataError(f"include={include} and exclude={exclude} leave no class")
    return chosen


def _draw(seed: int | str, reference: Reference, modality: Modality) -> float:
    # A sentence is hashed by its words, so that copies never end up on both sides of
    # the split; a file by its path, since its content may be unreadable.
    text = modality.tower == "text" and not isinstance(reference, FileReference)
    place = reference.identity() if text else reference.describe()
    digest = hashlib.sha256(f"{seed}\0{place}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def _parts(
    data_set: DataSet, name: str, fraction: float, seed: int
) -> tuple[list[Reference], list[Reference]]:
    train = data_set.samples("train", name)
    if "test" in data_set.parts:
        return train, data_set.samples("test", name)
    return _split(train, fraction, seed, data_set, name)


def _split(
    references: list[Reference],
    fraction: float,
    seed: int | str,
    data_set: DataSet,
    name: str,
) -> tuple[list[Reference], list[Reference]]:
    pairs = [(_draw(seed, r, data_set.modality), r) for r in references]
    # What cannot be read scores nothing: were it all that is split off, none were left
    # to score with once it is skipped.
    draws = {d for d, r in pairs if not isinstance(r, UnreadableReference)}
    if len(draws) < 2:
        draws = {draw for draw, _ in pairs}
    if len(draws) < 2:
        raise DataError(
            f"{data_set.source}: class {name!r} has only one training sample, "
            "and another is needed to score with; add samples"
        )
    # Moved so that at least one sample is on either side.
    limit = min(max(fraction, np.nextafter(min(draws), 2)), max(draws))
    split_off = {draw for draw in draws if draw < limit}
    rest = [r for draw, r in pairs if draw not in split_off]
    return rest, [r for draw, r in pairs if draw in split_off]


def _keep(
    references: list[Reference], limit: int | None, seed: int, modality: Modality
) -> list[Reference]:
    if limit is None or len(references) <= limit:
        return references
    # Hashed with another seed than the split, which has taken the smallest draws.
    draws = [_draw(~seed, reference, modality) for reference in references]
    chosen = np.argsort(draws, kind="stable")[:limit]
    return [references[i] for i in sorted(chosen)]
