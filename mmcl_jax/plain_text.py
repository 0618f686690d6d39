"""Text of unknown origin, made harmless for terminals, logs and spreadsheets.

Names of classes, data sets and files come from data, and may hold anything.
"""

import csv
import io
import math
from collections.abc import Iterable
from typing import Any

# Spreadsheets take a cell that begins so for a formula, and run it.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def printable(text: str) -> str:
    r"""Returns text that is harmless in a terminal: control characters are escaped.

    So are marks that turn the direction of writing.

    >>> printable("a\x1b[2Jb")
    'a\\x1b[2Jb'
    """
    return "".join(
        c
        if c.isprintable()
        else c.encode("unicode_escape", "backslashreplace").decode()
        for c in text
    )


def to_csv(rows: Iterable[Iterable[Any]]) -> str:
    """Returns a table as CSV that a spreadsheet can open safely.

    NaN and None are empty. A text that a spreadsheet would take for a formula begins
    with an apostrophe; numbers stay as they are.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for row in rows:
        writer.writerow([_cell(value) for value in row])
    return text.getvalue()


def _cell(value: Any) -> Any:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, str):
        value = printable(value)
        return f"'{value}" if value.startswith(_FORMULA) else value
    return value
