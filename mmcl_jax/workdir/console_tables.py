"""Tables of numbers for a terminal, however narrow it is."""

from collections.abc import Iterable

from rich import box
from rich.table import Table
from rich.text import Text

from mmcl_jax.plain_text import printable


def console_table(
    title: str, words: Iterable[str], numbers: Iterable[str], caption: str | None = None
) -> Table:
    """Returns a table without rows: columns of words, then columns of numbers.

    Where space is scarce, words go on in another line, and no number is ever cut.

    Args:
        title: Title above the table.
        words: Headings of columns of words, see `name_cell`.
        numbers: Headings of columns of numbers.
        caption: What stands below the table.
    """
    table = Table(
        title=title,
        caption=caption and f"\n{caption}",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        collapse_padding=True,
        pad_edge=False,
        show_edge=False,
    )
    for heading in words:
        table.add_column(heading, overflow="fold")
    for heading in numbers:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def name_cell(text: str) -> Text:
    """Returns a cell with a name from data: `Text`, since brackets are not markup."""
    return Text(printable(text))
