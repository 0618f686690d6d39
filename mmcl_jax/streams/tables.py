"""Tables of sentences."""

import csv
import pathlib

from mmcl_jax.modalities.base import (
    DataError,
    Reference,
    TextReference,
    check_bytes,
    reading,
)

EXPECTED = "a UTF-8 CSV table with the columns `text` and `label`"
# A row takes a few hundred bytes of memory, and a column eight, however short it is.
_MAX_ROWS = 4_000_000
_MAX_BYTES = 512 * 2**20
# characters of a first line
_SHOWN = 200


def read_table(path: pathlib.Path, root: pathlib.Path) -> dict[str, list[Reference]]:
    """Reads a CSV file with the columns `text` and `label`; others are ignored.

    Args:
        path: of the table.
        root: folder that descriptions of the rows are relative to.

    Returns:
        The rows of each label, in the order of the table.

    Raises:
        DataError: not such a table, a row without text or label, or more than four
            million rows or 512 MiB.
    """
    table: dict[str, list[Reference]] = {}
    name = path.relative_to(root).as_posix()
    with (
        reading(str(path), EXPECTED),
        open(path, encoding="utf-8-sig", newline="") as file,
    ):
        check_bytes(path, _MAX_BYTES)
        reader = csv.DictReader(file, strict=True)
        missing = {"text", "label"} - set(reader.fieldnames or ())
        if missing:
            raise DataError(
                f"{path}: no column {' and '.join(sorted(missing))} in its first line "
                f"{str(reader.fieldnames)[:_SHOWN]}; expected {EXPECTED}"
            )
        line = reader.line_num + 1
        for count, row in enumerate(reader, 1):
            if count > _MAX_ROWS:
                raise DataError(f"{path}: more than {_MAX_ROWS} rows; cut it")
            text, label = ((row[key] or "").strip() for key in ("text", "label"))
            if not text or not label:
                raise DataError(
                    f"{path}:{line}: empty text or label; expected {EXPECTED}"
                )
            table.setdefault(label, []).append(TextReference(text, name, line))
            line = reader.line_num + 1
    if not table:
        raise DataError(f"{path}: no row below its first line; expected {EXPECTED}")
    return table
