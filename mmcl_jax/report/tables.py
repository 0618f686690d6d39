"""Tables: one description for a page, a CSV file and a paper."""

import math
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from mmcl_jax.analysis.statistics import Summary
from mmcl_jax.plain_text import to_csv

NONE = "–"
# Escaped by hand: no dependency of the project writes LaTeX, and libraries do not know
# signs of these tables such as ± and −.
_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "±": r"$\pm$",
    "−": r"$-$",
    "–": "--",
    "…": r"\ldots{}",
    "×": r"$\times$",
}
_SPECIAL = re.compile("|".join(map(re.escape, _LATEX)))


class Cell(NamedTuple):
    """A text, and the value for sorting and for CSV files."""

    text: str
    value: Any
    note: str = ""


class Table(NamedTuple):
    """A table with a header.

    Attributes:
        name: Name of its files.
        title: Title for people.
        head: Titles of the columns.
        body: Rows of cells.
        words: Number of columns, from the left, that hold words; others hold numbers.
    """

    name: str
    title: str
    head: tuple[str, ...]
    body: tuple[tuple[Cell, ...], ...]
    words: int = 1


def word(text: str) -> Cell:
    """Returns a cell of text."""
    return Cell(text, text)


def percent(value: float, signed: bool = False) -> Cell:
    """Returns a share in percent.

    >>> percent(0.1234).text, percent(float("nan")).text
    ('12.3', '–')
    """
    if math.isnan(value):
        return Cell(NONE, value)
    text = f"{100 * value:{'+' if signed else ''}.1f}"
    return Cell(_minus("0.0" if float(text) == 0 else text), value)


def number(value: float | None, digits: int = 0) -> Cell:
    """Returns a number with commas between thousands."""
    if value is None or math.isnan(value):
        return Cell(NONE, math.nan)
    return Cell(_minus(f"{value:,.{digits}f}"), value)


def summarized(summary: Summary, signed: bool = False) -> Cell:
    """Returns mean, deviation and interval over runs, all in percent."""
    mean = percent(summary.mean, signed)
    if math.isnan(summary.deviation):
        return mean
    low, high = (percent(end, signed).text for end in (summary.low, summary.high))
    text = f"{mean.text} ± {percent(summary.deviation).text}"
    return Cell(text, summary.mean, f"[{low}, {high}]")


def csv_of(table: Table) -> str:
    """Returns the values of a table as CSV."""
    return to_csv([table.head, *([cell.value for cell in row] for row in table.body)])


def latex_of(table: Table) -> str:
    """Returns the table as a LaTeX `table`, whose lines are of the package booktabs."""
    columns = "l" * table.words + "r" * (len(table.head) - table.words)
    lines = [
        "% needs \\usepackage{booktabs}",
        "\\begin{table}",
        "\\centering",
        f"\\caption{{{_escaped(table.title)}}}",
        f"\\label{{tab:{table.name}}}",
        f"\\begin{{tabular}}{{{columns}}}",
        "\\toprule",
        _latex_row(table.head),
        "\\midrule",
        *(_latex_row([_joined(cell) for cell in row]) for row in table.body),
        "\\bottomrule",
        "\\end{tabular}",
        "\\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _joined(cell: Cell) -> str:
    return f"{cell.text} {cell.note}".strip()


def _latex_row(texts: Sequence[str]) -> str:
    return " & ".join(map(_escaped, texts)) + r" \\"


def _escaped(text: str) -> str:
    r"""Returns text with LaTeX's special characters escaped.

    >>> print(_escaped("50 % of_{x}"))
    50 \% of\_\{x\}
    """
    line = " ".join(text.split())
    # one pass, so that what an escape consists of is not escaped again
    escaped = _SPECIAL.sub(lambda found: _LATEX[found[0]], line)
    # a bracket at the start of a row would be taken for an option of the row before
    return (
        f"{{{escaped[0]}}}{escaped[1:]}" if escaped.startswith(("[", "*")) else escaped
    )


def _minus(text: str) -> str:
    return text.replace("-", "−")
