"""The output of a run for people and programs: lines, tables, JSONL, loggers.

Only process 0 writes.
"""

import contextlib
import functools
import itertools
import json
import logging
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TextIO

import jax
from rich.console import Console
from rich.table import Table

from mmcl_jax.config import Config
from mmcl_jax.files import write_text
from mmcl_jax.plain_text import printable
from mmcl_jax.workdir import layout
from mmcl_jax.workdir.console_tables import console_table, name_cell
from mmcl_jax.workdir.progress import Bar
from mmcl_jax.workdir.tensorboard import TensorBoard
from mmcl_jax.workdir.weights_and_biases import WeightsAndBiases

logger = logging.getLogger("mmcl_jax")


def is_writer() -> bool:
    """Returns whether this process writes files and prints to the console."""
    return jax.process_index() == 0


class Logger(Protocol):
    """Receives scalars; whatever it raises, the run continues.

    A step is the number of training steps and of evaluated stages so far.
    """

    def start(self, step: int) -> None:
        """Announces that steps from this one on follow, some possibly again."""
        ...

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Receives some values; steps never fall between two calls of `start`."""
        ...

    def close(self) -> None:
        """Ends the log."""
        ...


def make_loggers(
    workdir: pathlib.Path, config: Config
) -> dict[str, Callable[[], Logger]]:
    """Returns functions that open the loggers of a run, by name."""
    found: dict[str, Callable[[], Logger]] = {
        "TensorBoard": functools.partial(TensorBoard, workdir / layout.TENSORBOARD)
    }
    if config.logging.wandb_project:
        found["Weights & Biases"] = functools.partial(WeightsAndBiases, workdir, config)
    return found


class Writer:
    """The console, `log.txt`, `metrics.jsonl` and the loggers of one run."""

    def __init__(self, workdir: pathlib.Path, console: Console | None = None) -> None:
        """Opens the files of `workdir`, appending to them."""
        self.console = console or Console(quiet=not is_writer())
        self._metrics: TextIO | None = None
        self._handler: logging.Handler | None = None
        self._loggers: dict[str, Logger] = {}
        self._starts: list[int] = []
        if is_writer():
            self._metrics = (workdir / layout.METRICS).open("a")
            self._handler = logging.FileHandler(workdir / layout.LOG)
            self._handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
            logger.addHandler(self._handler)
            logger.setLevel(logging.INFO)
            logger.propagate = False

    def tell(
        self, loggers: dict[str, Callable[[], Logger]], steps: Sequence[int]
    ) -> None:
        """Opens loggers.

        Args:
            loggers: Functions that open the loggers, by name.
            steps: Number of training steps of each stage.
        """
        # after the steps of a stage there is one for its scores
        self._starts = list(itertools.accumulate([n + 1 for n in steps], initial=0))
        if not is_writer():
            return
        for name, make in loggers.items():
            self._guarded(name, functools.partial(self._open, name, make))

    def _open(self, name: str, make: Callable[[], Logger]) -> None:
        self._loggers[name] = make()

    def _guarded(self, name: str, call: Callable[[], None]) -> None:
        """Calls a logger; one that fails is not called again."""
        try:
            call()
        except Exception as error:
            if failed := self._loggers.pop(name, None):
                with contextlib.suppress(Exception):
                    failed.close()
            reason = str(error).strip().splitlines() or [repr(error)]
            self.say(f"warning: {name} failed and is switched off: {reason[0]}")

    def _log(self, step: int, values: dict[str, float]) -> None:
        for name, told in list(self._loggers.items()):
            self._guarded(name, functools.partial(told.scalars, step, values))

    def say(self, message: str) -> None:
        """Writes one line to the console and to `log.txt`.

        Names from data in it can neither control a terminal nor forge another line.
        """
        message = printable(message)
        self.console.print(message, markup=False, highlight=False, soft_wrap=True)
        logger.info(message)

    def scalars(self, stage: int, step: int, **values: Any) -> None:
        """Writes one line of `metrics.jsonl`, and passes it to the loggers.

        Args:
            stage: Index of the stage, counted from 0.
            step: Step of the stage, counted from 1.
            **values: Values by name; None stands for a number that is not finite.
        """
        if self._metrics:
            line = {"stage": stage, "step": step} | values
            self._metrics.write(json.dumps(line) + "\n")
            self._metrics.flush()
        known = {f"train/{k}": v for k, v in values.items() if v is not None}
        if known and self._loggers:
            self._log(self._starts[stage] + step, known)

    def scores(self, stage: int, values: dict[str, float]) -> None:
        """Passes the scores of a stage, counted from 0, to the loggers."""
        if self._loggers:
            self._log(self._starts[stage + 1], values)

    def take_back(self, stage: int, step: int) -> None:
        """Drops from `metrics.jsonl` what comes after a step of a stage.

        A run that resumes there writes it again. The loggers are notified.
        """
        if not self._metrics:
            return
        path, kept = pathlib.Path(self._metrics.name), []
        self._metrics.close()
        for line in path.read_text().splitlines():
            try:
                values = json.loads(line)
                before = (values["stage"], values["step"]) <= (stage, step)
            except (KeyError, TypeError, ValueError):  # truncated when the run ended
                continue
            if before:
                kept.append(line + "\n")
        write_text(path, "".join(kept))
        self._metrics = path.open("a")
        if self._starts:
            first = self._starts[stage] + max(step, 0) + 1
            for name, told in list(self._loggers.items()):
                self._guarded(name, functools.partial(told.start, first))

    def table(self, table: Table) -> None:
        """Shows a table on the console."""
        self.console.print(table)

    def progress(self, description: str, total: float) -> Bar:
        """Returns a progress line over `total` samples, a context manager."""
        return Bar(self.console, description, total, self.say)

    def close(self) -> None:
        """Closes the files and the loggers."""
        for name in list(self._loggers):
            self._guarded(name, self._loggers.pop(name).close)
        if self._metrics:
            self._metrics.close()
        if self._handler:
            logger.removeHandler(self._handler)
            self._handler.close()


# the last rows of the table of a run, and the mean over tasks that each is
SHORT_NAMES = {
    "last_average_accuracy": "mean",
    "forgetting_chaudhry": "forgotten",
    "excess_forgetting": "excess",
}
_CAPTION = (
    "own: among the classes of the task, right after it was learnt and at the end. "
    "given, predicted: at the end, among the classes of the modality that is given or "
    "predicted. all: among all {classes} classes at the end, modality predicted; equal "
    "names count once. forgotten: best accuracy of a task minus that at the end, on "
    "average; excess: less what the frozen encoder loses as classes are added. "
    "chance: of a guess."
)


def results_table(results: dict[str, Any]) -> Table:
    """Returns the table of a run: one row per task, then means over the tasks.

    Columns: among the task's own classes, just learnt and at the end; at the end, among
    the classes of the given modality, of the predicted one, and of all.
    """
    tasks = results["tasks"]
    every = {name for task in tasks for name in task["classes"]}
    columns = [
        ("own\nlearnt", "task", "given", "diagonal"),
        ("own\nend", "task", "given", "last"),
        ("\ngiven", "routed", "given", "last"),
        ("\npredicted", "routed", "predicted", "last"),
        ("\nall", "union", "predicted", "last"),
    ]
    table = console_table(
        f"{results['method']}: accuracy in percent",
        ("task", "modality"),
        ("\nclasses", "own\nchance", *(title for title, *_ in columns)),
        _CAPTION.format(classes=len(every)),
    )
    for j, task in enumerate(tasks):
        cells = []
        for _, space, route, which in columns:
            matrix = results["accuracy"][space][route]
            cells.append(_percent(matrix[j if which == "diagonal" else -1][j]))
        modality, count = task["modality"], len(task["classes"])
        # the modality has a column of its own
        short = name_cell(task["name"].removeprefix(f"{modality}/"))
        table.add_row(short, modality, str(count), _percent(1 / count), *cells)
    table.add_section()
    for metric, short in SHORT_NAMES.items():
        cells = [
            _percent(results["metrics"][space][route][metric])
            for _, space, route, which in columns
            if which == "last"
        ]
        table.add_row(short, "", "", "", "", *cells)
    own, among = sum(1 / len(t["classes"]) for t in tasks) / len(tasks), 1 / len(every)
    chances = map(_percent, (own, among, among))
    table.add_row("chance", "", "", "", "", *chances)
    return table


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"
