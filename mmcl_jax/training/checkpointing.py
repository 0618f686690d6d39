"""When states are saved, and from which one a run resumes."""

import bisect
import dataclasses
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from mmcl_jax.config import CheckpointOptions
from mmcl_jax.errors import DataError, Preempted
from mmcl_jax.training.learner import LearnerState
from mmcl_jax.training.preemption import Interrupt
from mmcl_jax.workdir import layout, resuming, states
from mmcl_jax.workdir.identity import Owner
from mmcl_jax.workdir.logs import Writer
from mmcl_jax.workdir.results import Results
from mmcl_jax.workdir.resuming import Position
from mmcl_jax.workdir.snapshots import Snapshots

# several processes agree once in so many calls of `after_move`
_AGREE_EVERY = 8
_KEPT = 2


class Checkpointing:
    """A snapshot after each stage, and checkpoints within stages.

    A checkpoint is numbered by the moves done since the start of the stream. A move
    depends on nothing but the state before it and its own position, so a run that
    resumes from a checkpoint ends bitwise as if it had never stopped.
    """

    def __init__(
        self,
        workdir: pathlib.Path,
        options: CheckpointOptions,
        interrupt: Interrupt,
        ends: Sequence[int],
        writer: Writer,
        owner: Owner,
        tasks: int,
    ) -> None:
        """Opens the saved states of a workdir.

        Args:
            workdir: Workdir of the run.
            options: How often to save.
            interrupt: Says when the run is asked to leave.
            ends: Number of moves done by the end of each stage.
            writer: Logs which states are damaged.
            owner: The run that the states must be of.
            tasks: Number of tasks of the run, of which earlier states may know fewer.
        """
        self._tasks = tasks
        self._owner = owner
        self._workdir, self._options, self._ends = workdir, options, ends
        self._interrupt, self._writer = interrupt, writer
        self._snapshots = Snapshots(workdir / layout.SNAPSHOTS)
        self._checkpoints = Snapshots(
            workdir / layout.CHECKPOINTS, digits=9, keep=_KEPT, background=True
        )
        self._saved_at, self._saved_moves = time.monotonic(), 0
        self._calls = 0

    def restore(
        self, new: Callable[[int], LearnerState]
    ) -> tuple[LearnerState, Results | None, int]:
        """Returns state, results and moves done of the newest state that is intact.

        Args:
            new: Function that returns a new state with the capacity of a stage; that of
                the first is returned, without results, if nothing was saved.

        Raises:
            WorkdirError: All saved states are damaged, or of another version.
            DataError: The newest state is of another run or place.
        """
        after_stages = [
            Position(self._ends[number], self._snapshots, number)
            for number in self._snapshots.numbers()
        ]
        within = [
            Position(n, self._checkpoints, n) for n in self._checkpoints.numbers()
        ]
        # after the last move of a stage there may be both: the snapshot, which comes
        # first here, was saved once the stage had been evaluated
        newest, damaged = resuming.newest(self._workdir, [*after_stages, *within])
        for line in damaged:
            self._writer.say(line)
        if newest is None:
            return new(0), None, 0
        if newest.store is self._snapshots:
            stage = newest.number
        else:
            # the last move of a stage is still one of it
            stage = bisect.bisect_left(self._ends, newest.moves)
        state = new(stage)
        # a snapshot has no optimizer and no step: `begin_task` starts them afresh
        like = _learned(state) if newest.store is self._snapshots else _whole(state)
        try:
            tree, stored = newest.store.restore(newest.number, like)
            self._check_owner(newest, stored)
            results = Results.from_json(stored, self._tasks)
        except DataError:
            raise
        except (KeyError, TypeError, ValueError) as error:
            path = newest.store.path(newest.number)
            raise resuming.foreign(path, error) from error
        self._saved_moves = newest.moves
        return dataclasses.replace(state, **tree), results, newest.moves

    def after_move(
        self, moves: int, state: LearnerState, results: Callable[[], Results]
    ) -> None:
        """Saves a checkpoint if one is due, and leaves if the run was asked to.

        It may also be called between two moves, where a long time passes without any.

        Args:
            moves: Number of moves done so far.
            state: State after the last of them.
            results: Returns the results so far; called only if the state is saved.

        Raises:
            Preempted: The run was asked to leave, and the state is saved.
            SaveError: The state cannot be saved.
        """
        self._checkpoints.poll()
        due, leave = self._agreed(moves)
        if due or leave:
            self.save_checkpoint(moves, state, results(), wait=leave)
        if leave:
            raise Preempted

    def save_checkpoint(
        self, moves: int, state: LearnerState, results: Results, wait: bool = True
    ) -> None:
        """Saves a checkpoint, unless there already is one after as many moves.

        Args:
            moves: Number of moves done so far.
            state: State after the last of them.
            results: Results so far.
            wait: Whether the checkpoint is on disk on return. If not, it is written in
                the background, from a copy: the next training step takes over the
                buffers of the state.
        """
        if moves not in self._checkpoints.numbers():
            tree = _whole(state)
            told = results.to_json() | {"run": self._owner.run, "moves": moves}
            self._checkpoints.save(moves, tree, told, wait=wait)
        self._saved_at, self._saved_moves = time.monotonic(), moves

    def save_snapshot(self, index: int, state: LearnerState, results: Results) -> None:
        """Saves the snapshot of a stage that has been evaluated."""
        place = states.place(self._workdir, self._owner.run, index)
        self._snapshots.save(index, _learned(state), results.to_json() | place)
        self._saved_at, self._saved_moves = time.monotonic(), self._ends[index]

    def _check_owner(self, newest: Position, stored: dict[str, Any]) -> None:
        """Raises `DataError` if a state is not of this run, or not of its place."""
        if newest.store is self._snapshots:
            states.check_place(self._workdir, newest.number, stored, self._owner)
            return
        path = newest.store.path(newest.number)
        stage = bisect.bisect_left(self._ends, newest.number)
        self._owner.check(path, stored.get("run"), stage)
        if stored.get("moves") != newest.number:
            raise DataError(
                f"{path}: the state after {stored.get('moves')} moves; restore the "
                "folders"
            )

    def close(self) -> None:
        """Waits until everything is on disk."""
        self._snapshots.close()
        self._checkpoints.close()

    def _agreed(self, moves: int) -> tuple[bool, bool]:
        """Returns whether to save, and whether to leave; the same in all processes.

        Clocks and signals differ between processes, but each process writes its part
        of a state, and one that left alone would keep the others waiting for ever. So
        what one of them wants, all do. They agree at the same calls, since all make
        the same moves; and not at every call, since agreeing is a round trip that
        would slow down each step.
        """
        minutes = (time.monotonic() - self._saved_at) / 60
        steps = self._options.every_steps
        due = minutes >= self._options.every_minutes
        due |= steps is not None and moves - self._saved_moves >= steps
        wishes = np.array([due, self._interrupt.requested])
        if jax.process_count() > 1:
            self._calls += 1
            if self._calls % _AGREE_EVERY:
                return False, False
            wishes = multihost_utils.process_allgather(wishes).any(0)
        return bool(wishes[0]), bool(wishes[1])


def _whole(state: LearnerState) -> dict[str, Any]:
    return {
        field.name: getattr(state, field.name) for field in dataclasses.fields(state)
    }


def _learned(state: LearnerState) -> dict[str, Any]:
    """Returns what a snapshot keeps of a state."""
    return {"params": state.params, "memory": state.memory}
