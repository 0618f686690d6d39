"""What the sections of a page are made of, besides charts and tables."""

from typing import NamedTuple

from mmcl_jax.report.charts import Bars, Forest, Lines, Matrix, Points, Timeline
from mmcl_jax.report.tables import Cell, Table
from mmcl_jax.report.theme import Mark


class Card(NamedTuple):
    """One number that a reader looks for first."""

    title: str
    text: str
    note: str


class Cards(NamedTuple):
    """The first numbers of a page."""

    cards: tuple[Card, ...]


class Key(NamedTuple):
    """An entry of a legend."""

    name: str
    mark: Mark
    dashed: bool = False
    solid: bool = False


class Panels(NamedTuple):
    """Small figures side by side under one legend."""

    charts: tuple[Bars | Forest | Lines | Points, ...]
    legend: tuple[Key, ...]


class Switch(NamedTuple):
    """Matrices of which one is looked at.

    Attributes:
        name: of the control.
        matrices: by what is chosen; the first is shown at first.
    """

    name: str
    matrices: tuple[tuple[str, Matrix], ...]


class Square(NamedTuple):
    """A 2x2 table and what lies between its cells.

    Attributes:
        columns: titles.
        lines: titles.
        cells: the four numbers, line by line, with their levels on the ramp.
        across: what a step to the right costs, in each line.
        down: what a step down costs, in each column.
        gap: from the first cell to the last.
    """

    columns: tuple[str, str]
    lines: tuple[str, str]
    cells: tuple[tuple[Cell, int | None], ...]
    across: tuple[Cell, Cell]
    down: tuple[Cell, Cell]
    gap: Cell


class Example(NamedTuple):
    """One sample.

    Attributes:
        kind: "picture", "sound", "sentence", or "nothing" where it cannot be shown.
        content: a data URI, a sentence, or why there is nothing.
        name: of the sample.
    """

    kind: str
    content: str
    name: str


class ClassSamples(NamedTuple):
    """A class and some of its samples.

    Attributes:
        label: its name.
        modality: of its samples.
        colour: of that, a name of `theme.COLOURS`.
        note: what is said of it.
        examples: of its samples.
    """

    label: str
    modality: str
    colour: str
    note: str
    examples: tuple[Example, ...]


class Confusion(NamedTuple):
    """A class that was taken for another one.

    Attributes:
        label: its name.
        modality: of its samples.
        colour: of that, a name of `theme.COLOURS`.
        chosen: name of the other one.
        chosen_modality: of the other's samples.
        chosen_colour: of that.
        times: how often.
        samples: test samples of the class.
        examples: of those that were mistaken.
    """

    label: str
    modality: str
    colour: str
    chosen: str
    chosen_modality: str
    chosen_colour: str
    times: int
    samples: int
    examples: tuple[Example, ...]


class Mistakes(NamedTuple):
    """Pairs of classes that are taken for each other, with samples."""

    pairs: tuple[Confusion, ...]


class Samples(NamedTuple):
    """Classes with some of their samples."""

    classes: tuple[ClassSamples, ...]


class Facts(NamedTuple):
    """Names and values, folded away if there are many."""

    title: str
    facts: tuple[tuple[str, str], ...]
    folded: bool = False


class Remarks(NamedTuple):
    """Lines that a reader should not miss."""

    lines: tuple[str, ...]


class Text(NamedTuple):
    """A paragraph."""

    text: str


Block = (
    Cards
    | Facts
    | Matrix
    | Mistakes
    | Panels
    | Remarks
    | Samples
    | Square
    | Switch
    | Table
    | Text
    | Timeline
)


class Section(NamedTuple):
    """A part of a page.

    Attributes:
        name: its anchor.
        title: its heading.
        about: a sentence or two on how to read it.
        blocks: what it shows.
        absent: why it shows nothing; "": it does.
    """

    name: str
    title: str
    about: str
    blocks: tuple[Block, ...] = ()
    absent: str = ""
