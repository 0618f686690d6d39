"""Test sets are not sent through a tower that cannot answer anything else."""

import collections
import dataclasses
import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from mmcl_jax import config
from mmcl_jax.methods import base
from mmcl_jax.models.injection import Injection
from mmcl_jax.parallel import distributed
from mmcl_jax.training import build, forwards
from mmcl_jax.training.batches import Feed
from mmcl_jax.training.evaluator import Between, Scorer
from mmcl_jax.training.learner import LearnerState, make_learner
from mmcl_jax.workdir.results import Results

METHODS = ("sequential", "comm", "s_prompts", "comm_plus")


def _run(
    encoder_folder: pathlib.Path,
    method: str,
    modalities: tuple[str, ...] = ("image", "text"),
    test: int = 6,
) -> build.Run:
    options = config.Config(
        stream=config.World(
            tasks=2,
            classes_per_task=2,
            modalities=modalities,
            train_per_class=2,
            test_per_class=test,
        ),
        encoder=config.EncoderOptions(str(encoder_folder)),
        method=config.MethodOptions(
            method, adapter=config.AdapterOptions("deep_prompts", length=2)
        ),
        train=config.TrainOptions(batch_size=8),
    )
    return build.assemble(options, Console(quiet=True))


class _Scored:
    """A run whose test sets are scored; counts the batches that the towers are sent."""

    def __init__(self, run: build.Run) -> None:
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

    def score(
        self, state: LearnerState, between: Between = lambda samples: None
    ) -> dict[int, np.ndarray]:
        """Returns the margins on both test sets."""
        self.sent.clear()
        classes = build.classes_at(self._run, self._text, 1)
        results = Results.start(2)
        found = self._scorer.score(state, classes, 1, results, between)
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
    classes = build.classes_at(run, feed.embed_class_names(), 1)
    at = (state, run.encoder.frozen, classes, np.int32(1))
    records = feed.records([0], "test")
    for whole, bare in zip(
        feed.batches(records), feed.batches(records, decoded=False), strict=True
    ):
        answers = run.learner.answer(*at, whole)
        parts, _ = run.learner.conclude(*at, bare, answers)
        for a, b in zip(parts, run.learner.predict(*at, whole), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


# what own methods do with the tower; `params["visual"]` is 0, and then 0.5


def _plain(model, params, context, batch):
    prompts = _prompts(model, batch, params["visual"])
    return model.embed(context.frozen, batch.modality, batch.inputs, prompts)


def _picture(model, params, context, batch):
    pixels = batch.inputs["pixels"] + params["visual"]
    return model.embed(context.frozen, batch.modality, {"pixels": pixels}, None)


def _tuned(model, params, context, batch):
    frozen = jax.tree.map(lambda leaf: leaf * (1 + params["visual"]), context.frozen)
    return model.embed(frozen, batch.modality, batch.inputs, None)


def _beside(model, params, context, batch):
    brightness = batch.inputs["pixels"].mean((1, 2, 3, 4))[:, None]
    return _plain(model, params, context, batch) + jnp.cos(brightness)


def _mapped(model, params, context, batch):
    values = params["visual"] + jnp.arange(2.0)

    def embed(value):
        return _plain(model, {"visual": value}, context, batch)

    return jax.lax.map(embed, values).sum(0)


def _vectorized(model, params, context, batch):
    def embed(value):
        return _plain(model, {"visual": value}, context, batch)

    return jax.vmap(embed)(params["visual"] + jnp.arange(2.0)).sum(0)


def _if_trained(model, params, context, batch):
    return jax.lax.cond(
        params["visual"] > 0.25,
        lambda: _plain(model, params, context, batch),
        lambda: batch.query,
    )


def _chosen(model, params, context, batch):
    """The second forward depends on the first, but not where all answers are equal."""
    first = model.embed(context.frozen, batch.modality, batch.inputs, None)
    sign = 1 - 4 * params["visual"]
    best = jnp.argmax(sign * first @ context.classes.text.T, axis=-1)
    prompts = _prompts(model, batch, best[:, None, None, None].astype(jnp.float32))
    return model.embed(context.frozen, batch.modality, batch.inputs, prompts)


def _with_names(model, params, context, batch):
    """Reads the tower of text too, and what it reads there are no samples."""
    tokens = jnp.ones((2, model.spec.text.context_length), jnp.int32)
    names = model.embed(context.frozen, "text", {"tokens": tokens}, None)
    return _plain(model, params, context, batch) + params["visual"] * names.mean(0)


def _prompts(model, batch, value) -> Injection:
    width = model.spec.tower(model.tower_of(batch.modality)).width
    return Injection(prompts=jnp.full((len(batch.label), 1, 1, width), 0.1) * value)


def _own_run(encoder_folder: pathlib.Path, embed, test: int = 6) -> build.Run:
    run = _run(encoder_folder, "sequential", ("image",), test)

    def make_method(model):
        def init(key, model):
            return {"visual": jnp.zeros(())}, {}

        return base.aligned(model, init, functools.partial(embed, model), "task")

    learner = make_learner(
        make_method, run.model, run.config.train.optimizer, seed=0, mesh=run.mesh
    )
    method = make_method(run.model)
    return run._replace(make_method=make_method, method=method, learner=learner)


CUT = (_plain, _chosen, _with_names)
WHOLE = (_picture, _tuned, _beside, _mapped, _vectorized, _if_trained)


@pytest.mark.parametrize("embed", CUT + WHOLE)
def test_own_predictions_are_never_stale(
    encoder_folder: pathlib.Path, embed, caplog: pytest.LogCaptureFixture
):
    run = _own_run(encoder_folder, embed)
    scored, state = _Scored(run), run.learner.init()
    first = scored.score(state)
    assert scored.sent["image"] == (5 if embed in CUT else 0)
    np.testing.assert_equal(scored.score(state), first)
    assert scored.sent["image"] == (1 if embed in CUT else 0)
    state = _moved(state, "visual")
    moved = scored.score(state)
    assert all((moved[task] != first[task]).any() for task in first)
    # what a scorer gives that cuts nothing
    whole = run._replace(learner=run.learner._replace(uncut=lambda *args: "so be it"))
    for task, margin in _Scored(whole).score(state).items():
        np.testing.assert_allclose(moved[task], margin, rtol=1e-4, atol=1e-4)
    reasons = [line for line in caplog.messages if "so be it" not in line]
    assert len(reasons) == (embed in WHOLE)
    assert all("is not kept" in line for line in reasons)


def test_an_error_of_a_prediction_is_told_as_it_is(encoder_folder: pathlib.Path):
    def wrong(model, params, context, batch):
        raise ZeroDivisionError("of the method's own")

    run = _own_run(encoder_folder, wrong)
    with pytest.raises(ZeroDivisionError, match="of the method's own"):
        _Scored(run).score(run.learner.init())


def test_an_injection_without_a_digest_is_not_kept():
    with pytest.raises(TypeError, match="int32"):
        forwards.digest({"prompts": jnp.arange(3)})


def test_what_one_process_lacks_all_compute(
    encoder_folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch
):
    run = _own_run(encoder_folder, _plain)
    scored, state = _Scored(run), run.learner.init()
    first = scored.score(state)
    monkeypatch.setattr(distributed, "everywhere", lambda holds: False)
    np.testing.assert_equal(scored.score(state), first)
    assert scored.sent == {"image": 5}


def test_batches_do_not_pile_up_on_the_devices(encoder_folder: pathlib.Path):
    run = _own_run(encoder_folder, _plain, test=96)
    shape = (run.config.train.batch_size, run.model.spec.embedding)
    scored, state, held = _Scored(run), run.learner.init(), []

    def between(samples: int) -> None:
        held.append(sum(array.shape == shape for array in jax.live_arrays()))

    for _ in range(2):  # first computed, then kept
        held.clear()
        scored.score(state, between)
        assert len(held) > 48  # 24 batches of each task
        assert max(held) < 24


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
