"""The task loop: the only file that orders side effects."""

import contextlib
import copy
import dataclasses
import functools
import pathlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from rich.console import Console

from mmcl_jax import config as configs
from mmcl_jax.errors import ConfigError
from mmcl_jax.files import write_json
from mmcl_jax.parallel import compiling, distributed, host_memory, sharding
from mmcl_jax.streams.retirement import retired_after
from mmcl_jax.training import (
    capacity,
    divergence,
    known_tasks,
    run_files,
    run_summary,
    unknowns,
)
from mmcl_jax.training.batches import Feed, Records
from mmcl_jax.training.build import Run, assemble, classes_at
from mmcl_jax.training.calibration import calibrate
from mmcl_jax.training.checkpointing import Checkpointing
from mmcl_jax.training.controls import Controls
from mmcl_jax.training.evaluator import Known, Scorer
from mmcl_jax.training.learner import LearnerState as State
from mmcl_jax.training.moves import Kind, Move, Moves, batches_of, stages_of_run
from mmcl_jax.training.preemption import Interrupt
from mmcl_jax.training.reporting import MakeReporter, NoReporter
from mmcl_jax.training.step_log import Step, StepLog
from mmcl_jax.types import Classes, Prediction, PyTree
from mmcl_jax.workdir import identity, layout, resuming
from mmcl_jax.workdir import weights_and_biases as wandb
from mmcl_jax.workdir.lock import Lock
from mmcl_jax.workdir.logs import Writer, is_writer, make_loggers, results_table
from mmcl_jax.workdir.progress import Bar
from mmcl_jax.workdir.results import Results, plain


def run(
    config: configs.Config,
    workdir: str | pathlib.Path,
    stop_after: int | None = None,
    interrupt: Interrupt | None = None,
    make_reporter: MakeReporter = lambda workdir, run, say: NoReporter(),
    lock: Lock | None = None,
) -> dict[str, Any] | None:
    """Learns the stream, or resumes from the newest state in the workdir.

    Args:
        config: The experiment.
        workdir: Folder that everything is written to; created if missing.
        stop_after: Number of stages after which to return; run again to resume.
        interrupt: Says when to save and leave; None means never.
        make_reporter: Opens the reporter, from the workdir, the assembled run and a
            function that prints a line.
        lock: Lock on the workdir, if the caller has it; it is released at the end.

    Returns:
        What `results.json` holds, or None if the run was stopped before its end.

    Raises:
        ConfigError: The experiment cannot be run; nothing has been written.
        WorkdirError: Another run has the workdir, or all its states are damaged.
        DataError: A sample cannot be decoded that was not verified beforehand.
        DivergedError: A loss, gradient or statistic is not finite.
        BatchDependenceError: The method predicts a sample differently in another batch.
        SaveError: A state cannot be written.
        Preempted: The run was asked to leave, and has saved its state.
    """
    workdir = pathlib.Path(workdir)
    interrupt = interrupt or Interrupt()
    resuming.check(workdir, config)
    wandb.check(config)
    if lock is None and is_writer() and workdir.exists():
        lock = Lock(workdir)
    moved: list[str] = []
    try:
        console = Console(quiet=not is_writer())
        try:
            known = known_tasks.of_workdir(workdir, config)
            assembled = assemble(config, console, known=known)
        except ValueError as error:
            raise ConfigError(str(error)) from error
        if is_writer():
            # created only now, so that a config that cannot be run leaves no folder
            workdir.mkdir(parents=True, exist_ok=True)
            lock = lock or Lock(workdir)
            moved = run_files.fill(workdir, config, assembled)
        distributed.synchronize("workdir")
        with (
            contextlib.closing(Writer(workdir, console)) as writer,
            contextlib.closing(
                _Loop(assembled, workdir, writer, interrupt, make_reporter)
            ) as loop,
        ):
            for line in moved:
                writer.say(line)
            return loop.run(stop_after)
    finally:
        interrupt.nothing_to_save = True
        if lock:
            lock.release()


class _Lesson(NamedTuple):
    """What all moves of a stage share.

    Attributes:
        index: Index of the stage.
        given: Frozen weights, classes and the index of the stage, on the devices.
        steps: Number of training steps of the stage, on the devices.
        log: Log of its training steps.
    """

    index: int
    given: tuple[PyTree, Classes, jax.Array]
    steps: jax.Array
    log: StepLog


class _Loop:
    """One pass over the stages of a stream."""

    def __init__(
        self,
        run: Run,
        workdir: pathlib.Path,
        writer: Writer,
        interrupt: Interrupt,
        make_reporter: MakeReporter,
    ) -> None:
        self._run, self._workdir = run, workdir
        self._writer, self._interrupt = writer, interrupt
        self._frozen = run.encoder.frozen
        self._feed = Feed(run, self._frozen)
        self._results = Results.start(len(run.stream.tasks))
        self._stages = stages_of_run(run, self._feed)
        steps = [stage.moves.count(Kind.TRAIN) for stage in self._stages]
        writer.tell(make_loggers(workdir, run.config), steps)
        ends = [stage.end for stage in self._stages]
        self._owner = run_files.owner(workdir, run)
        self._checkpointing = Checkpointing(
            workdir,
            run.config.checkpoint,
            interrupt,
            ends,
            writer,
            self._owner,
            len(run.stream.tasks),
        )
        self._reporter = make_reporter(workdir, run, writer.say)
        self._done = 0  # moves since the start of the stream

    def close(self) -> None:
        """Waits until everything is saved."""
        self._checkpointing.close()

    def run(self, stop_after: int | None) -> dict[str, Any] | None:
        """Learns and evaluates all remaining stages; see `run` of this module."""
        opening = run_summary.opening(self._run)
        for line in (*opening, *self._run.notes):
            self._writer.say(line)
        state, first = self._resume()
        with self._results.timed("text"):
            self._text = self._feed.embed_class_names()
        run_files.recall(self._run, self._feed)
        self._scorer = Scorer(self._run, self._feed, self._frozen, self._text)
        reserved = self._run.stream.reserved
        self._controls = Controls(self._run, self._frozen) if reserved else None
        # from here on a signal waits for the end of a move
        self._interrupt.nothing_to_save = False
        total = len(self._stages)
        with (
            self._writer.progress("starting", self._stages[-1].samples) as bar,
            compiling.watched(bar.compiles, bar.compiled),
        ):
            bar.begin(self._samples_done(first))
            for index in range(first, total):
                if stop_after is not None and index >= stop_after:
                    self._writer.say(f"stopped after stage {index} of {total}")
                    return None
                state = self._learn(state, index, bar)
                self._score(state, index, bar)
                run_files.keep(self._run, self._feed, self._workdir, index)
                self._checkpointing.save_snapshot(index, state, self._counted())
                self._feed.forget(self._run.stream.stages[index], "train")
                if index + 1 < total:
                    with self._results.timed("report"):
                        self._reporter.after_stage(self._report)
                host_memory.trim()
        report = self._report()
        if is_writer():
            sealed = identity.sealed(report | {"run": self._owner.run})
            write_json(self._workdir / layout.RESULTS, sealed)
        self._reporter.at_end(report)
        self._writer.table(results_table(report))
        return report

    def _resume(self) -> tuple[State, int]:
        """Returns the newest saved state, or a new one, and the index of its stage."""
        learner, stream = self._run.learner, self._run.stream
        state, results, self._done = self._checkpointing.restore(
            lambda stage: learner.init(capacity.at_stage(stream, stage))
        )
        if results is None:
            self._writer.take_back(0, 0)
            return state, 0
        self._results = results
        self._results.restarts += 1
        # the evaluated stages count: a run that was stopped between the last move of a
        # stage and the end of its evaluation is still in that stage
        index = results.stages
        where = f"resuming after stage {index} of {len(self._stages)}"
        if index < len(self._stages):
            done = self._stages[index].done(self._done)
            where += f", {len(done)} moves into the next one" if len(done) else ""
            # steps after the saved state will be done, and logged, again
            self._writer.take_back(index, done.count(Kind.TRAIN))
        self._writer.say(where)
        return state, index

    def _learn(self, state: State, index: int, bar: Bar) -> State:
        """Does the remaining moves of a stage."""
        stage = self._stages[index]
        bar.describe(stage.title)
        bar.share(run_summary.share_of_programs(self._run.stream, index))
        with self._results.timed("queries"):
            # not a move, since it leaves the state unchanged: a run that is stopped
            # here embeds the queries again when it resumes
            self._feed.embed_queries(
                self._run.stream.stages[index],
                "train",
                between=lambda: self._checkpointing.after_move(
                    self._done, state, self._counted
                ),
            )
        if self._done == stage.start:
            # not a move either: it is done again if the run stops before the first one
            state = self._with_room(state, index - 1, index)
            state = self._without_retired(state, index)
        lesson = self._lesson(index)
        for part, moves in stage.left(self._done).by_part():
            with self._results.timed(part):
                state = self._do_moves(state, moves, lesson, bar)
        return state

    def _with_room(self, state: State, before: int, stage: int) -> State:
        """Returns a state of one stage with the capacity of another."""
        room = capacity.at_stage(self._run.stream, stage)
        if before < 0 or room == capacity.at_stage(self._run.stream, before):
            return state
        return self._run.learner.grow(state, room)

    def _without_retired(self, state: State, index: int) -> State:
        """Returns a state without what it holds of retired classes alone."""
        retired = sorted(retired_after(self._run.stream, index))
        if not retired:
            return state
        room = capacity.at_stage(self._run.stream, index)
        slots = sharding.put(np.isin(np.arange(room.classes), retired), self._run.mesh)
        return self._run.learner.forget(state, slots, room)

    def _lesson(self, index: int) -> _Lesson:
        steps = self._stages[index].moves.count(Kind.TRAIN)
        return _Lesson(
            index,
            (self._frozen, classes_at(self._run, self._text, index), self._put(index)),
            self._put(steps),
            StepLog(
                self._run.config.train.log_every_steps,
                steps,
                lambda step, values: self._writer.scalars(index, step, **plain(values)),
                functools.partial(self._refused, index),
            ),
        )

    def _do_moves(self, state: State, moves: Moves, lesson: _Lesson, bar: Bar) -> State:
        """Does some moves; after each the run may be saved, or leave."""
        per_batch = self._stages[lesson.index].per_batch
        batches = batches_of(self._run, self._feed, lesson.index, moves)
        for move, batch in zip(moves, batches, strict=True):
            state = self._do_move(state, move, batch, lesson)
            self._done += 1
            bar.advance(0 if batch is None else per_batch)
            results = functools.partial(self._sound_results, state, lesson)
            self._checkpointing.after_move(self._done, state, results)
        # wait for the devices, so that their time is counted in this part
        lesson.log.finish(state)
        return jax.block_until_ready(state)

    def _do_move(self, state: State, move: Move, batch: Any, lesson: _Lesson) -> State:
        """Does one move, which depends on nothing but the state before it.

        That is what exact resume rests on: keys and batches follow from seeds and from
        the position of the move, never from what this process did before.
        """
        learner, given = self._run.learner, lesson.given
        match move.kind:
            case Kind.PREPARE:
                return learner.prepare(state, *given, batch, self._put(move.index))
            case Kind.BEGIN:
                state = learner.begin_task(state, *given)
                self._check(state, lesson.index, "when it began")
                return state
            case Kind.TRAIN:
                # the old state is donated: its buffers become those of the new one, so
                # nothing may read it again, not even a checkpoint that is being written
                state, metrics = learner.train_step(state, *given, lesson.steps, batch)
                lesson.log.add(Step(move.index, batch.id, metrics), state)
                return state
            case Kind.OBSERVE:
                return learner.observe(state, *given, batch, self._put(move.index))
            case Kind.END:
                state = learner.end_task(state, *given)
                self._check(state, lesson.index, "when it ended")
                self._results.refused_steps += int(state.refused)
                return state

    def _sound_results(self, state: State, lesson: _Lesson) -> Results:
        """Returns the results to save with a state, which must be worth saving.

        Raises:
            DivergedError: A step before it was refused, or the state is not finite.
        """
        lesson.log.finish(state)
        finite, _ = self._run.learner.health(state)
        if not finite:
            where = f"{self._stages[lesson.index].title}, so far"
            raise divergence.of_state(where, state)
        return self._counted()

    def _refused(self, index: int, step: Step, state: State) -> None:
        """Stops at a step that is not finite; the learner has refused to take it."""
        if self._run.config.train.on_nonfinite != "stop":
            return
        # the log notices it some steps late, but the learner has refused those, too:
        # but for its counts, the state is still the one before the step. No checkpoint
        # is newer, since `_sound_results` looks at all steps before one is saved
        before = dataclasses.replace(
            state, step=np.int32(step.number), refused=np.zeros((), np.int32)
        )
        before = sharding.put(before, self._run.mesh)
        stage = self._stages[index]
        moves = stage.start + stage.moves.before(Move(Kind.TRAIN, step.number))
        self._checkpointing.save_checkpoint(moves, before, self._counted())
        where = f"{stage.title}, step {step.number + 1}"
        raise divergence.of_step(where, step.ids, step.metrics)

    def _check(self, state: State, index: int, when: str) -> None:
        """Stops at a state that is not finite, and reports nearly singular matrices."""
        finite, jitter = jax.device_get(self._run.learner.health(state))
        where = f"{self._stages[index].title}, {when}"
        if jitter > 0:
            self._writer.say(divergence.nearly_singular(where, jitter))
            most = self._results.jitter.get(index, 0.0)
            self._results.jitter[index] = max(float(jitter), most)
        if not finite:
            raise divergence.of_state(where, state)

    def _score(self, state: State, index: int, bar: Bar) -> None:
        """Fills the accuracy row of a stage.

        It is filled in a copy of the results, since a run that is stopped here resumes
        after the last move and evaluates the whole stage again.
        """
        before, results = self._counted(), copy.deepcopy(self._results)
        stage, stream = self._stages[index], self._run.stream
        bar.describe(f"{stage.title}, evaluating")

        def between(samples: int) -> None:
            bar.advance(samples)
            self._checkpointing.after_move(self._done, state, lambda: before)

        def predict(records: Records, known: Known) -> Iterator[Prediction]:
            return self._scorer.predict(*at, records, known, between)

        # with room for classes that are still to come, which are scored, too
        roomy = self._with_room(state, index, len(self._stages) - 1)
        at = roomy, classes_at(self._run, self._text, index, upcoming=True), index
        with results.timed("calibrate"):
            gauge = calibrate(self._run, self._feed, *at, predict, results)
        by_task = self._scorer.score(*at, gauge, results, between)
        controls = None
        if self._controls is not None:
            now = roomy, self._frozen, at[1], self._put(index)
            controls = self._controls.score(now, gauge, results, lambda: between(0))
        results.unknown[index] = unknowns.of_stage(stream, index, by_task, controls)
        if is_writer():
            run_summary.write_scores(
                self._workdir,
                self._owner.run,
                self._run,
                self._feed,
                self._text,
                results,
                by_task,
                controls,
            )
        self._writer.scores(index, results.scalars(stream, index))
        own, given, predicted = run_summary.mean_accuracies(stream, results, index)
        bar.reach(stage.samples)
        bar.accuracies(given, predicted)
        said = run_summary.said(stream, index, own, predicted)
        self._writer.say(f"{stage.title}: {said}{bar.left()}")
        results.stages = index + 1
        self._results = results

    def _counted(self) -> Results:
        self._results.count(self._run.learner.traces, self._run.learner.forwards)
        return self._results

    def _report(self) -> dict[str, Any]:
        return run_summary.whole_report(self._run, self._results)

    def _samples_done(self, index: int) -> float:
        if index == len(self._stages):
            return self._stages[-1].samples
        return self._stages[index].samples_after(self._done)

    def _put(self, number: int) -> jax.Array:
        return sharding.put(np.int32(number), self._run.mesh)
