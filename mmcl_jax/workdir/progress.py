"""Progress of a run: a live line on a terminal, plain lines elsewhere."""

import datetime
import time
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

from mmcl_jax.plain_text import printable

# time between two plain lines
_PLAIN_SECONDS = 60.0
# of work, before which a rate says little
_FIRST_SECONDS = 5.0


def samples_per_second(task: Task) -> str:
    """Returns the rate of the last seconds, or else since the line began.

    It is a dash before the first sample.
    """
    rate = task.speed or _mean_rate(task)
    return f"{rate:.0f} samples/s" if rate else "- samples/s"


def time_left(task: Task) -> str:
    """Returns hours, minutes and seconds, or dashes before a rate can be told.

    It follows from the mean rate since the line began: the samples of a stage differ in
    cost (reading, training, evaluation), and a mean over all of them is steadier than
    the rate of the last seconds. What is done once, compiling programs, is no part of
    the rate: what is to come of it is as much, for its share, as there was.
    """
    rate = _mean_rate(task)
    if task.finished:
        return "0:00:00"
    if not rate or task.total is None:
        return "-:--:--"
    seconds = (task.total - task.completed) / rate
    seconds += task.fields["once"] * (1 / task.fields["share"] - 1)
    return str(datetime.timedelta(seconds=round(seconds)))


def _mean_rate(task: Task) -> float:
    done = task.completed - task.fields["before"]
    seconds = (task.elapsed or 0.0) - task.fields["once"]
    return done / seconds if seconds > _FIRST_SECONDS else 0.0


def _fields(before: float) -> dict[str, Any]:
    """Returns what a line has besides what the library counts.

    Args:
        before: Number of samples that do not count for the rate.
    """
    return {"before": before, "last": "", "doing": "", "once": 0.0, "share": 1.0}


class _Column(ProgressColumn):
    """A column of text made from the state of a line."""

    def __init__(self, make: Callable[[Task], str]) -> None:
        super().__init__()
        self._make = make

    def render(self, task: Task) -> Text:
        """Returns the text."""
        return Text(self._make(task))


class Bar:
    """One line of progress over samples.

    On a terminal it is shown all the time. Elsewhere `say` receives it once a minute.
    """

    def __init__(
        self,
        console: Console,
        description: str,
        total: float | None,
        say: Callable[[str], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begins the line.

        Args:
            console: Shows the line, if it is a terminal.
            description: What is being done.
            total: Number of samples; None if not known yet.
            say: Receives plain lines; None for no such lines.
            clock: Returns the time in seconds.
        """
        self._say, self._clock, self._said = say, clock, clock()
        self._live = console.is_terminal
        self._bars = Progress(
            SpinnerColumn(),
            # brackets in the name of a folder are not markup
            TextColumn("{task.description}{task.fields[doing]}", markup=False),
            BarColumn(bar_width=20),
            TaskProgressColumn(),
            _Column(samples_per_second),
            TimeElapsedColumn(),
            _Column(lambda task: f"{time_left(task)} left"),
            TextColumn("{task.fields[last]}", markup=False),
            console=console,
            disable=not self._live,
            transient=True,
            get_time=clock,
        )
        self._id = self._bars.add_task(description, total=total, **_fields(0))

    def __enter__(self) -> "Bar":
        """Shows the line."""
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Removes the line."""
        self._bars.stop()

    def begin(self, samples: float) -> None:
        """Sets how many samples were done before; they do not count for the rate."""
        # `reset` replaces all fields
        self._bars.reset(self._id, completed=round(samples), **_fields(samples))

    def describe(self, description: str) -> None:
        """Sets the description."""
        self._bars.update(self._id, description=printable(description))

    def compiles(self, name: str) -> None:
        """Shows that a program is being compiled, which is not done again."""
        self._bars.update(self._id, doing=f", compiling {printable(name)} (once)")

    def compiled(self, seconds: float) -> None:
        """Counts the time that compiling has taken."""
        once = self._bars.tasks[0].fields["once"] + seconds
        self._bars.update(self._id, once=once, doing="")

    def share(self, share: float) -> None:
        """Sets which part of the programs will have been compiled at this point."""
        self._bars.update(self._id, share=share)

    def reach(self, samples: float, total: float | None = None) -> None:
        """Sets how many samples are done, and the total if that was not known."""
        self._bars.update(self._id, completed=samples, total=total)
        self._speak()

    def advance(self, samples: float) -> None:
        """Adds samples that are done."""
        line = self._bars.tasks[0]
        done = line.completed + samples
        if line.total is not None:
            # only `reach` may complete the line, which could not be undone
            done = min(done, line.total - 1)
        self._bars.update(self._id, completed=done)
        self._speak()

    def accuracies(self, given: float, predicted: float) -> None:
        """Shows the last mean accuracies, in 0 to 1, by route."""
        last = f"given {100 * given:.1f} %, predicted {100 * predicted:.1f} %"
        self._bars.update(self._id, last=last)

    def line(self) -> str:
        """Returns the content of the live line as plain text."""
        task = self._bars.tasks[0]
        parts = [
            f"{task.percentage:.0f} % of all samples",
            samples_per_second(task),
            f"{time_left(task)} left",
            task.fields["last"],
        ]
        doing = f"{task.description}{task.fields['doing']}"
        return f"{doing}: {', '.join(filter(None, parts))}"

    def left(self) -> str:
        """Returns the time left for the end of a plain line; nothing on a terminal."""
        if self._live or self._bars.finished:
            return ""
        return f"; {time_left(self._bars.tasks[0])} left"

    def _speak(self) -> None:
        if self._live or self._say is None:
            return
        if self._clock() - self._said >= _PLAIN_SECONDS:
            self._said = self._clock()
            self._say(self.line())
