"""What training steps report, fetched from the devices for many steps at once."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from mmcl_jax.training.learner import LearnerState
from mmcl_jax.types import Metrics

# steps that the devices have to do while the next one is made ready
_UNDER_WAY = 1


class Step(NamedTuple):
    """A step that was started.

    Attributes:
        number: counted from 0, of the stage.
        ids: of its samples, on the devices.
        metrics: on the devices.
    """

    number: int
    ids: Any
    metrics: Metrics


class StepLog:
    """The metrics of a stage, left on the devices until a row of steps is logged.

    To fetch a number is to wait for its step. So the row is fetched when the devices
    have a step more to do, and between two rows nothing is.
    """

    def __init__(
        self,
        every: int,
        last: int,
        write: Callable[[int, dict[str, float]], None],
        refused: Callable[[Step, LearnerState], None],
    ) -> None:
        """Starts with no steps.

        Args:
            every: steps of a row; the last one of it is written.
            last: step of the stage, which is written, too.
            write: takes steps done, counted from 1, and metrics.
            refused: takes a step that was not finite, and a later state.
        """
        self._every, self._last = every, last
        self._write, self._refused = write, refused
        self._steps: list[Step] = []

    def add(self, step: Step, state: LearnerState) -> None:
        """Takes a step that was started, and looks at the row before it.

        Args:
            step: its metrics have an entry "finite".
            state: behind it.
        """
        self._steps.append(step)
        # else the batches of many steps would wait on the devices
        jax.block_until_ready([old.metrics for old in self._steps[:-_UNDER_WAY]])
        if step.number % self._every == 0:
            self._look(state, self._steps[:-1])

    def finish(self, state: LearnerState) -> None:
        """Looks at all steps that were taken, which waits for them."""
        self._look(state, self._steps)

    def _look(self, state: LearnerState, steps: list[Step]) -> None:
        self._steps = self._steps[len(steps) :]
        written = [step for step in steps if self._is_written(step)]
        flags, metrics = jax.device_get(
            ([s.metrics["finite"] for s in steps], [s.metrics for s in written])
        )
        rows = {step.number: row for step, row in zip(written, metrics, strict=True)}
        for step, finite in zip(steps, flags, strict=True):
            if row := rows.get(step.number):
                values = {k: float(v) for k, v in row.items() if k != "finite"}
                self._write(step.number + 1, values)
            if not finite:
                self._refused(step, state)

    def _is_written(self, step: Step) -> bool:
        done = step.number + 1
        return done % self._every == 0 or step.number == self._last
