"""Fills the row of the accuracy matrix that belongs to a stage."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from mmcl_jax import calibration, evaluate, invariance, metrics, rngs, sharding
from mmcl_jax.assemble import Run
from mmcl_jax.calibration import ROUTES, SAMPLES
from mmcl_jax.feed import Feed, Records, ahead
from mmcl_jax.learner import LearnerState
from mmcl_jax.results import Results
from mmcl_jax.types import Batch, Classes, Prediction, PyTree

ByTask = dict[int, evaluate.TaskPredictions]
# called behind each batch with the number of samples that are scored by it; whoever
# wants to stop a long computation does it there
Between = Callable[[int], None]


class Scorer:
    """Predicts the test sets of a run."""

    def __init__(self, run: Run, feed: Feed, frozen: PyTree, text: np.ndarray) -> None:
        """Takes the frozen weights on the devices and class texts `[C d]`."""
        self._run, self._feed = run, feed
        self._frozen, self._text = frozen, text
        # of each test set, what the tower was asked and what it has answered
        self._known: dict[int, tuple[PyTree, list[PyTree]]] = {}

    def score(
        self,
        state: LearnerState,
        classes: Classes,
        index: int,
        results: Results,
        between: Between,
    ) -> ByTask:
        """Fills a row of `results`: all seen test sets, and those of the next stage.

        Args:
            state: behind the stage.
            classes: as they are met then.
            index: of the stage.
            results: is filled.
            between: see `Between`.

        Returns:
            The predictions, by task.

        Raises:
            BatchDependenceError: a sample is predicted differently in another batch.
        """
        stream = self._run.stream
        seen = [i for stage in stream.stages[: index + 1] for i in stage]
        upcoming = [i for stage in stream.stages[index + 1 : index + 2] for i in stage]
        by_task: ByTask = {}
        witness = self._witness([*seen, *upcoming], index)
        with results.timed("evaluate"):
            for i in [*seen, *upcoming]:
                records = self._feed.records([i], "test")
                self._feed.embed_queries([i], "test", lambda: between(0))
                predictions = self._predictions(state, classes, index, records, i)
                total = len(stream.tasks[i].test)
                predictions = _paused(predictions, total, between)
                predictions = witness.watch(stream.tasks[i].test, predictions)
                by_task[i] = evaluate.predict_task(stream, i, seen, predictions)
                scores = evaluate.accuracy(stream, by_task[i])
                results.accuracy[:, :, seen[-1], i] = scores
                results.zero_shot[:, seen[-1], i] = self._zero_shot(i, seen)
        with results.timed("invariance"):
            self._predict_again(state, classes, index, seen, witness, results, between)
        true, predicted = evaluate.identification(stream, by_task, seen)
        results.identification = metrics.modality_identification(
            true, predicted, len(stream.modalities)
        )._asdict()
        return by_task

    def temperatures(
        self, state: LearnerState, classes: Classes, index: int, between: Between
    ) -> dict[str, float | None]:
        """Returns the temperature of each route on a stage's own training samples.

        Args:
            state: behind the stage.
            classes: as they are met then.
            index: of the stage, whose queries have been embedded.
            between: see `Between`.

        Returns:
            What `calibration.temperature` gives: among the classes of the modality
            where it is given, else among all that were met.
        """
        stream = self._run.stream
        seed = rngs.host_seed(self._run.config.seeds.data, "calibration", index)
        order = np.random.default_rng(seed)
        seen, modality = np.asarray(classes.seen), np.asarray(classes.modality)
        logits, allowed, label = [], [], []
        for name, rows in self._feed.records(stream.stages[index], "train").items():
            rows = [rows[i] for i in order.permutation(len(rows))[:SAMPLES]]
            predictions = self._predictions(state, classes, index, {name: rows})
            predictions = _paused(predictions, 0, between)
            found = [np.asarray(prediction.logits) for prediction in predictions]
            found = np.concatenate(found, axis=1)[:, : len(rows)]
            logits.append(found[[0, -1]])  # a method without a hint has one route
            own = seen & (modality == stream.modalities.index(name))
            spaces = np.stack([own, seen])[:, None]
            allowed.append(np.broadcast_to(spaces, logits[-1].shape))
            label += [row.label for row in rows]
        logits, allowed = np.concatenate(logits, 1), np.concatenate(allowed, 1)
        return {
            route: calibration.temperature(logits[r], np.array(label), allowed[r])
            for r, route in enumerate(ROUTES)
        }

    def _witness(self, tasks: Sequence[int], index: int) -> invariance.Witness:
        """Chooses the test samples that are predicted twice, a batch a modality."""
        size = self._run.config.train.batch_size
        seed = rngs.host_seed(self._run.config.seeds.data, "invariance", index)
        records = self._feed.records(tasks, "test")
        return invariance.Witness(invariance.sample(records, size, seed))

    def _predict_again(
        self,
        state: LearnerState,
        classes: Classes,
        index: int,
        seen: Sequence[int],
        witness: invariance.Witness,
        results: Results,
        between: Between,
    ) -> None:
        stream = self._run.stream
        for modality, rows in witness.records.items():
            predictions = self._predictions(state, classes, index, {modality: rows})
            predictions = _paused(predictions, 0, between)
            again = [np.asarray(prediction.logits) for prediction in predictions]
            tasks = {row.id: i for i, t in enumerate(stream.tasks) for row in t.test}
            owners = [tasks[row.id] for row in rows]
            slots = {i: evaluate.allowed_slots(stream, i, seen) for i in set(owners)}
            differing = invariance.differing(
                witness.logits(rows),
                np.concatenate(again, axis=1)[:, : len(rows)],
                np.stack([slots[i] for i in owners]),
            )
            found = results.batch_dependence
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
        self,
        state: LearnerState,
        classes: Classes,
        index: int,
        records: Records,
        task: int | None = None,
    ) -> Iterator[Prediction]:
        """Yields the predictions of some samples.

        Args:
            state: behind the stage.
            classes: as they are met then.
            index: of the stage.
            records: the samples.
            task: whose test set they are: what the tower answers is kept for later
                stages, and what it cannot answer otherwise is not asked again.
        """
        learner = self._run.learner
        stage = sharding.put(np.int32(index), self._run.mesh)
        at = (state, self._frozen, classes, stage)
        bare = self._feed.batches(records, decoded=False)
        if not self._run.method.needs_inputs:
            started = (learner.predict(*at, batch) for batch in bare)
        else:
            bare = list(bare)
            answers = self._answers(at, records, bare, task)
            started = (
                learner.conclude(*at, batch, answered)
                for batch, answered in zip(bare, answers, strict=True)
            )
        return map(jax.device_get, ahead(started))

    def _answers(
        self, at: tuple, records: Records, bare: Sequence[Batch], task: int | None
    ) -> Iterator[PyTree]:
        """Yields what the tower answers in each batch, see `forwards`."""
        learner, asked = self._run.learner, None
        if task is not None:
            asked = jax.device_get([learner.ask(*at, batch) for batch in bare])
            before, answers = self._known.get(task, (None, []))
            if _same(before, asked):
                yield from sharding.put(answers, self._run.mesh)
                return
        answers = []
        for batch in self._feed.batches(records):
            answers.append(learner.answer(*at, batch))
            yield answers[-1]
        if task is not None:
            self._known[task] = asked, jax.device_get(answers)

    def _zero_shot(self, task: int, seen: Sequence[int]) -> np.ndarray:
        """Returns the frozen encoder's accuracy on a test set, `[spaces]`."""
        rows = self._run.stream.tasks[task].test
        queries = self._feed.queries(rows)
        labels = np.array([row.label for row in rows])
        return evaluate.zero_shot_accuracy(
            self._run.stream, task, seen, queries, labels, self._text
        )


def _same(before: PyTree, after: PyTree) -> bool:
    """Returns whether all forwards were asked the same; see `forwards.ask`."""
    if before is None:
        return False
    pairs = zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True)
    return all(np.array_equal(a, b) and np.array_equal(b[0], b[1]) for a, b in pairs)


def _paused(
    predictions: Iterator[Prediction], samples: int, between: Between
) -> Iterator[Prediction]:
    """Yields predictions of `samples` that count; rows behind them are padding."""
    for prediction in predictions:
        yield prediction
        counted = min(prediction.logits.shape[-2], samples)
        samples -= counted
        between(counted)


def frozen_accuracy(run: Run) -> dict[str, Any]:
    """Returns the accuracy of the frozen encoder on the test samples of each task.

    A sample is taken for the class of the nearest text; see `Feed.embed_class_names`
    for the ensemble of templates that a text is.

    Returns:
        For each task its `name`, `modality`, number of `classes` and of `samples`, and
        accuracies: `own` among the task's classes, `modality_classes` among those of
        its modality in the whole stream, `all` among all; `mean` of the three over
        tasks; the lines of the encoder's `summary`.

    References:
        Radford et al., Learning Transferable Visual Models From Natural Language
        Supervision, 2021, section 3.1.4 (ensembles of templates).
    """
    stream = run.stream
    feed = Feed(run, run.encoder.frozen)
    text = feed.embed_class_names()
    every = range(len(stream.tasks))
    # by the label spaces of `evaluate`, where all tasks have been met
    spaces = {"own": "task", "modality_classes": "modality", "all": "universe"}
    rows = []
    for i, task in enumerate(stream.tasks):
        feed.embed_queries([i], "test")
        queries = feed.queries(task.test)
        labels = np.array([row.label for row in task.test])
        found = evaluate.zero_shot_accuracy(stream, i, every, queries, labels, text)
        by_space: dict[str, float] = dict(
            zip(evaluate.SPACES, found.tolist(), strict=True)
        )
        rows.append(
            {
                "name": task.name,
                "modality": task.modality,
                "classes": len(task.classes),
                "samples": len(labels),
                **{name: by_space[space] for name, space in spaces.items()},
            }
        )
    mean = {space: float(np.mean([row[space] for row in rows])) for space in spaces}
    return {"tasks": rows, "mean": mean, "encoder": list(run.encoder.summary)}
