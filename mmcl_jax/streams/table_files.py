"""Tables: of sentences, or of the labels of files, as CSV, JSON Lines or Parquet.

Whatever the form, a table has named columns of text and is read strictly: a row that
is not exactly what the header announces is a fault, never guessed at.
"""

import difflib
import functools
import pathlib
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from mmcl_jax.errors import DataError, Faults, check_bytes, reading
from mmcl_jax.modalities.base import Reference, TextReference, UnreadableReference
from mmcl_jax.modalities.signatures import head_of, identify
from mmcl_jax.streams import data_sets, table_formats
from mmcl_jax.streams.base import visible

EXPECTED = (
    "a table with the columns `text` and `label`: UTF-8 CSV with commas, JSON Lines or "
    "Parquet"
)
# A small file can fill the memory: a row takes a few hundred bytes and a column eight,
# however short they are.
_MAX_ROWS = 4_000_000
_MAX_BYTES = 512 * 2**20
_MAX_VALUE = 2**17  # characters; the limit of Python's reader of CSV
_MAX_FAULTS = 1000  # faulty rows, after which nothing more is read
_SIMILAR = 0.8  # ratio of difflib above which two names are taken for the same
# Names that other programs give to columns, without marks between words.
_MEANT = {
    "label": ("class", "classname", "category", "target", "intent"),
    "text": ("sentence", "utterance", "content"),
    "path": ("file", "filename", "filepath"),
    "split": ("subset", "partition"),
    "scale": ("depthscale",),
    "invalid": ("depthinvalid", "noreading", "nodata"),
}
_UNLIKE = ("valid",)  # looks like "invalid", and means another thing
_READERS: dict[str, Callable[..., Iterator[table_formats.Found]]] = {
    ".csv": table_formats.csv_rows,
    ".jsonl": table_formats.jsonl_rows,
    ".parquet": table_formats.parquet_rows,
}
SUFFIXES = tuple(_READERS)
# signatures that a table of each form may have; its reader refuses UTF-16 by itself
_FORMATS = {"csv": ("utf16",), "jsonl": ("utf16", "json"), "parquet": ("parquet",)}


class Column(NamedTuple):
    """A column of a table.

    Attributes:
        name: Name, in lower case. In tables, case and white space around it do not
            count.
        required: Whether a table must have it.
        blank: Whether a value of it may be empty; those of optional columns always may.
        numbers: Types of numbers that are taken as their text, in forms of tables that
            tell numbers from text.
        lines: Whether a value of it may have several lines with commas, as whole rows
            have that an open quote takes in.
    """

    name: str
    required: bool = True
    blank: bool = False
    numbers: tuple[type, ...] = ()
    lines: bool = False


LABEL = Column("label", numbers=(int,))
_COLUMNS = (Column("text", blank=True, lines=True), LABEL)


def read_table(
    path: pathlib.Path, root: pathlib.Path, faults: Faults
) -> dict[str, list[Reference]]:
    """Reads a table with the columns `text` and `label`; others are not used.

    Args:
        path: Path of the table.
        root: Folder that descriptions of the rows are relative to.
        faults: Receives the faulty rows, which are left out, and columns that are not
            used.

    Returns:
        The rows of each label, in the order of the table. A row without text is an
        `UnreadableReference`.

    Raises:
        DataError: The file is not such a table, no row is left, or there are more than
            four million rows or 512 MiB.
    """
    table: dict[str, list[Reference]] = {}
    name = path.relative_to(root).as_posix()
    known = len(faults.errors)
    for line, row in read_rows(path, _COLUMNS, EXPECTED, faults):
        label = row["label"]
        if label not in table:
            with faults.collecting():
                data_sets.check_name(f"{path}:{line}", label)
        reference: Reference = TextReference(row["text"], name, line)
        text = row["text"]
        # quick for most rows: what is hidden is not ASCII
        if not text or not (text.isascii() or visible(text)):
            fault = "a row without text; add some or remove the row"
            reference = UnreadableReference(f"{name}:{line}", fault)
        table.setdefault(label, []).append(reference)
    if not table:
        if len(faults.errors) > known:
            raise DataError(f"{path}: no row is left without the faulty ones")
        raise DataError(f"{path}: no row below its first line; expected {EXPECTED}")
    return table


def read_rows(
    path: pathlib.Path, columns: Sequence[Column], expected: str, faults: Faults
) -> Iterator[tuple[int, dict[str, str]]]:
    """Yields the line on which each row begins, counted from 1, and its values.

    White space at the ends of values is dropped; values of `label` are also brought
    into the form in which a reader sees them. Rows of Parquet are counted from 1.

    Args:
        path: Path of the table; its suffix, one of `SUFFIXES`, tells its form.
        columns: Columns that are read.
        expected: Description of the expected table, for messages.
        faults: Receives a message for each faulty row, which is not yielded, and the
            columns that are not used.

    Raises:
        DataError: The file is not such a table, or there are more than a thousand
            faulty rows, four million rows or 512 MiB.
    """
    with reading(str(path), expected):
        check_bytes(path, _MAX_BYTES)
        if path.suffix.lower() not in SUFFIXES:
            raise DataError(
                f"{path}: a table with the suffix {path.suffix!r}; expected one of "
                f"{', '.join(SUFFIXES)}: convert or rename it"
            )
        form = path.suffix.lower().removeprefix(".")
        found = identify(head_of(str(path)))
        if found and found.format not in _FORMATS[form]:
            raise DataError(f"{path}: {found.phrase}; expected {expected}")
        header = _Header(path, columns, expected)
        faulty = 0
        rows = _READERS[path.suffix.lower()](path, header.keys)
        for number, (line, found) in enumerate(rows, 1):
            if number > _MAX_ROWS:
                raise DataError(f"{path}: more than {_MAX_ROWS} rows; cut it")
            try:
                yield line, _values(found, columns)
            except _Fault as fault:
                faulty += 1
                faults.errors.append(f"{path}:{line}: {fault}")
                if faulty == _MAX_FAULTS:
                    raise DataError(
                        f"{path}: {faulty} faulty rows; the rest is not read"
                    ) from fault
        if header.unused:
            names = ", ".join(map(repr, sorted(header.unused)))
            faults.unused.append(f"{path} (columns {names})")


@functools.lru_cache(maxsize=4096)
def _seen(text: str) -> str:
    return visible(text)


class _Fault(Exception):
    """What is wrong with a row."""


def _values(
    found: Mapping[str, Any] | str, columns: Sequence[Column]
) -> dict[str, str]:
    if isinstance(found, str):
        raise _Fault(found)
    values = {each.name: _text(each, found.get(each.name)) for each in columns}
    if values.get("label"):
        values["label"] = _seen(values["label"])
    required = [each.name for each in columns if each.required]
    if all(values[name].casefold() == name for name in required):
        raise _Fault("the first line of the table again; remove it")
    filled = [each.name for each in columns if each.required and not each.blank]
    if empty := [name for name in filled if not values[name]]:
        raise _Fault(f"empty {' and '.join(empty)}; fill in or remove the row")
    return values


def _text(column: Column, value: object) -> str:
    """Returns a value as text; raises `_Fault` for one of another type."""
    if value is None:
        return ""
    # a bool is an int for Python
    if isinstance(value, column.numbers) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        wanted = " or ".join(["text", *(kind.__name__ for kind in column.numbers)])
        raise _Fault(
            f"{column.name} is {str(value)[:40]}, of type {type(value).__name__}; "
            f"expected {wanted}"
        )
    if len(value) > _MAX_VALUE:
        raise _Fault(f"{column.name} has {len(value)} characters; cut it")
    if "\0" in value or not _is_unicode(value):
        raise _Fault(
            f"{column.name} has a NUL or half of a surrogate pair, which no text has; "
            "remove it"
        )
    value = value.strip()
    if "\n" in value and "," in value and not column.lines:
        raise _Fault(
            f"{column.name} has several lines and a comma; close the quote that is open"
        )
    return value


def _is_unicode(text: str) -> bool:
    return text.isascii() or text.encode(errors="ignore").decode() == text


class _Header:
    """The names of columns, matched with those that are read.

    Attributes:
        unused: Columns that are not read.
    """

    def __init__(
        self, path: pathlib.Path, columns: Sequence[Column], expected: str
    ) -> None:
        self.unused: set[str] = set()
        self._path = path
        self._required = [c.name for c in columns if c.required]
        self._known = [c.name for c in columns]
        self._expected = expected

    def keys(self, names: Sequence[str], line: int | None = 1) -> list[str]:
        """Returns the names as they are compared; empty for those that are not read.

        Raises:
            DataError: A name is there twice, missing or probably misspelt.
        """
        where = self._path if line is None else f"{self._path}:{line}"
        keys = [visible(name).casefold() for name in names]
        doubled = sorted({key for key in keys if key and keys.count(key) > 1})
        if doubled:
            raise DataError(
                f"{where}: columns {', '.join(map(repr, doubled))} stand there twice; "
                "rename or remove one"
            )
        absent = [name for name in self._known if name not in keys]
        unknown = [key for key in keys if key not in self._known]
        near = {name: key for name in absent for key in unknown if _meant(name, key)}
        missing = [name for name in self._required if name in absent]
        if near or missing:
            hint = "".join(f"; rename {k!r} to {n!r}" for n, k in near.items())
            fault = (
                f"no column {' and '.join(missing)}"
                if missing
                else f"unknown column {' and '.join(near.values())}"
            )
            shown = _shown(names) or "none"
            raise DataError(
                f"{where}: {fault} among {shown}{hint}"
                f"{_delimiter(names, self._required)}; expected {self._expected}"
            )
        self.unused.update(unknown[: _MAX_FAULTS - len(self.unused)])
        return [key if key in self._known else "" for key in keys]


def _shown(names: Sequence[str]) -> str:
    text = ", ".join(map(repr, names[:20]))
    return text if len(text) <= 200 else f"{text[:200]} ..."


def _meant(name: str, key: str) -> bool:
    """Returns whether a column was probably meant as that of the given name."""
    plain = re.sub(r"[\W_]", "", key)
    if plain == name or plain in _MEANT.get(name, ()):
        return True
    if plain in _UNLIKE:
        return False
    return bool(difflib.get_close_matches(plain, [name], n=1, cutoff=_SIMILAR))


def _delimiter(names: Sequence[str], required: Collection[str]) -> str:
    """Returns the advice for a first line with another delimiter than a comma."""
    if names and visible(names[0]).casefold().startswith("sep="):
        return "; remove this line, which Excel adds, and save it with commas"
    for sign, called in ((";", "semicolons"), ("\t", "tabs"), ("|", "bars")):
        parts = [visible(part) for part in ",".join(names).split(sign)]
        parts = [part.strip("\"'").casefold() for part in parts]
        if len(parts) > 1 and set(required) & set(parts):
            return f"; its columns are separated by {called}, save it with commas"
    return ""
