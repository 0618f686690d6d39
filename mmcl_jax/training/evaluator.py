"""Fills the row of the accuracy matrix that belongs to a stage."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import jax
import numpy as np

from mmcl_jax.errors import BatchDependenceError
from mmcl_jax.evaluation import batch_independence, label_spaces, metrics
from mmcl_jax.ops import rngs
from mmcl_jax.parallel import distributed, sharding
from mmcl_jax.streams.base import scored_tasks
from mmcl_jax.training.batches import Feed, Records, ahead
from mmcl_jax.training.build import Run
from mmcl_jax.training.learner import LearnerState
from mmcl_jax.training.unknowns import Gauge, Watch
from mmcl_jax.types import Classes, Prediction, PyTree
from mmcl_jax.workdir.results import Results

# called after each batch with the number of samples that it has evaluated; the place
# where a long computation can be stopped
Between = Callable[[int], None]
# for each batch of some samples: the tower's features, and digests of what was injected
# when they were computed
Known = list[tuple[PyTree, PyTree]]


class Scorer:
    """Predicts the test sets of a run."""

    def __init__(self, run: Run, feed: Feed, frozen: PyTree, text: np.ndarray) -> None:
        """Takes the frozen weights on the devices and class texts `[C d]`."""
        self._run, self._feed = run, feed
        self._frozen, self._text = frozen, text
        self._known: dict[int, Known] = {}

    def score(
        self,
        state: LearnerState,
        classes: Classes,
        index: int,
        gauge: Gauge,
        results: Results,
        between: Between,
    ) -> label_spaces.ByTask:
        """Fills a row of `results`: all seen test sets, and upcoming ones.

        Args:
            state: State after the stage.
            classes: Class slots as seen in the stage.
            index: Index of the stage.
            gauge: Measures the novelty of samples.
            results: Results that are filled in place.
            between: See `Between`.

        Returns:
            The predictions, by task.

        Raises:
            BatchDependenceError: A sample is predicted differently in another batch.
        """
        stream = self._run.stream
        seen, upcoming = scored_tasks(
            stream, index, self._run.config.evaluation.upcoming
        )
        scored = [i for i in (*seen, *upcoming) if i not in self._run.unscored]
        by_task: label_spaces.ByTask = {}
        witness = self._witness(scored, index)
        with results.timed("evaluate"):
            for i in scored:
                records = self._feed.records([i], "test")
                self._feed.embed_queries([i], "test", lambda: between(0))
                known = self._known.setdefault(i, [])
                predictions = self._predictions(state, classes, index, records, known)
                test = stream.tasks[i].test
                predictions = _paused(predictions, len(test), between)
                predictions = witness.watch(test, predictions)
                watch = Watch(gauge, stream.tasks[i].modality)
                predictions = watch.watch(predictions)
                found = label_spaces.predict_task(stream, i, seen, predictions)
                told = watch.scores(self._feed.queries(test), self._feed.layers(test))
                by_task[i] = dataclasses.replace(found, **told._asdict())
                scores = label_spaces.accuracy(stream, by_task[i])
                results.accuracy[:, :, seen[-1], i] = scores
                results.zero_shot[:, seen[-1], i] = self._zero_shot(
                    i, seen, found.modality
                )
        with results.timed("invariance"):
            self._predict_again(state, classes, index, seen, witness, results, between)
        scored_seen = [i for i in seen if i in by_task]
        true, predicted = label_spaces.identification(stream, by_task, scored_seen)
        results.identification = metrics.modality_identification(
            true, predicted, len(stream.modalities)
        )._asdict()
        return by_task

    def predict(
        self,
        state: LearnerState,
        classes: Classes,
        index: int,
        records: Records,
        known: Known,
        between: Between,
    ) -> Iterator[Prediction]:
        """Yields the predictions of any samples whose queries have been embedded.

        Args:
            state: State after the stage.
            classes: Class slots as seen in the stage.
            index: Index of the stage.
            records: The samples.
            known: Receives what the tower gives for each batch, if it is asked.
            between: See `Between`.
        """
        predictions = self._predictions(state, classes, index, records, known)
        return _paused(predictions, 0, between)

    def _witness(self, tasks: Sequence[int], index: int) -> batch_independence.Witness:
        """Chooses the test samples to predict twice, one batch per modality."""
        size = self._run.config.train.batch_size
        seed = rngs.host_seed(self._run.config.seeds.data, "invariance", index)
        records = self._feed.records(tasks, "test")
        return batch_independence.Witness(
            batch_independence.sample(records, size, seed)
        )

    def _predict_again(
        self,
        state: LearnerState,
        classes: Classes,
        index: int,
        seen: Sequence[int],
        witness: batch_independence.Witness,
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
            slots = {
                i: label_spaces.allowed_slots(stream, i, seen) for i in set(owners)
            }
            differing = batch_independence.differing(
                witness.logits(rows),
                np.concatenate(again, axis=1)[:, : len(rows)],
                np.stack([slots[i] for i in owners]),
            )
            found = results.batch_dependence
            found["predicted_again"] += len(rows)
            found["differing"] += int(differing.sum())
            stops = self._run.config.evaluation.batch_dependence == "stop"
            if stops and differing.any():
                raise BatchDependenceError(
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
        known: Known | None = None,
    ) -> Iterator[Prediction]:
        """Yields the predictions of some samples, over the stream's classes.

        Columns of modalities are in the order of `stream.modalities`.

        Args:
            state: State after the stage.
            classes: Class slots as seen in the stage.
            index: Index of the stage.
            records: The samples.
            known: The tower's features as far as they are known. They are not computed
                again while they would be the same; others are added.
        """
        learner, feed, method = self._run.learner, self._feed, self._run.method
        stage = sharding.put(np.int32(index), self._run.mesh)
        at = (state, self._frozen, classes, stage)
        if method.needs_inputs and not method.drives_tower:
            known = [] if known is None else known
            return map(self._of_stream, self._concluded(at, records, known))
        batches = feed.batches(records, decoded=method.needs_inputs)
        started = (learner.predict(*at, batch) for batch in batches)
        return map(self._of_stream, map(jax.device_get, ahead(started)))

    def _of_stream(self, prediction: Prediction) -> Prediction:
        """Returns a prediction without slots and modalities that are not in use."""
        stream, known = self._run.stream, self._run.model.modalities
        own = [known.index(name) for name in stream.modalities]
        return Prediction(
            prediction.logits[..., : len(stream.classes)], prediction.modality[..., own]
        )

    def _concluded(
        self, at: tuple, records: Records, known: Known
    ) -> Iterator[Prediction]:
        """Yields predictions, from stored features as long as these are valid."""
        learner, feed = self._run.learner, self._feed
        start = 0
        for prediction in self._recalled(at, records, known):
            yield prediction
            start += 1
        del known[start:]
        if start == feed.num_batches(records):
            return

        def computed() -> Iterator[tuple]:
            whole = feed.batches(records, start=start)
            bare = feed.batches(records, decoded=False, start=start)
            for batch, rest in zip(whole, bare, strict=True):
                answers = learner.answer(*at, batch)
                # not by `predict`, which may round differently from `conclude`: so
                # predictions from stored features are equal bit by bit
                yield *learner.conclude(*at, rest, answers), answers

        for prediction, asked, answers in ahead(computed()):
            known.append(jax.device_get((answers, asked)))
            yield jax.device_get(prediction)

    def _recalled(
        self, at: tuple, records: Records, known: Known
    ) -> Iterator[Prediction]:
        """Yields predictions from stored features while the injections are the same."""
        bare = self._feed.batches(records, decoded=False)
        concluded = (
            self._run.learner.conclude(
                *at, batch, sharding.put_local(answers, self._run.mesh)
            )
            for batch, (answers, _) in zip(bare, known, strict=False)
        )
        for result, (_, before) in zip(ahead(concluded), known, strict=True):
            prediction, asked = jax.device_get(result)
            # all processes must stop at the same batch: the tower runs on all of them
            if not distributed.everywhere(_equal(asked, before)):
                return
            yield prediction

    def _zero_shot(
        self, task: int, seen: Sequence[int], modality: np.ndarray
    ) -> np.ndarray:
        """Returns the frozen encoder's accuracy on a test set, `[spaces]`.

        Its answers are among the classes of the modality that the method predicts.
        """
        rows = self._run.stream.tasks[task].test
        queries = self._feed.queries(rows)
        labels = np.array([row.label for row in rows])
        return label_spaces.zero_shot_accuracy(
            self._run.stream, task, seen, queries, labels, self._text, modality
        )


def _equal(left: PyTree, right: PyTree) -> bool:
    pairs = zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True)
    return all(np.array_equal(a, b) for a, b in pairs)


def _paused(
    predictions: Iterator[Prediction], samples: int, between: Between
) -> Iterator[Prediction]:
    """Yields predictions, calling `between` with how many of `samples` each holds.

    Rows after the last of them are padding and do not count.
    """
    for prediction in predictions:
        yield prediction
        counted = min(prediction.logits.shape[-2], samples)
        samples -= counted
        between(counted)
