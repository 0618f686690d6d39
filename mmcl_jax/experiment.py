"""The task loop: the only file that orders side effects."""

import dataclasses
import json
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
from rich.console import Console

from mmcl_jax import config as configs
from mmcl_jax import cost, evaluate, invariance, metrics, rngs, sharding
from mmcl_jax import learner as learners
from mmcl_jax.assemble import Run, assemble, describe, describe_tasks
from mmcl_jax.feed import Feed, Records
from mmcl_jax.files import read_json
from mmcl_jax.results import Results, environment, level_of_knowledge, plain
from mmcl_jax.snapshots import Snapshots
from mmcl_jax.types import Batch, Classes, Prediction
from mmcl_jax.writers import Bar, Writer, is_writer, results_table

State = learners.LearnerState


def run(
    config: configs.Config, workdir: str | pathlib.Path, stop_after: int | None = None
) -> dict[str, Any] | None:
    """Learns the stream, or goes on where the workdir's newest snapshot stands.

    Args:
        config: the experiment.
        workdir: where everything is written; made if need be.
        stop_after: return after this stage of the stream; run again to go on.

    Returns:
        What `results.json` holds, or None if the run was stopped before its end.

    Raises:
        ConfigError: before anything is written, if the experiment cannot be run.
        DataError: a sample cannot be decoded that was not verified beforehand.
        BatchDependenceError: the method predicts a sample differently in another batch.
    """
    workdir = pathlib.Path(workdir)
    _check_workdir(workdir, config)
    console = Console(quiet=not is_writer())
    try:
        assembled = assemble(config, console)
    except ValueError as error:
        raise configs.ConfigError(str(error)) from error
    if is_writer():
        (workdir / "predictions").mkdir(parents=True, exist_ok=True)
        _write(workdir / "config.json", configs.to_json(config))
        _write_json(workdir / "stream.json", describe(assembled))
    writer, snapshots = Writer(workdir, console), Snapshots(workdir)
    try:
        return _Loop(assembled, workdir, writer, snapshots).run(stop_after)
    finally:
        snapshots.close()
        writer.close()


def _check_workdir(workdir: pathlib.Path, config: configs.Config) -> None:
    if workdir.exists() and not workdir.is_dir():
        raise configs.ConfigError(f"--workdir: {workdir} is not a folder")
    path = workdir / "config.json"
    if not path.exists():
        return
    stored, wanted = read_json(path), json.loads(configs.to_json(config))
    if different := sorted(_differences(stored, wanted, "config")):
        raise configs.ConfigError(
            f"--workdir: {workdir} was made with another config: "
            f"{'; '.join(different)}. Choose another folder"
        )


def _differences(there: Any, here: Any, path: str) -> Iterator[str]:
    if isinstance(there, dict) and isinstance(here, dict):
        for key in there.keys() | here.keys():
            yield from _differences(there.get(key), here.get(key), f"{path}.{key}")
    elif there != here:
        yield f"{path} is {there!r} there and {here!r} here"


class _Loop:
    """One pass over the stages of a stream."""

    def __init__(
        self, run: Run, workdir: pathlib.Path, writer: Writer, snapshots: Snapshots
    ) -> None:
        self._run, self._workdir = run, workdir
        self._writer, self._snapshots = writer, snapshots
        self._frozen = sharding.put(run.encoder.frozen, run.mesh)
        self._feed = Feed(run, self._frozen)
        self._results = Results.start(len(run.stream.tasks))

    def run(self, stop_after: int | None) -> dict[str, Any] | None:
        stages = self._run.stream.stages
        for line in (level_of_knowledge(self._run.stream), *self._run.notes):
            self._writer.say(line)
        state, first = self._start()
        with self._results.timed("text"):
            self._text = self._feed.embed_class_names()
        steps = sum(
            self._steps(self._train_records(i)) for i in range(first, len(stages))
        )
        with self._writer.progress("training", steps) as bar:
            for index in range(first, len(stages)):
                if stop_after is not None and index >= stop_after:
                    self._writer.say(f"stopped after stage {index} of {len(stages)}")
                    return None
                state = self._learn(state, index, bar)
                self._score(state, index)
                self._results.count(
                    self._run.learner.traces, self._run.learner.forwards
                )
                tree = {"params": state.params, "memory": state.memory}
                self._snapshots.save(index, tree, self._results.to_json())
        report = plain(self._report())
        if is_writer():
            _write_json(self._workdir / "results.json", report)
        self._writer.table(results_table(report))
        return report

    def _start(self) -> tuple[State, int]:
        """Returns the state to go on from, and the stage that comes next."""
        state = self._run.learner.init()
        latest = self._snapshots.latest()
        if latest is None:
            return state, 0
        like = {"params": state.params, "memory": state.memory}
        tree, results = self._snapshots.restore(latest, like)
        self._results = Results.from_json(results)
        total = len(self._run.stream.stages)
        self._writer.say(f"going on after stage {latest + 1} of {total}")
        return dataclasses.replace(state, **tree), latest + 1

    def _learn(self, state: State, index: int, bar: Bar) -> State:
        """Prepares, trains, observes and closes one stage."""
        learner, method = self._run.learner, self._run.method
        records, timed = self._train_records(index), self._results.timed
        at = (self._frozen, self._classes(index), np.int32(index))
        with timed("queries"):
            self._feed.embed_queries(self._run.stream.stages[index], "train")
        with timed("prepare"):
            for i, batch in enumerate(self._feed.batches(records, decoded=False)):
                state = learner.prepare(state, *at, batch, np.int32(i))
            state = jax.block_until_ready(learner.begin_task(state, *at))
        if method.trains:
            with timed("train"):
                state = self._train(state, at, index, records, bar)
        with timed("observe"):
            if method.observes:
                for i, batch in enumerate(self._batches(records)):
                    state = learner.observe(state, *at, batch, np.int32(i))
            return jax.block_until_ready(learner.end_task(state, *at))

    def _train(
        self, state: State, at: tuple, index: int, records: Records, bar: Bar
    ) -> State:
        options, steps = self._run.config.train, self._steps(records)
        bar.advance(f"training {self._title(index)}", 0)
        step = 0
        for epoch in range(options.epochs):
            seed = rngs.host_seed(self._run.config.seeds.data, "epoch", index, epoch)
            for batch in self._batches(records, seed):
                state, logged = self._run.learner.train_step(
                    state, *at, np.int32(steps), batch
                )
                step += 1
                bar.advance()
                if step % options.log_every_steps == 0 or step == steps:
                    values = {name: float(value) for name, value in logged.items()}
                    self._writer.scalars(stage=index, step=step, **values)
        return jax.block_until_ready(state)

    def _batches(self, records: Records, seed: int | None = None) -> Iterator[Batch]:
        return self._feed.batches(records, seed, self._run.method.needs_inputs)

    def _steps(self, records: Records) -> int:
        if not self._run.method.trains:
            return 0
        return self._run.config.train.epochs * self._feed.num_batches(records)

    def _train_records(self, index: int) -> Records:
        return self._feed.records(self._run.stream.stages[index], "train")

    def _title(self, index: int) -> str:
        stream = self._run.stream
        stage, total = stream.stages[index], len(stream.stages)
        name = stream.tasks[stage[0]].name if len(stage) == 1 else f"{len(stage)} tasks"
        return f"[{index + 1}/{total}] {name}"

    def _classes(self, index: int) -> Classes:
        stream = self._run.stream
        slots = [[c for i in s for c in stream.tasks[i].classes] for s in stream.stages]
        return learners.make_classes(
            self._text,
            [stream.modalities.index(slot.modality) for slot in stream.classes],
            seen=sum(slots[: index + 1], []),
            of_task=slots[index],
            mesh=self._run.mesh,
        )

    def _score(self, state: State, index: int) -> None:
        """Fills the accuracy row of a stage: all seen test sets, and the next ones."""
        stream, results = self._run.stream, self._results
        seen = [i for stage in stream.stages[: index + 1] for i in stage]
        upcoming = [i for stage in stream.stages[index + 1 : index + 2] for i in stage]
        classes, by_task = self._classes(index), {}
        witness = self._witness([*seen, *upcoming], index)
        with results.timed("evaluate"):
            for i in [*seen, *upcoming]:
                records = self._feed.records([i], "test")
                self._feed.embed_queries([i], "test")
                predictions = self._predictions(state, classes, index, records)
                predictions = witness.watch(stream.tasks[i].test, predictions)
                by_task[i] = evaluate.predict_task(stream, i, seen, predictions)
                scores = evaluate.accuracy(stream, by_task[i])
                results.accuracy[:, :, seen[-1], i] = scores
                results.zero_shot[:, seen[-1], i] = self._zero_shot(i, seen)
        with results.timed("invariance"):
            self._predict_again(state, classes, index, seen, witness)
        true, predicted = evaluate.identification(stream, by_task, seen)
        results.identification = metrics.modality_identification(
            true, predicted, len(stream.modalities)
        )._asdict()
        if is_writer():
            path = self._workdir / "predictions" / f"{index:03d}.npz"
            evaluate.save_predictions(str(path), by_task)
        own = np.mean(
            [results.accuracy[0, 0, seen[-1], i] for i in stream.stages[index]]
        )
        union = results.accuracy[evaluate.SPACES.index("union"), 1, seen[-1], seen]
        self._writer.say(
            f"{self._title(index)}: {100 * own:.1f} % among its own classes; all seen "
            f"{100 * union.mean():.1f} % among all classes, modality predicted"
        )

    def _witness(self, tasks: Sequence[int], index: int) -> invariance.Witness:
        """Chooses the test samples that are predicted twice, a batch a modality."""
        size = self._run.config.train.batch_size
        seed = rngs.host_seed(self._run.config.seeds.data, "invariance", index)
        records = self._feed.records(tasks, "test")
        return invariance.Witness(invariance.sample(records, size, seed))

    def _predict_again(
        self,
        state: State,
        classes: Classes,
        index: int,
        seen: Sequence[int],
        witness: invariance.Witness,
    ) -> None:
        stream = self._run.stream
        for modality, rows in witness.records.items():
            predictions = self._predictions(state, classes, index, {modality: rows})
            again = [np.asarray(prediction.logits) for prediction in predictions]
            tasks = {row.id: i for i, t in enumerate(stream.tasks) for row in t.test}
            owners = [tasks[row.id] for row in rows]
            slots = {i: evaluate.allowed_slots(stream, i, seen) for i in set(owners)}
            differing = invariance.differing(
                witness.logits(rows),
                np.concatenate(again, axis=1)[:, : len(rows)],
                np.stack([slots[i] for i in owners]),
            )
            found = self._results.batch_dependence
            found["predicted_again"] += len(rows)
            found["differing"] += int(differing.sum())
            stops = self._run.config.evaluation.batch_dependence == "stop"
            if stops and differing.any():
                raise invariance.BatchDependenceError(
                    f"method {self._run.config.method.name!r}: {differing.sum()} of "
                    f"{len(rows)} {modality} samples are predicted differently in "
                    "another batch; a prediction must depend on its sample alone"
                )

    def _predictions(
        self, state: State, classes: Classes, index: int, records: Records
    ) -> Iterator[Prediction]:
        for batch in self._batches(records):
            yield self._run.learner.predict(
                state, self._frozen, classes, np.int32(index), batch
            )

    def _zero_shot(self, task: int, seen: Sequence[int]) -> np.ndarray:
        """Returns the frozen encoder's accuracy on a test set, `[spaces]`."""
        rows = self._run.stream.tasks[task].test
        queries = self._feed.queries(rows)
        labels = np.array([row.label for row in rows])
        return evaluate.zero_shot_accuracy(
            self._run.stream, task, seen, queries, labels, self._text
        )

    def _report(self) -> dict[str, Any]:
        run, results = self._run, self._results
        return {
            "schema": 1,
            "method": run.config.method.name,
            "seeds": dataclasses.asdict(run.config.seeds),
            "environment": environment(run.mesh),
            "knowledge": level_of_knowledge(run.stream),
            "modalities": run.stream.modalities,
            "tasks": describe_tasks(run.stream),
            "skipped_samples": run.skipped_samples,
            **results.report(),
            "cost": {
                "seconds": {k: round(v, 3) for k, v in results.seconds.items()},
                "compilations": sum(results.compilations.values()),
                "forwards_per_step": results.forwards.get("train_step", 0),
                "forwards_per_prediction": results.forwards.get("predict", 0),
                **cost.sizes(run.make_method, run.model),
            },
        }


def _write_json(path: pathlib.Path, value: Any) -> None:
    _write(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def _write(path: pathlib.Path, text: str) -> None:
    """Writes a file at once, so that a reader never finds half of it."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(text)
    temporary.replace(path)
