"""How far a sweep is: runs done and running, and the time left."""

import datetime
import pathlib
import time
from collections.abc import Callable

from rich.console import Console
from rich.live import Live
from rich.text import Text

from mmcl_jax.plain_text import printable
from mmcl_jax.sweeps import runs

_WIDEST = 70  # of what a run says


class Standing:
    """Counts the runs of a sweep; on a terminal it shows them, a line for each."""

    def __init__(
        self,
        console: Console,
        total: int,
        workers: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begins to count.

        Args:
            console: Shows the lines, if it is a terminal.
            total: Number of runs to do.
            workers: Number of simultaneous runs.
            clock: Returns the time in seconds.
        """
        self._total, self._workers, self._clock = total, workers, clock
        self._running: dict[pathlib.Path, float] = {}
        self._took: list[float] = []
        self._live = Live(
            console=console,
            get_renderable=self._lines,
            refresh_per_second=1,
            transient=True,
        )
        self._shown = console.is_terminal

    def __enter__(self) -> "Standing":
        """Shows the lines."""
        if self._shown:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Removes the lines."""
        self._live.stop()

    def begun(self, workdir: pathlib.Path) -> None:
        """Adds a run."""
        self._running[workdir] = self._clock()

    def ended(self, workdir: pathlib.Path) -> float:
        """Counts a run as done; returns the seconds that it took."""
        self._took.append(self._clock() - self._running.pop(workdir))
        return self._took[-1]

    def line(self) -> str:
        """Returns runs done and running, and the time left as plain text."""
        done = f"{len(self._took)} of {self._total} runs done"
        left = self.seconds_left()
        if left is None:
            return f"{done}, {len(self._running)} running"
        about = datetime.timedelta(seconds=round(left))
        return f"{done}, {len(self._running)} running, about {about} left"

    def seconds_left(self) -> float | None:
        """Returns the time left if a run takes what one took so far; None before."""
        remaining = self._total - len(self._took)
        if not remaining:
            return 0.0
        if not self._took:
            return None
        mean, now = sum(self._took) / len(self._took), self._clock()
        begun = sum(min(now - since, mean) for since in [*self._running.values()])
        return (mean * remaining - begun) / min(self._workers, remaining)

    def _lines(self) -> Text:
        said = [self.line()]
        for workdir in list(self._running):
            name = "/".join(workdir.parts[-3:])
            said.append(f"  {name}: {runs.last_line(workdir)[:_WIDEST] or 'starting'}")
        return Text("\n".join(map(printable, said)))
