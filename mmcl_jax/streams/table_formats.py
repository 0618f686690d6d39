"""The forms of tables: rows of CSV, JSON Lines and Parquet, each with its line.

A row is a dict, or a text that says what is wrong with it. `keys` receives the names of
columns once they are known, checks them and returns them as they are compared; those
that are not read become empty.
"""

import codecs
import csv
import json
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from mmcl_jax.errors import DataError
from mmcl_jax.streams import features

Found = tuple[int, dict[str, Any] | str]
Keys = Callable[..., list[str]]
_MAX_LINE = 16 * 2**20
_BATCH = 1024  # rows of Parquet in memory at once
_MAX_GROUP = 2**30  # bytes of a row group of a table
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


class _Lines:
    """The lines of a UTF-8 file, as an iterator.

    Attributes:
        faults: What is wrong with lines, by their number; such a line is yielded with
            replacement characters.
    """

    def __init__(self, path: pathlib.Path) -> None:
        self.faults: dict[int, str] = {}
        self._path = path
        self._lines = self._read()

    def __iter__(self) -> Iterator[str]:
        return self._lines

    def _read(self) -> Iterator[str]:
        with open(self._path, "rb") as file:
            number = 0
            while line := file.readline(_MAX_LINE + 1):
                number += 1
                yield self._decoded(number, line)

    def _decoded(self, number: int, line: bytes) -> str:
        if len(line) > _MAX_LINE:
            raise DataError(
                f"{self._path}:{number}: a line of more than {_MAX_LINE} bytes; cut it"
            )
        if number == 1:
            if line.startswith(_UTF16):
                raise DataError(f"{self._path}: encoded as UTF-16; save it as UTF-8")
            line = line.removeprefix(codecs.BOM_UTF8)
        body = line.removesuffix(b"\n").removesuffix(b"\r")
        try:
            text = line.decode()
        except UnicodeDecodeError as error:
            self.faults[number] = (
                f"byte {line[error.start]:#04x} at place {error.start + 1} of line "
                f"{number} is not UTF-8; save the file as UTF-8"
            )
            text = line.decode(errors="replace")
        if b"\0" in body:
            self.faults[number] = (
                f"a NUL byte in line {number}, which no text has; remove it, or save "
                "the file as UTF-8"
            )
            text = text.replace("\0", "\N{REPLACEMENT CHARACTER}")
        if b"\r" in body:
            self.faults[number] = (
                f"a carriage return without line feed in line {number}; end lines with "
                "a line feed, and remove it elsewhere"
            )
            text = text.replace("\r\n", "\n").replace("\r", " ")
        return text

    def fault(self, first: int, last: int) -> str | None:
        """Returns the first fault in a range of lines, or None."""
        found = (self.faults.pop(line, None) for line in range(first, last + 1))
        return next((fault for fault in found if fault), None) if self.faults else None


def csv_rows(path: pathlib.Path, keys: Keys) -> Iterator[Found]:
    """Yields the rows of a CSV file with a header; empty lines are skipped.

    Raises:
        DataError: The first line is faulty.
    """
    lines = _Lines(path)
    reader = csv.reader(lines, strict=True)
    try:
        names = next(reader, [])
    except csv.Error as error:
        raise DataError(f"{path}:1: {_quoting(error, 1, reader.line_num)}") from error
    if fault := lines.fault(1, reader.line_num):
        raise DataError(f"{path}:1: {fault}")
    columns = keys(names)
    while True:
        first = reader.line_num + 1
        try:
            row = next(reader, None)
        except csv.Error as error:
            fault = lines.fault(first, reader.line_num)
            yield first, fault or _quoting(error, first, reader.line_num)
            continue
        if row is None:
            return
        if fault := lines.fault(first, reader.line_num):
            yield first, fault
        elif not any(row) and len(row) < 2:
            continue
        elif len(row) != len(columns):
            yield first, _counts(row, len(columns), first, reader.line_num)
        elif any(value[:1].isspace() and value.lstrip()[:1] == '"' for value in row):
            yield (
                first,
                "white space before a quote, which then is part of the value; remove "
                "the white space",
            )
        else:
            yield first, dict(zip(columns, row, strict=True))


def _counts(row: Sequence[str], expected: int, first: int, last: int) -> str:
    ends = f" to {last}; a quote may not be closed there" if last > first else ""
    remedy = (
        "quote a value that contains a comma"
        if len(row) > expected
        else "separate values by commas, and write each of them, even if it is empty"
    )
    return (
        f"expected {expected} fields in line {first}, found {len(row)}"
        f"{f' in lines {first}{ends}' if ends else ''}; {remedy}"
    )


def _quoting(error: csv.Error, first: int, last: int) -> str:
    if "field larger" in str(error):
        what = "a value longer than the limit of 131072 characters"
        return f"{what}; cut it, or close the quote that begins in line {first}"
    if "unexpected end" in str(error):
        return f"a quote in the row that begins in line {first} is never closed"
    return (
        f"a quoted value of the row that begins in line {first} goes on after its "
        f"closing quote in line {last}; close the quote earlier, or write a quote "
        "inside of a value twice"
    )


def jsonl_rows(path: pathlib.Path, keys: Keys) -> Iterator[Found]:
    """Yields the rows of a file with one JSON object a line; empty lines are skipped.

    Raises:
        DataError: A line is too long.
    """
    lines = _Lines(path)
    columns: dict[tuple[str, ...], list[str]] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        if fault := lines.fault(number, number):
            yield number, fault
            continue
        try:
            pairs = json.loads(line, object_pairs_hook=_Pairs)
        except (ValueError, RecursionError) as error:
            yield number, f"no JSON ({error}); write one object a line"
            continue
        if not isinstance(pairs, _Pairs):
            what = "an array" if isinstance(pairs, list) else type(pairs).__name__
            yield number, f"{what}; expected one JSON object a line"
            continue
        names = tuple(name for name, _ in pairs)
        try:
            if names not in columns:
                columns[names] = keys(names, number)
        except DataError as error:
            yield number, str(error).removeprefix(f"{path}:{number}: ")
            continue
        values = [value for _, value in pairs]
        yield number, dict(zip(columns[names], values, strict=True))


class _Pairs(list):
    """The keys and values of a JSON object; a dict would hide a key that is doubled."""


def parquet_rows(path: pathlib.Path, keys: Keys) -> Iterator[Found]:
    """Yields the rows of a Parquet file.

    Raises:
        DataError: A column holds no text, or a row group is too large.
    """
    import pyarrow.parquet as pq  # takes a while, and is rarely needed

    with pq.ParquetFile(path) as file:
        schema = file.schema_arrow
        columns = dict(zip(schema.names, keys(schema.names, None), strict=True))
        for group in range(file.metadata.num_row_groups):
            size = file.metadata.row_group(group).total_byte_size
            if size > _MAX_GROUP:
                raise DataError(
                    f"{path}: row group {group} takes {size} bytes, more than the "
                    f"limit of {_MAX_GROUP}; write it in smaller groups"
                )
        read = [name for name, key in columns.items() if key]
        classes = features.class_names(schema, path)
        batches = file.iter_batches(_BATCH, columns=read)
        rows = (row for batch in batches for row in batch.to_pylist())
        for number, row in enumerate(rows, 1):
            named = {n: _named(value, classes.get(n)) for n, value in row.items()}
            yield number, {columns[name]: value for name, value in named.items()}


def _named(value: Any, names: Sequence[str] | None) -> Any:
    """Returns the name that an index stands for; None for an index of no name."""
    if not names or not isinstance(value, int):
        return value
    return names[value] if 0 <= value < len(names) else None
