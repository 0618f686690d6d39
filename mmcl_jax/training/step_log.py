"""Metrics of training steps, fetched from the devices for many steps at once."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from mmcl_jax.training.learner import LearnerState
from mmcl_jax.types import Metrics

# number of steps that the devices may still compute while the next one is prepared
_UNDER_WAY = 1


class Step(NamedTuple):
    """A training step that was started.

    Attributes:
        number: Number of the step in its stage, counted from 0.
        ids: Ids of its samples, on the devices.
        metrics: Metrics, on the devices.
    """

    number: int
    ids: Any
    metrics: Metrics


class StepLog:
    """The metrics of a stage, which stay on the devices for an interval of steps.

    Fetching a number waits for its step. So the metrics of an interval are fetched
    while the devices still have one more step to compute, and none in between.
    """

    def __init__(
        self,
        every: int,
        steps: int,
        write: Callable[[int, dict[str, float]], None],
        refused: Callable[[Step, LearnerState], None],
    ) -> None:
        """Starts without steps.

        Args:
            every: Number of steps in an interval; the metrics of its last one are
                written.
            steps: Number of steps in the stage; those of its last one are always
                written.
            write: Takes the number of steps done, from 1, and metrics.
            refused: Takes a step that was not finite, and the state after a later one.
        """
        self._every, self._total = every, steps
        self._write, self._refused = write, refused
        self._steps: list[Step] = []

    def add(self, step: Step, state: LearnerState) -> None:
        """Adds a step that was started, and looks at the interval before it.

        Args:
            step: Step whose metrics have an entry "finite".
            state: State after the step.
        """
        self._steps.append(step)
        # JAX dispatches asynchronously: without this wait the host would run ahead,
        # and batches of many steps would fill the memory of the devices
        jax.block_until_ready([old.metrics for old in self._steps[:-_UNDER_WAY]])
        if step.number % self._every == 0:
            self._look(state, self._steps[:-1])

    def finish(self, state: LearnerState) -> None:
        """Waits for all steps that were added, and looks at them."""
        self._look(state, self._steps)

    def _look(self, state: LearnerState, steps: list[Step]) -> None:
        """Writes and checks `steps`, the first of those that were added."""
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
        return done % self._every == 0 or done == self._total
