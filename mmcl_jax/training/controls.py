"""Scores the control sets of a stream: classes that are never learnt.

A method has no slot for these classes. What is scored is the embedding that a
prediction would be made from, by the nearest class text among those of the set; what
comes after it, such as a re-alignment or a head, is for learnt classes alone. So for a
method that leaves the tower as it is, the accuracy is the frozen encoder's at all
times.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from mmcl_jax.evaluation import control_sets
from mmcl_jax.evaluation.control_sets import ControlPredictions
from mmcl_jax.evaluation.novelty import Scores
from mmcl_jax.streams.base import Task
from mmcl_jax.training import learner
from mmcl_jax.training.batches import Feed, ahead
from mmcl_jax.training.build import Run
from mmcl_jax.training.unknowns import Gauge, Watch
from mmcl_jax.types import Batch, Classes, Prediction, PyTree
from mmcl_jax.workdir.results import Results

# state, frozen weights, classes and stage: the first arguments of `Learner.predict`
At = tuple[Any, PyTree, Classes, jax.Array]
_NO_SLOTS, _NO_SCORES = np.zeros(0, np.int32), np.zeros(0, np.float32)


class Controls:
    """The control sets of a run, with their class texts."""

    def __init__(self, run: Run, frozen: PyTree) -> None:
        """Embeds class names and samples by the frozen tower.

        Args:
            run: A run whose stream has control sets.
            frozen: Weights of the encoder on the devices.
        """
        assert run.stream.reserved is not None
        # hints are indices of modalities in the stream that is learnt
        modalities = run.stream.modalities
        stream = dataclasses.replace(run.stream.reserved, modalities=modalities)
        self._stream, self._run = stream, run
        lost = run.known.lost if run.known else {}
        sets = enumerate(stream.tasks)
        self._there = {i: task for i, task in sets if i not in lost}
        self._feed = Feed(run._replace(stream=stream), frozen)
        self._text = self._feed.embed_class_names()
        self._canonical = np.array([slot.canonical for slot in stream.classes])
        self._embed = learner.make_embed(run.make_method, run.model, run.mesh)
        self._feed.embed_queries(list(self._there), "test")

    def _before(self) -> list[dict[str, Any]]:
        """Returns for each set its `modality`, numbers of `classes` and `samples`.

        `zero_shot` is the frozen encoder's accuracy, and `accuracy` is empty: it
        receives one number after each stage.
        """
        return [
            {
                "modality": task.modality,
                "classes": len(task.classes),
                "samples": len(task.test),
                "zero_shot": self._zero_shot(task) if i in self._there else None,
                "accuracy": [],
            }
            for i, task in enumerate(self._stream.tasks)
        ]

    def score(
        self,
        at: At,
        gauge: Gauge,
        results: Results,
        between: Callable[[], None],
    ) -> ControlPredictions:
        """Returns what is made of all control sets after a stage.

        A set whose files are gone has no accuracy from then on.

        Args:
            at: State, frozen weights, class slots and index of the stage.
            gauge: Measures the novelty of samples.
            results: Results that receive the accuracies.
            between: Callback after each batch.
        """
        results.reserved = results.reserved or self._before()
        parts = [ControlPredictions(*4 * [_NO_SLOTS], *2 * [_NO_SCORES])]
        for i, told in enumerate(results.reserved):
            if i not in self._there:
                told["accuracy"].append(None)
                continue
            task = self._there[i]
            found = ControlPredictions(
                np.full(len(task.test), i, np.int32),
                np.array([row.id for row in task.test], np.int32),
                np.array([row.label for row in task.test], np.int32),
                self._nearest(task, self._embeddings(at, task, between)),
                *self._novelty(at, task, gauge, between),
            )
            accuracy = control_sets.accuracy(found.chosen, found.label, self._canonical)
            told["accuracy"].append(accuracy)
            parts.append(found)
        return ControlPredictions(*map(np.concatenate, zip(*parts, strict=True)))

    def _nearest(self, task: Task, embeddings: np.ndarray) -> np.ndarray:
        own = np.array(task.classes, np.int32)
        return own[(embeddings @ self._text[own].T).argmax(-1)]

    def _zero_shot(self, task: Task) -> float | None:
        label = np.array([row.label for row in task.test])
        chosen = self._nearest(task, self._feed.queries(task.test))
        return control_sets.accuracy(chosen, label, self._canonical)

    def _embeddings(
        self, at: At, task: Task, between: Callable[[], None]
    ) -> np.ndarray:
        """Returns the embeddings `[n d]` that predictions would be made from."""
        stand_in = self._stand_in(task.modality, at[2])
        if stand_in is None or not self._run.method.needs_inputs:
            return self._feed.queries(task.test)
        state, *rest = at
        started = (
            self._embed(state.params, state.memory, *rest, batch)
            for batch in self._batches(task, stand_in)
        )
        parts = []
        for embedded in ahead(started):
            parts.append(jax.device_get(embedded))
            between()
        return np.concatenate(parts)[: len(task.test)]

    def _stand_in(self, modality: str, classes: Classes) -> str | None:
        """Returns the modality as which samples pass through the tower.

        It is their own once that has been learnt. Before, and for one that is never
        learnt, it is another of the same tower, whose trained parts a router chooses
        since no modality is given; None if there is none: nothing has touched the
        tower.
        """
        model = self._run.model
        met = np.unique(np.asarray(classes.modality)[np.asarray(classes.seen)])
        names = [model.modalities[m] for m in met]
        if modality in names:
            return modality
        tower = model.tower_of(modality)
        return next((name for name in names if model.tower_of(name) == tower), None)

    def _batches(self, task: Task, stand_in: str) -> Iterator[Batch]:
        needed = self._run.method.needs_inputs
        for batch in self._feed.batches({task.modality: list(task.test)}, None, needed):
            if stand_in == task.modality:
                yield batch
            else:
                none = 0 * batch.hint - 1
                yield dataclasses.replace(batch, hint=none, modality=stand_in)

    def _novelty(
        self, at: At, task: Task, gauge: Gauge, between: Callable[[], None]
    ) -> Scores:
        """Returns the novelty of the samples of a set."""
        watch = Watch(gauge, task.modality)
        if task.modality in gauge.own and gauge.view is None:
            for batch in self._batches(task, task.modality):
                said: Prediction = self._run.learner.predict(*at, batch)
                watch.add(jax.device_get(said))
                between()
        views = self._feed.queries(task.test), self._feed.layers(task.test)
        return watch.scores(*views)
