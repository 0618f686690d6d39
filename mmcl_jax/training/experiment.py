"""The task loop: the only file that orders side effects."""

import contextlib
import copy
import dataclasses
import functools
import pathlib
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import jax
import numpy as np
from rich.console import Console

from mmcl_jax import config as configs
from mmcl_jax.errors import ConfigError
from mmcl_jax.evaluation import label_spaces
from mmcl_jax.files import write_json, write_text
from mmcl_jax.ops import rngs
from mmcl_jax.parallel import distributed, host_memory, sharding
from mmcl_jax.training import divergence
from mmcl_jax.training import learner as learners
from mmcl_jax.training import moves as schedule
from mmcl_jax.training.batches import Feed, Records
from mmcl_jax.training.build import Run, assemble, classes_at, describe
from mmcl_jax.training.checkpointing import Keeper
from mmcl_jax.training.evaluator import ByTask, Scorer
from mmcl_jax.training.preemption import Interrupt
from mmcl_jax.training.run_summary import level_of_knowledge, whole_report
from mmcl_jax.training.step_log import Step, StepLog
from mmcl_jax.types import Batch, Classes
from mmcl_jax.workdir import layout, predictions, resuming, temperatures
from mmcl_jax.workdir import weights_and_biases as wandb
from mmcl_jax.workdir.lock import Lock
from mmcl_jax.workdir.logs import Writer, is_writer, make_loggers, results_table
from mmcl_jax.workdir.progress import Bar
from mmcl_jax.workdir.results import Results, plain

State = learners.LearnerState


class Reporter(Protocol):
    """Draws pages of a run; it never stops one."""

    def after_stage(self, results: Callable[[], dict[str, Any]]) -> None:
        """Is called after each stage but the last; `results` gives those so far."""
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


def run(
    config: configs.Config,
    workdir: str | pathlib.Path,
    stop_after: int | None = None,
    interrupt: Interrupt | None = None,
    make_reporter: MakeReporter = lambda workdir, run, say: NoReporter(),
) -> dict[str, Any] | None:
    """Learns the stream, or goes on where the workdir's newest state stands.

    Args:
        config: the experiment.
        workdir: where everything is written; made if need be.
        stop_after: return after this stage of the stream; run again to go on.
        interrupt: says when to save and leave; None: never.
        make_reporter: opens what draws pages of the run, from the workdir, what is run
            and a function that says a line.

    Returns:
        What `results.json` holds, or None if the run was stopped before its end.

    Raises:
        ConfigError: before anything is written, if the experiment cannot be run.
        WorkdirError: another run has the workdir, or all its states are damaged.
        DataError: a sample cannot be decoded that was not verified beforehand.
        DivergedError: a loss, gradient or statistic is not finite.
        BatchDependenceError: the method predicts a sample differently in another batch.
        SaveError: a state cannot be written.
        Preempted: the run was asked to leave, and has saved its state.
    """
    workdir = pathlib.Path(workdir)
    interrupt = interrupt or Interrupt()
    resuming.check(workdir, config)
    wandb.check(config)
    lock = Lock(workdir) if is_writer() and workdir.exists() else None
    try:
        console = Console(quiet=not is_writer())
        try:
            assembled = assemble(config, console)
        except ValueError as error:
            raise ConfigError(str(error)) from error
        if is_writer():
            workdir.mkdir(parents=True, exist_ok=True)
            lock = lock or Lock(workdir)
            resuming.check(workdir, config)  # another run may have come in between
            _fill(workdir, config, describe(assembled))
            summary = "\n".join(assembled.encoder.summary)
            write_text(workdir / layout.ENCODER, summary + "\n")
        distributed.synchronize("workdir")
        writer = Writer(workdir, console)
        try:
            with contextlib.closing(
                _Loop(assembled, workdir, writer, interrupt, make_reporter)
            ) as loop:
                return loop.run(stop_after)
        finally:
            writer.close()
    finally:
        interrupt.nothing_to_save = True
        if lock:
            lock.release()


def _fill(
    workdir: pathlib.Path, config: configs.Config, stream: dict[str, Any]
) -> None:
    """Writes what is known before the first task."""
    (workdir / layout.PREDICTIONS).mkdir(exist_ok=True)
    if source := config.resume.removeprefix(resuming.BRANCH):
        resuming.branch(workdir, pathlib.Path(source), stream)
    resuming.check_stream(workdir, stream)
    resuming.write_config(workdir, config)
    write_json(workdir / layout.STREAM, stream)


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
        self._schedule = schedule.of_run(run, self._feed)
        steps = [stage.steps for stage in self._schedule.stages]
        writer.tell(make_loggers(workdir, run.config), steps)
        self._keeper = Keeper(
            workdir, run.config.checkpoint, interrupt, self._schedule.ends, writer
        )
        self._reporter = make_reporter(workdir, run, writer.say)
        self._done = 0

    def close(self) -> None:
        """Waits for what is being saved."""
        self._keeper.close()

    def run(self, stop_after: int | None) -> dict[str, Any] | None:
        stages = self._run.stream.stages
        for line in (level_of_knowledge(self._run.model), *self._run.notes):
            self._writer.say(line)
        state, first = self._start()
        with self._results.timed("text"):
            self._text = self._feed.embed_class_names()
        self._scorer = Scorer(self._run, self._feed, self._frozen, self._text)
        self._interrupt.nothing_to_save = False
        with self._writer.progress("starting", self._schedule.samples[-1]) as bar:
            bar.begin(self._schedule.samples_done(first, self._done))
            for index in range(first, len(stages)):
                if stop_after is not None and index >= stop_after:
                    self._writer.say(f"stopped after stage {index} of {len(stages)}")
                    return None
                state = self._learn(state, index, bar)
                self._score(state, index, bar)
                self._keeper.end_stage(index, state, self._counted())
                self._feed.forget(stages[index], "train")
                if index + 1 < len(stages):
                    with self._results.timed("report"):
                        self._reporter.after_stage(self._report)
                host_memory.trim()
        report = self._report()
        if is_writer():
            write_json(self._workdir / layout.RESULTS, report)
        self._reporter.at_end(report)
        self._writer.table(results_table(report))
        return report

    def _start(self) -> tuple[State, int]:
        """Returns the state to go on from, and its stage."""
        state, results, self._done = self._keeper.start(self._run.learner.init())
        if results is None:
            self._writer.take_back(0, 0)
            return state, 0
        self._results = results
        self._results.restarts += 1
        total = len(self._run.stream.stages)
        finished = results.stages
        moves = self._done - self._schedule.start(finished)
        where = f", {moves} moves into the next one" if moves else ""
        self._writer.say(f"going on after stage {finished} of {total}{where}")
        if finished < total:
            prepared = self._schedule.stages[finished].batches + 1
            self._writer.take_back(finished, moves - prepared)
        return state, finished

    def _counted(self) -> Results:
        self._results.count(self._run.learner.traces, self._run.learner.forwards)
        return self._results

    def _learn(self, state: State, index: int, bar: Bar) -> State:
        """Prepares, trains, observes and closes one stage, but for the moves done."""
        learner, method = self._run.learner, self._run.method
        records, timed = self._train_records(index), self._results.timed
        at = (self._frozen, self._classes(index), self._put(index))
        stage = self._schedule.stages[index]
        batches = stage.batches
        skipped = self._done - self._schedule.start(index)
        rows = sum(len(of) for of in records.values()) / max(batches, 1)
        moved = functools.partial(self._moved, bar=bar, samples=rows)
        bar.describe(stage.title)
        with timed("queries"):
            self._feed.embed_queries(
                self._run.stream.stages[index],
                "train",
                between=lambda: self._keeper.moved(self._done, state, self._counted),
            )
        with timed("prepare"):
            for i, batch in self._enumerated(records, skipped, decoded=False):
                state = moved(learner.prepare(state, *at, batch, self._put(i)))
            if skipped <= batches:
                state = jax.block_until_ready(learner.begin_task(state, *at))
                self._check(state, index, "when it began")
                state = moved(state, samples=0)
        skipped = max(skipped - batches - 1, 0)
        if method.trains:
            with timed("train"):
                state = self._train(state, at, index, records, skipped, moved)
        skipped = max(skipped - stage.steps, 0)
        with timed("observe"):
            if method.observes:
                for i, batch in self._enumerated(records, skipped):
                    state = moved(learner.observe(state, *at, batch, self._put(i)))
            if skipped <= stage.observed:
                state = jax.block_until_ready(learner.end_task(state, *at))
                self._check(state, index, "when it ended")
                self._results.refused_steps += int(state.refused)
                state = moved(state, samples=0)
        return state

    def _moved(
        self,
        state: State,
        check: Callable[[State], None] | None = None,
        *,
        bar: Bar,
        samples: float,
    ) -> State:
        """Counts a move; what the keeper saves must stand the `check` and be finite."""

        def results() -> Results:
            if check:
                check(state)
            finite, _ = self._run.learner.health(state)
            if not finite:
                where = f"{self._title(self._results.stages)}, so far"
                raise divergence.of_state(where, state)
            return self._counted()

        self._done += 1
        bar.advance(samples)
        self._keeper.moved(self._done, state, results)
        return state

    def _train(
        self,
        state: State,
        at: tuple,
        index: int,
        records: Records,
        skipped: int,
        moved: Callable[..., State],
    ) -> State:
        steps = self._schedule.stages[index].steps
        total = self._put(steps)
        log = StepLog(
            self._run.config.train.log_every_steps,
            steps - 1,
            lambda step, values: self._writer.scalars(index, step, **plain(values)),
            functools.partial(self._refused, index),
        )
        for step, batch in self._training_batches(records, index, skipped):
            state, logged = self._run.learner.train_step(state, *at, total, batch)
            log.add(Step(step, batch.id, logged), state)
            state = moved(state, log.finish)
        log.finish(state)
        return jax.block_until_ready(state)

    def _training_batches(
        self, records: Records, index: int, skipped: int
    ) -> Iterator[tuple[int, Batch]]:
        """Yields step and batch over all epochs, from the step `skipped` on."""
        length = self._feed.num_batches(records)
        first, start = divmod(skipped, length) if length else (0, 0)
        step = skipped
        for epoch in range(first, self._run.config.train.epochs):
            seed = rngs.host_seed(self._run.config.seeds.data, "epoch", index, epoch)
            for batch in self._batches(records, seed, start):
                yield step, batch
                step += 1
            start = 0

    def _refused(self, index: int, step: Step, state: State) -> None:
        """Stops at a step that is not finite; the learner has refused to take it."""
        if self._run.config.train.on_nonfinite != "stop":
            return
        # the step has left the rest as it was, and so have those that followed
        before = dataclasses.replace(
            state, step=np.int32(step.number), refused=np.zeros((), np.int32)
        )
        before = sharding.put(before, self._run.mesh)
        prepared = self._schedule.stages[index].batches + 1
        moves = self._schedule.start(index) + prepared + step.number
        self._keeper.checkpoint(moves, before, self._counted())
        where = f"{self._title(index)}, step {step.number + 1}"
        raise divergence.of_step(where, step.ids, step.metrics)

    def _check(self, state: State, index: int, when: str) -> None:
        """Stops at what is not finite, and reports what could hardly be solved."""
        finite, jitter = jax.device_get(self._run.learner.health(state))
        if jitter > 0:
            self._writer.say(
                f"{self._title(index)}, {when}: a matrix was close to singular; up to "
                f"{jitter:.1e} was added to its diagonal. More shrinkage or "
                "regularization of the method avoids that"
            )
            self._results.jitter[index] = max(
                float(jitter), self._results.jitter.get(index, 0.0)
            )
        if not finite:
            raise divergence.of_state(f"{self._title(index)}, {when}", state)

    def _enumerated(
        self, records: Records, skipped: int, decoded: bool = True
    ) -> Iterator[tuple[int, Batch]]:
        """Yields the batches of one pass behind the first ones, with their indices."""
        decoded = decoded and self._run.method.needs_inputs
        batches = self._feed.batches(records, decoded=decoded, start=skipped)
        return enumerate(batches, skipped)

    def _batches(self, records: Records, seed: int, start: int) -> Iterator[Batch]:
        return self._feed.batches(records, seed, self._run.method.needs_inputs, start)

    def _train_records(self, index: int) -> Records:
        return self._feed.records(self._run.stream.stages[index], "train")

    def _put(self, number: int) -> jax.Array:
        return sharding.put(np.int32(number), self._run.mesh)

    def _title(self, index: int) -> str:
        return self._schedule.stages[index].title

    def _classes(self, index: int) -> Classes:
        return classes_at(self._run, self._text, index)

    def _score(self, state: State, index: int, bar: Bar) -> None:
        """Fills the accuracy row of a stage; what is left half done is done anew."""
        before, results = self._counted(), copy.deepcopy(self._results)
        bar.describe(f"{self._title(index)}, scored")

        def between(samples: int) -> None:
            bar.advance(samples)
            self._keeper.moved(self._done, state, lambda: before)

        at = state, self._classes(index), index
        by_task = self._scorer.score(*at, results, between)
        with results.timed("calibrate"):
            results.temperatures[index] = self._scorer.temperatures(*at, between)
        stream = self._run.stream
        seen = [i for stage in stream.stages[: index + 1] for i in stage]
        if is_writer():
            self._write_scores(index, seen, by_task, results)
        own = np.mean(
            [results.accuracy[0, 0, seen[-1], i] for i in stream.stages[index]]
        )
        union = results.accuracy[label_spaces.SPACES.index("union"), :, seen[-1]]
        given, predicted = union[:, seen].mean(-1)
        self._writer.scores(index, results.scalars(stream, index))
        bar.reach(self._schedule.samples[index])
        bar.accuracies(given, predicted)
        self._writer.say(
            f"{self._title(index)}: {100 * own:.1f} % among its own classes; all seen "
            f"{100 * predicted:.1f} % among all classes, modality predicted{bar.left()}"
        )
        results.stages = index + 1
        self._results = results

    def _write_scores(
        self, index: int, seen: list[int], by_task: ByTask, results: Results
    ) -> None:
        path = layout.predictions(self._workdir, index)
        predictions.save_predictions(path, by_task)
        temperatures.write(self._workdir, results.temperatures)
        tests = (row for i in seen for row in self._run.stream.tasks[i].test)
        rows = predictions.some_of_each_class(tests)
        queries = self._feed.queries(rows)
        path = self._workdir / layout.EMBEDDINGS
        predictions.save_embeddings(path, self._text, rows, queries)

    def _report(self) -> dict[str, Any]:
        return whole_report(self._run, self._results)
