"""Parts of the sections of a page, besides charts and tables."""

from typing import NamedTuple

from mmcl_jax.report.charts import Matrix, Panel, Timeline
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

    charts: tuple[Panel, ...]
    legend: tuple[Key, ...]


class Switch(NamedTuple):
    """Matrices of which the reader chooses one.

    Attributes:
        name: Name of the control.
        matrices: Matrices by the label of their choice; the first is shown initially.
    """

    name: str
    matrices: tuple[tuple[str, Matrix], ...]


class Square(NamedTuple):
    """A 2x2 table and the differences between its cells.

    Attributes:
        columns: Titles of the columns.
        lines: Titles of the lines.
        cells: The four numbers, line by line, with their levels on the ramp.
        across: Cost of a step to the right, in each line.
        down: Cost of a step down, in each column.
        gap: Difference from the first cell to the last.
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
        kind: "picture", "sound", "sentence", or "nothing" if it cannot be shown.
        content: A data URI, a sentence, or the reason for "nothing".
        name: Name of the sample.
    """

    kind: str
    content: str
    name: str


class ClassSamples(NamedTuple):
    """A class and some of its samples.

    Attributes:
        label: Name of the class.
        modality: Modality of its samples.
        colour: Colour of the modality, a name of `theme.COLOURS`.
        note: Note on the class.
        examples: Some of its samples.
    """

    label: str
    modality: str
    colour: str
    note: str
    examples: tuple[Example, ...]


class Confusion(NamedTuple):
    """A class that was predicted as another one.

    Attributes:
        label: Name of the class.
        modality: Modality of its samples.
        colour: Colour of the modality, a name of `theme.COLOURS`.
        chosen: Name of the predicted class.
        chosen_modality: Modality of the predicted class.
        chosen_colour: Colour of that modality.
        times: Number of samples with this mistake.
        samples: Number of test samples of the class.
        examples: Some of the misclassified samples.
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
    """Pairs of classes that are confused, with samples."""

    pairs: tuple[Confusion, ...]


class Samples(NamedTuple):
    """Classes with some of their samples."""

    classes: tuple[ClassSamples, ...]


class Facts(NamedTuple):
    """Names and values, collapsed if `folded`."""

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
        name: Anchor of the section.
        title: Heading.
        about: A sentence or two on how to read the section.
        blocks: Content.
        absent: Why there is no content; "" if there is.
    """

    name: str
    title: str
    about: str
    blocks: tuple[Block, ...] = ()
    absent: str = ""
