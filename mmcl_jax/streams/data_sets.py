"""Data sets: samples by class, and the choice of classes.

`folders`, `manifest`, `parquet` and `tfds` read them, `tasks` makes a stream of them.
"""

import dataclasses
import difflib
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from mmcl_jax.errors import DataError
from mmcl_jax.modalities.base import (
    Modality,
    Reference,
    Storage,
)
from mmcl_jax.streams.base import (
    display_name,
)
from mmcl_jax.streams.class_globs import matches
from mmcl_jax.streams.storage import merged

PARTS = ("train", "test")
# Classes that a message names, if several are wrong in the same way.
_NAMED = 10
_NUMBER = re.compile(r"(\d+)(?:\.(\d*))?", re.ASCII)
_MAX_NAME = 255  # of a class; longer ones are sentences, as in a table of wrong columns

# The samples of a class, or a function that lists them on demand.
Source = list[Reference] | Callable[[], list[Reference]]


class Mark(NamedTuple):
    """The task that a table gives to a sample.

    Attributes:
        task: Name of the task.
        where: Table and line of the first sample of the task.
        number: Number of the task in the order in which the table has them.
    """

    task: str
    where: str
    number: int


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
        marks: Task of samples, by their descriptions; empty: none is given.
    """

    source: str
    path: str
    modality: Modality
    parts: Mapping[str, Mapping[str, Source]]
    storage: Storage = Storage()
    marks: Mapping[str, Mark] = dataclasses.field(default_factory=dict)

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


def select(
    data_sets: Sequence[DataSet], include: Sequence[str], exclude: Sequence[str]
) -> list[tuple[DataSet, list[str]]]:
    """Returns data sets with the classes that globs choose, sorted; see `tasks.build`.

    Raises:
        DataError: A glob matches no class, or no class is left.
    """
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
