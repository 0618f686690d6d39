"""What draws the pages of a run, as the loop sees it."""

import pathlib
from collections.abc import Callable
from typing import Any, Protocol

from mmcl_jax.training.build import Run


class Reporter(Protocol):
    """Draws pages of a run; it never stops the run."""

    def after_stage(self, results: Callable[[], dict[str, Any]]) -> None:
        """Is called after each stage but the last; `results` returns those so far."""
        ...

    def at_end(self, results: dict[str, Any]) -> None:
        """Is called with what `results.json` holds."""
        ...


class NoReporter:
    """Draws nothing."""

    def after_stage(self, results: Callable[[], dict[str, Any]]) -> None:
        """Does nothing."""

    def at_end(self, results: dict[str, Any]) -> None:
        """Does nothing."""


MakeReporter = Callable[[pathlib.Path, Run, Callable[[str], None]], Reporter]
