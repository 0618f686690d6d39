"""Test sets are not sent through a tower that cannot answer anything else."""

import collections
import dataclasses
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from mmcl_jax import assemble, config, forwards
from mmcl_jax.feed import Feed
from mmcl_jax.learner import LearnerState
from mmcl_jax.results import Results
from mmcl_jax.score import Scorer
from mmcl_jax.types import Batch, Prediction

METHODS = ("sequential", "comm", "s_prompts", "comm_plus")


def _run(encoder_folder: pathlib.Path, method: str) -> assemble.Run:
    options = config.Config(
        stream=config.World(
            tasks=2,
            classes_per_task=2,
            modalities=("image", "text"),
            train_per_class=2,
            test_per_class=6,
        ),
        encoder=config.EncoderOptions(str(encoder_folder)),
        method=config.MethodOptions(
            method, adapter=config.AdapterOptions("deep_prompts", length=2)
        ),
        train=config.TrainOptions(batch_size=8),
    )
    return assemble.assemble(options, Console(quiet=True))


class _Scored:
    """A run whose test sets are scored; counts the batches that the towers are sent."""

    def __init__(self, run: assemble.Run) -> None:
        self.sent: collections.Counter[str] = collections.Counter()

        def answer(*args):
            self.sent[args[-1].modality] += 1
            return run.learner.answer(*args)

        learner = run.learner._replace(answer=answer)
        self._run = run._replace(learner=learner)
        self._feed = Feed(self._run, run.encoder.frozen)
        self._text = self._feed.embed_class_names()
        self.forget()

    def forget(self) -> None:
        frozen = self._run.encoder.frozen
        self._scorer = Scorer(self._run, self._feed, frozen, self._text)

    def score(self, state: LearnerState) -> dict[int, np.ndarray]:
        """Returns the margins on both test sets."""
        self.sent.clear()
        classes = assemble.classes_at(self._run, self._text, 1)
        results = Results.start(2)
        found = self._scorer.score(state, classes, 1, results, lambda samples: None)
        return {task: each.margin for task, each in found.items()}


def _moved(state: LearnerState, tower: str) -> LearnerState:
    """Returns the state with every number that is trained in one tower changed."""

    def move(path, leaf):
        return leaf + 0.5 if tower in jax.tree_util.keystr(path) else leaf

    params = jax.tree_util.tree_map_with_path(move, state.params)
    return dataclasses.replace(state, params=params)


@pytest.mark.parametrize("method", METHODS)
def test_what_cannot_have_changed_is_not_computed_again(
    encoder_folder: pathlib.Path, method: str
):
    run = _run(encoder_folder, method)
    scored, state = _Scored(run), run.learner.init()
    # of each modality two batches, and one of what is predicted again in another one
    again = {"image": 1, "text": 1}
    first = scored.score(state)
    assert scored.sent == {"image": 3, "text": 3}
    same = scored.score(state)
    assert scored.sent == again
    np.testing.assert_equal(same, first)
    trained = len(jax.tree.leaves(state.params)) > 0
    state = _moved(state, "text")
    moved = scored.score(state)
    assert scored.sent == {"image": 1, "text": 3 if trained else 1}
    # bit by bit what a scorer gives that knows nothing
    scored.forget()
    np.testing.assert_equal(scored.score(state), moved)
    assert scored.sent == {"image": 3, "text": 3}


def test_parts_of_a_prediction_are_the_prediction(encoder_folder: pathlib.Path):
    run = _run(encoder_folder, "comm")
    feed, state = Feed(run, run.encoder.frozen), run.learner.init()
    feed.embed_queries([0], "test")
    classes = assemble.classes_at(run, feed.embed_class_names(), 1)
    at = (state, run.encoder.frozen, classes, np.int32(1))
    records = feed.records([0], "test")
    for whole, bare in zip(
        feed.batches(records), feed.batches(records, decoded=False), strict=True
    ):
        answers = run.learner.answer(*at, whole)
        parts = run.learner.conclude(*at, bare, answers)
        for a, b in zip(parts, run.learner.predict(*at, whole), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_a_forward_that_depends_on_another_is_never_known(
    encoder_folder: pathlib.Path,
):
    run = _run(encoder_folder, "comm")
    model = run.model

    def chained(model):
        def predict(params, context, batch):
            first = model.embed(None, batch.modality, batch.inputs, None)
            second = model.embed(None, batch.modality, batch.inputs, first)
            return Prediction(second, second)

        return run.method._replace(predict=predict)

    batch = Batch({}, *[jnp.zeros((2, 3))] * 5, modality="image")
    context: tuple = (None,) * 5
    zeros, ones = forwards.ask(chained, model, {}, context, batch)
    assert (zeros[:2] == ones[:2]).all()
    assert (zeros[2] != ones[2]).any()


def test_a_digest_tells_bits_and_places_apart():
    tree = {"a": jnp.arange(6.0).reshape(2, 3), "b": jnp.zeros(2)}
    others = [
        tree | {"a": tree["a"].at[1, 2].add(1e-6)},
        tree | {"a": tree["a"][::-1]},
        tree | {"b": -tree["b"]},  # another zero
        tree | {"b": tree["b"].at[0].set(jnp.nan)},
    ]
    found = [tuple(np.asarray(forwards.digest(t)).tolist()) for t in [tree, *others]]
    assert len(set(found)) == len(found)
    assert found[0] == tuple(np.asarray(forwards.digest(dict(tree))).tolist())
