"""When states are saved, and which one a run goes on from."""

import dataclasses
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from mmcl_jax.config import CheckpointOptions
from mmcl_jax.errors import Preempted
from mmcl_jax.training.learner import LearnerState
from mmcl_jax.training.preemption import Interrupt
from mmcl_jax.workdir import layout, resuming
from mmcl_jax.workdir.logs import Writer
from mmcl_jax.workdir.results import Results
from mmcl_jax.workdir.resuming import Position
from mmcl_jax.workdir.snapshots import Snapshots

# looks between two agreements of several processes on whether to save and to leave
_AGREE_EVERY = 8
_KEPT = 2


class Keeper:
    """Snapshots behind each stage, and checkpoints inside of them.

    A stage is a row of moves: a batch prepared, the task begun, a training step, a
    batch observed, the task closed. A checkpoint is numbered by the moves done since
    the start of the stream, and each move depends on the state before it alone: so a
    run that goes on from one ends as if it had never stopped.
    """

    def __init__(
        self,
        workdir: pathlib.Path,
        options: CheckpointOptions,
        interrupt: Interrupt,
        ends: Sequence[int],
        writer: Writer,
    ) -> None:
        """Opens the states of a workdir.

        Args:
            workdir: of the run.
            options: how often to save.
            interrupt: says when the run is asked to leave.
            ends: moves done at the end of each stage.
            writer: is told what is found.
        """
        self._workdir, self._options, self._ends = workdir, options, ends
        self._interrupt, self._writer = interrupt, writer
        self._snapshots = Snapshots(workdir / layout.SNAPSHOTS)
        self._checkpoints = Snapshots(
            workdir / layout.CHECKPOINTS, digits=9, keep=_KEPT, background=True
        )
        self._saved_at, self._saved_moves = time.monotonic(), 0
        self._asked = 0

    def start(self, state: LearnerState) -> tuple[LearnerState, Results | None, int]:
        """Returns state, results and moves done of the newest state that is whole.

        Args:
            state: new; it is returned, without results, if nothing has been saved.

        Raises:
            WorkdirError: all that was saved is damaged, or of another version.
        """
        at_stages = [
            Position(self._ends[number], self._snapshots, number)
            for number in self._snapshots.numbers()
        ]
        inside = [
            Position(n, self._checkpoints, n) for n in self._checkpoints.numbers()
        ]
        # of two behind the same move the snapshot is the one that was scored
        newest, damaged = resuming.newest(self._workdir, [*at_stages, *inside])
        for line in damaged:
            self._writer.say(line)
        if newest is None:
            return state, None, 0
        like = _tree(state)
        if newest.store is self._snapshots:
            like = _learnt(state)
        try:
            tree, stored = newest.store.restore(newest.number, like)
            results = Results.from_json(stored)
        except (KeyError, TypeError, ValueError) as error:
            path = newest.store.path(newest.number)
            raise resuming.foreign(path, error) from error
        self._saved_moves = newest.moves
        return dataclasses.replace(state, **tree), results, newest.moves

    def moved(
        self, moves: int, state: LearnerState, results: Callable[[], Results]
    ) -> None:
        """Saves a checkpoint if one is due, and leaves if the run was asked to.

        Args:
            moves: done so far.
            state: behind the last of them.
            results: so far; called if they are needed.

        Raises:
            Preempted: the state is saved.
            SaveError: it cannot be.
        """
        self._checkpoints.poll()
        due, leave = self._agreed(moves)
        if due or leave:
            self.checkpoint(moves, state, results(), wait=leave)
        if leave:
            raise Preempted

    def checkpoint(
        self, moves: int, state: LearnerState, results: Results, wait: bool = True
    ) -> None:
        """Saves a checkpoint, unless there is one of these moves."""
        if moves not in self._checkpoints.numbers():
            tree = _tree(state)
            self._checkpoints.save(moves, tree, results.to_json(), wait=wait)
        self._saved_at, self._saved_moves = time.monotonic(), moves

    def end_stage(self, index: int, state: LearnerState, results: Results) -> None:
        """Saves the snapshot of a stage."""
        self._snapshots.save(index, _learnt(state), results.to_json())
        self._saved_at, self._saved_moves = time.monotonic(), self._ends[index]

    def close(self) -> None:
        """Waits for what is being written."""
        self._snapshots.close()
        self._checkpoints.close()

    def _agreed(self, moves: int) -> tuple[bool, bool]:
        """Returns whether to save, and whether to leave; alike in all processes."""
        minutes = (time.monotonic() - self._saved_at) / 60
        steps = self._options.every_steps
        due = minutes >= self._options.every_minutes
        due |= steps is not None and moves - self._saved_moves >= steps
        wishes = np.array([due, self._interrupt.requested])
        if jax.process_count() > 1:
            self._asked += 1
            if self._asked % _AGREE_EVERY:
                return False, False
            wishes = multihost_utils.process_allgather(wishes).any(0)
        return bool(wishes[0]), bool(wishes[1])


def _tree(state: LearnerState) -> dict[str, Any]:
    return {
        field.name: getattr(state, field.name) for field in dataclasses.fields(state)
    }


def _learnt(state: LearnerState) -> dict[str, Any]:
    """Returns what a task leaves behind."""
    return {"params": state.params, "memory": state.memory}
