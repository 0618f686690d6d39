"""Puts sections together: one page, or a folder with figures and tables as well."""

import functools
import pathlib
from collections.abc import Sequence

import jinja2

from mmcl_jax.files import write_text
from mmcl_jax.plain_text import to_csv
from mmcl_jax.report import (
    accuracy,
    across,
    changes,
    curves,
    differences,
    embedding_plots,
    figures,
    learning,
    merging,
    mistakes,
    modality_cost,
    prompts,
    provenance,
    ranking,
    tables,
    theme,
    timeline,
    unknown,
)
from mmcl_jax.report.blocks import Cards, Panels, Remarks, Section, Switch
from mmcl_jax.report.charts import Chart, Matrix, Timeline, shown
from mmcl_jax.report.run_data import RunData, flat, group
from mmcl_jax.report.tables import Table
from mmcl_jax.workdir.layout import REPORT

# limit for the numbers in all matrices of a page; a stream of 40 tasks has 12,800
_CELLS = 16_000
_ONE_AT_A_TIME = "only a page of a single run has it"


def sections(runs: Sequence[RunData]) -> tuple[Section, ...]:
    """Returns the sections of a page of one run, or of several in comparison."""
    groups = group(list(runs))
    several = len(runs) > 1
    if several:
        first = (
            accuracy.comparison(groups),
            ranking.ranks(groups),
            differences.differences(groups),
            ranking.costs(groups),
        )
        last = (accuracy.stream(groups),)
        inner = [
            Section(name, title, "", absent=_ONE_AT_A_TIME)
            for name, title in (
                ("accuracy", "Accuracy matrices"),
                ("across", across.TITLE),
                ("changes", changes.TITLE),
                ("relevance", "Relevance over time"),
                ("drift", "Prompt drift"),
                ("embeddings", "Embeddings"),
                ("mistakes", "Most confused classes"),
                ("unknown", unknown.UNKNOWN),
                ("controls", unknown.CONTROLS),
            )
        ]
        matrices, *details = inner
    else:
        (run,) = runs
        first, last = (accuracy.stream(groups),), ()
        matrices = accuracy.matrices(run)
        details = [
            section(run)
            for section in (
                timeline.timeline,
                across.across,
                changes.changes,
                prompts.relevance,
                prompts.drift,
                embedding_plots.embeddings,
                mistakes.mistakes,
                unknown.unknown,
                unknown.controls,
            )
        ]
    return (
        *first,
        matrices,
        curves.curves(groups),
        learning.learning(groups),
        modality_cost.knowing(groups),
        modality_cost.identification(groups),
        *details,
        *last,
        provenance.cost(groups),
        provenance.setup(groups),
        provenance.remarks(groups),
    )


def render(runs: Sequence[RunData], parts: Sequence[Section]) -> str:
    """Returns the page: HTML with styles, pictures and script embedded."""
    first = runs[0]
    cards = accuracy.cards(first) if len(runs) == 1 else Cards(())
    learnt, stages = len(first.rows), len(first.stream.stages)
    if len(runs) > 1:
        names = list(group(list(runs)))
        title = f"{len(runs)} runs of {', '.join(names[:3])}"
        title += " and more" if len(names) > 3 else ""
        state, subtitle = "", _about(runs)
    else:
        title = f"{first.method} on {_stream(first)}"
        state = "finished" if first.finished else f"{learnt} of {stages} stages learnt"
        subtitle = f"{accuracy.describe(first)}; {_about(runs)}"
    return to_html("report", title, _bounded(_merged(parts)), cards, state, subtitle)


def _about(runs: Sequence[RunData]) -> str:
    """Returns what is said below the title: streams, encoders and dates, each once."""
    streams, encoders, orders = (
        ", ".join(dict.fromkeys(shown(of(run), 40) for run in runs))
        for of in (_stream, _encoder, lambda run: run.config["stream"]["order"])
    )
    parts = [f"order: {orders}", f"encoder: {encoders}"]
    if len(runs) > 1:
        parts.insert(0, f"stream: {streams}")
    if days := sorted(run.begun for run in runs if run.begun):
        parts.append("begun on " + " to ".join(dict.fromkeys((days[0], days[-1]))))
    return "; ".join(parts)


def _stream(run: RunData) -> str:
    """Returns the kind of a stream, and the name of the folder that it reads."""
    options = run.config["stream"]
    place = options.get("root") or options.get("path") or options.get("data_dir") or ""
    return f"{options['kind']} {pathlib.PurePath(str(place)).name}".strip()


def _encoder(run: RunData) -> str:
    path = str(flat(run.config).get("encoder.path", ""))
    return "built-in" if path == "builtin" else shown(path)


def to_html(
    kind: str,
    title: str,
    parts: Sequence[Section],
    cards: Cards,
    state: str = "",
    subtitle: str = "",
) -> str:
    """Returns a page: HTML with styles, pictures and script embedded.

    Args:
        kind: Kind of page: "report" of runs, or another word.
        title: Heading; a long one is truncated.
        parts: Sections.
        cards: First numbers.
        state: State, shown after the title.
        subtitle: Subtitle, shown below the title.
    """
    return _template().render(
        kind=kind,
        title=shown(title, 90),
        state=state,
        subtitle=subtitle,
        cards=cards.cards,
        sections=parts,
        warned=any(isinstance(b, Remarks) for s in parts for b in s.blocks),
        colours=theme.css(),
    )


def write(
    runs: Sequence[RunData], out: pathlib.Path, look: figures.Look = figures.DEFAULT
) -> list[pathlib.Path]:
    """Writes a page, and next to it figures and tables if `out` is a folder.

    Args:
        runs: Runs, at least one.
        out: An HTML file, or else a folder, created if missing.
        look: Width, font size and titles of the figures beside the page.

    Returns:
        The files written.
    """
    parts = sections(runs)
    if out.suffix.lower() in (".html", ".htm"):
        out.parent.mkdir(parents=True, exist_ok=True)
        write_text(out, render(runs, parts))
        return [out]
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / REPORT, render(runs, parts))
    written, kinds = [out / REPORT], (*figures.FORMATS, "csv")
    for chart in _charts(parts):
        figures.save(chart, out, look)
        write_text(out / f"{chart.name}.csv", to_csv(chart.rows()))
        written += [out / f"{chart.name}.{kind}" for kind in kinds]
    for table in (b for s in parts for b in s.blocks if isinstance(b, Table)):
        write_text(out / f"{table.name}.csv", tables.csv_of(table))
        write_text(out / f"{table.name}.tex", tables.latex_of(table))
        written += [out / f"{table.name}.{kind}" for kind in ("csv", "tex")]
    return written


def _charts(parts: Sequence[Section]) -> list[Chart]:
    found: list[Chart] = []
    for block in (block for section in parts for block in section.blocks):
        if isinstance(block, Panels):
            found += block.charts
        elif isinstance(block, Switch):
            found += [matrix for _, matrix in block.matrices]
        elif isinstance(block, (Matrix, Timeline)):
            found.append(block)
    return found


def _merged(parts: Sequence[Section]) -> list[Section]:
    """Returns sections in which no two panels of one metric look alike."""
    return [
        part._replace(
            blocks=tuple(
                merging.merged(block) if isinstance(block, Panels) else block
                for block in part.blocks
            )
        )
        for part in parts
    ]


def _bounded(parts: Sequence[Section]) -> list[Section]:
    """Returns sections without the matrices that exceed the limit of a page."""
    room, found = _CELLS, []
    for section in parts:
        blocks, left_out = [], []
        for block in section.blocks:
            if not isinstance(block, Switch):
                blocks.append(block)
                continue
            kept = []
            for name, matrix in block.matrices:
                size = len(matrix.rows_are) * len(matrix.columns_are)
                if size <= room:
                    kept.append((name, matrix))
                    room -= size
                else:
                    left_out.append(name)
            if kept:
                blocks.append(block._replace(matrices=tuple(kept)))
        about = section.about
        if left_out:
            about += (
                f" Left out to keep the page small: {'; '.join(left_out)}. "
                "--out=FOLDER writes all matrices as CSV files."
            )
        found.append(section._replace(blocks=tuple(blocks), about=about))
    return found


@functools.cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("mmcl_jax.report", "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["kind"] = lambda block: type(block).__name__
    environment.filters["drawn"] = figures.inline
    environment.filters["glyph"] = theme.GLYPHS.get
    return environment.get_template("page.html.j2")
