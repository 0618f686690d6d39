"""Tables: CSV files of sentences, or of the labels of files."""

import csv
import pathlib
from collections.abc import Collection, Iterator

from mmcl_jax.errors import DataError, check_bytes, reading
from mmcl_jax.modalities.base import Reference, TextReference

EXPECTED = "a UTF-8 CSV table with the columns `text` and `label`"
SUFFIXES = (".csv",)
# A small file can fill the memory: a row takes a few hundred bytes and a column eight,
# however short they are.
_MAX_ROWS = 4_000_000
_MAX_BYTES = 512 * 2**20
# Characters of a first line that a message shows.
_SHOWN = 200


def read_table(path: pathlib.Path, root: pathlib.Path) -> dict[str, list[Reference]]:
    """Reads a CSV file with the columns `text` and `label`; others are ignored.

    Args:
        path: Path of the table.
        root: Folder that descriptions of the rows are relative to.

    Returns:
        The rows of each label, in the order of the table.

    Raises:
        DataError: The file is not such a table, a row lacks text or label, or there are
            more than four million rows or 512 MiB.
    """
    table: dict[str, list[Reference]] = {}
    name = path.relative_to(root).as_posix()
    for line, row in read_rows(path, ("text", "label"), EXPECTED):
        text, label = row["text"], row["label"]
        table.setdefault(label, []).append(TextReference(text, name, line))
    if not table:
        raise DataError(f"{path}: no row below its first line; expected {EXPECTED}")
    return table


def read_rows(
    path: pathlib.Path, columns: Collection[str], expected: str
) -> Iterator[tuple[int, dict[str, str]]]:
    """Yields the line on which each row begins, counted from 1, and its values.

    Args:
        path: Path of the table.
        columns: Columns that are required, without empty values; others are optional.
        expected: Description of the expected table, for messages.

    Raises:
        DataError: The file is not such a table, a value is empty, or there are more
            than four million rows or 512 MiB.
    """
    with reading(str(path), expected):
        check_bytes(path, _MAX_BYTES)
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            missing = set(columns) - set(reader.fieldnames or ())
            if missing:
                raise DataError(
                    f"{path}: no column {' and '.join(sorted(missing))} in its first "
                    f"line {str(reader.fieldnames)[:_SHOWN]}; expected {expected}"
                )
            line = reader.line_num + 1
            for count, row in enumerate(reader, 1):
                if count > _MAX_ROWS:
                    raise DataError(f"{path}: more than {_MAX_ROWS} rows; cut it")
                values = {
                    key: (value or "").strip()
                    for key, value in row.items()
                    if isinstance(key, str) and not isinstance(value, list)
                }
                if not all(values[column] for column in columns):
                    raise DataError(
                        f"{path}:{line}: empty {' or '.join(columns)}; expected "
                        f"{expected}"
                    )
                yield line, values
                line = reader.line_num + 1
