"""What a person and a program see of a run: progress, lines, tables, JSONL.

Only process 0 writes.
"""

import contextlib
import json
import logging
import pathlib
from collections.abc import Iterator
from typing import Any, TextIO

import jax
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from mmcl_jax.files import write_text

logger = logging.getLogger("mmcl_jax")


def is_writer() -> bool:
    """Returns whether this process writes files and speaks on the console."""
    return jax.process_index() == 0


class Writer:
    """The console, `log.txt` and `metrics.jsonl` of one run."""

    def __init__(self, workdir: pathlib.Path, console: Console | None = None) -> None:
        """Opens the files of `workdir`, appending to them."""
        self.console = console or Console(quiet=not is_writer())
        self._metrics: TextIO | None = None
        self._handler: logging.Handler | None = None
        if is_writer():
            self._metrics = (workdir / "metrics.jsonl").open("a")
            self._handler = logging.FileHandler(workdir / "log.txt")
            self._handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
            logger.addHandler(self._handler)
            logger.setLevel(logging.INFO)
            logger.propagate = False

    def say(self, message: str) -> None:
        """Writes one line to the console and to `log.txt`."""
        self.console.print(message, markup=False, highlight=False, soft_wrap=True)
        logger.info(message)

    def scalars(self, **values: Any) -> None:
        """Writes one line of `metrics.jsonl`."""
        if self._metrics:
            self._metrics.write(json.dumps(values) + "\n")
            self._metrics.flush()

    def take_back(self, stage: int, step: int) -> None:
        """Leaves out of `metrics.jsonl` what lies behind a step of a stage.

        A run that goes on from there writes it once more.
        """
        if not self._metrics:
            return
        path, kept = pathlib.Path(self._metrics.name), []
        self._metrics.close()
        for line in path.read_text().splitlines():
            try:
                values = json.loads(line)
            except ValueError:  # cut off when the run ended
                continue
            if (values["stage"], values["step"]) <= (stage, step):
                kept.append(line + "\n")
        write_text(path, "".join(kept))
        self._metrics = path.open("a")

    def table(self, table: Table) -> None:
        """Shows a table on the console."""
        self.console.print(table)

    @contextlib.contextmanager
    def progress(self, description: str, total: int) -> Iterator["Bar"]:
        """Shows a bar with rate and time left while the block runs."""
        with progress_bar(self.console) as bars:
            yield Bar(bars, description, total)

    def close(self) -> None:
        """Closes the files."""
        if self._metrics:
            self._metrics.close()
        if self._handler:
            logger.removeHandler(self._handler)
            self._handler.close()


class Bar:
    """One line of progress."""

    def __init__(self, bars: Progress, description: str, total: int) -> None:
        """Adds the line to `bars`."""
        self._bars = bars
        self._task = bars.add_task(description, total=total)

    def advance(self, description: str | None = None, steps: int = 1) -> None:
        """Moves on, and renames the line if a description is given."""
        self._bars.update(self._task, advance=steps, description=description)


class RateColumn(ProgressColumn):
    """Steps a second."""

    def render(self, task: Task) -> Text:
        """Returns the rate, or a dash before the first step."""
        return Text(f"{task.speed:.1f}/s" if task.speed else "-/s")


def progress_bar(console: Console) -> Progress:
    """Returns a progress display; without a terminal it prints nothing."""
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        RateColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
        transient=True,
    )


SHORT_NAMES = {
    "last_average_accuracy": "last average",
    "forgetting_chaudhry": "forgetting",
    "excess_forgetting": "of it, excess",
}


def results_table(results: dict[str, Any]) -> Table:
    """Returns the table of a run: a row a task, then the summary over the stream.

    Columns: among the task's own classes, just learnt and at the end; among all classes
    at the end, with the modality given and predicted.
    """
    table = Table(title=f"{results['method']}: accuracy in percent")
    for title in ("task", "modality"):
        table.add_column(title, no_wrap=True)
    table.add_column("n", justify="right")
    columns = [
        ("own\nlearnt", "task", "given", "diagonal"),
        ("own\nend", "task", "given", "last"),
        ("all\ngiven", "union", "given", "last"),
        ("all\npredicted", "union", "predicted", "last"),
    ]
    for title, *_ in columns:
        table.add_column(title, justify="right")
    for j, task in enumerate(results["tasks"]):
        cells = []
        for _, space, route, which in columns:
            matrix = results["accuracy"][space][route]
            cells.append(_percent(matrix[j if which == "diagonal" else -1][j]))
        # the name of a folder is not to be taken for markup
        name, count = Text(task["name"]), str(len(task["classes"]))
        table.add_row(name, task["modality"], count, *cells)
    table.add_section()
    for name in SHORT_NAMES:
        cells = [
            _percent(results["metrics"][space][route][name])
            for _, space, route, which in columns
            if which == "last"
        ]
        table.add_row(SHORT_NAMES[name], "", "", "", *cells)
    return table


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"
