"""The page of a run while it is running."""

import pathlib
import time
from collections.abc import Callable
from typing import Any

from mmcl_jax.training.build import Run
from mmcl_jax.workdir.layout import REPORT
from mmcl_jax.workdir.logs import is_writer

# share of the time since the start that pages between tasks may take
_SHARE = 1 / 20


class Reporter:
    """Writes `report.html` of one run; any failure is reported in one line."""

    def __init__(
        self, workdir: pathlib.Path, run: Run, say: Callable[[str], None]
    ) -> None:
        """Writes nothing yet.

        Args:
            workdir: Workdir of the run.
            run: Run whose `config.report` says when to write.
            say: Receives a line on any failure.
        """
        self._workdir, self._run, self._say = workdir, run, say
        self._when = run.config.report if is_writer() else "off"
        self._started, self._spent = time.perf_counter(), 0.0
        self._history = None

    def after_stage(self, results: Callable[[], dict[str, Any]]) -> None:
        """Writes the page so far, unless pages have taken too much of the time.

        Args:
            results: Returns what `results.json` would hold; called only if needed.
        """
        elapsed = time.perf_counter() - self._started
        if self._when == "each_task" and self._spent <= _SHARE * elapsed:
            self._write(results)

    def at_end(self, results: dict[str, Any]) -> None:
        """Writes the page of a whole run."""
        if self._when != "off":
            self._write(lambda: results)

    def _write(self, results: Callable[[], dict[str, Any]]) -> None:
        started = time.perf_counter()
        try:
            # imported late: plotting libraries take seconds to load
            from mmcl_jax.report import page, run_loader
            from mmcl_jax.report.history import History
            from mmcl_jax.report.run_data import Source

            self._history = self._history or History(self._workdir)
            source = Source(self._run.stream, self._run.encoder.inputs)
            loaded = run_loader.load(self._workdir, results(), self._history, source)
            page.write([loaded], self._workdir / REPORT)
        except Exception as error:  # a page that fails must not end the run
            reason = str(error).strip().splitlines() or [repr(error)]
            self._say(f"{REPORT} was not written: {reason[0]}")
        self._spent += time.perf_counter() - started
