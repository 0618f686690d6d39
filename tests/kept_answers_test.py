"""What a tower has answered for a test sample serves later stages, bit by bit."""

import collections
import dataclasses
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from mmcl_jax import config
from mmcl_jax.errors import CodeError
from mmcl_jax.methods.base import Features, Method, Pass, aligned
from mmcl_jax.models.injection import Injection
from mmcl_jax.ops.digest import digest
from mmcl_jax.parallel import distributed
from mmcl_jax.training import build, capacity
from mmcl_jax.training.batches import Feed
from mmcl_jax.training.evaluator import Between, Scorer
from mmcl_jax.training.learner import LearnerState, make_learner
from mmcl_jax.training.unknowns import Gauge
from mmcl_jax.workdir.results import Results

METHODS = (
    "sequential",
    "comm",
    pytest.param("s_prompts", marks=pytest.mark.full("methods")),
)


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


# measures no novelty: no modality was met
NOTHING = Gauge(None, {}, {}, 1.0, {})


def _new(run: build.Run) -> LearnerState:
    return run.learner.init(capacity.of_stream(run.stream))


class _Scored:
    """A run whose test sets are scored; counts the batches that the towers are sent.

    `sent` are those whose answers can be kept, `whole` those that are predicted at
    once.
    """

    def __init__(self, run: build.Run) -> None:
        self.sent: collections.Counter[str] = collections.Counter()
        self.whole: collections.Counter[str] = collections.Counter()

        def counting(function, counter):
            def called(*args):
                counter[args[-1].modality] += 1
                return function(*args)

            return called

        learner = run.learner._replace(
            answer=counting(run.learner.answer, self.sent),
            predict=counting(run.learner.predict, self.whole),
        )
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
        self.whole.clear()
        classes = build.classes_at(self._run, self._text, 1)
        results = Results.start(2)
        found = self._scorer.score(state, classes, 1, NOTHING, results, between)
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
    scored, state = _Scored(run), _new(run)
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
    feed, state = (
        Feed(run, run.encoder.frozen),
        _new(run),
    )
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


# what user-defined methods do with the tower; `params["visual"]` is 0, and then 0.5


def _prompts(model, batch, value) -> Injection:
    width = model.spec.tower(model.tower_of(batch.modality)).width
    return Injection(prompts=jnp.full((len(batch.label), 1, 1, width), 0.1) * value)


def _declared(passes, embed=lambda features, params, batch: features.embeddings[0]):
    """A method that injects; `embed` makes one embedding of what comes out."""

    def make(model) -> Method:
        return aligned(
            model,
            lambda key, model: ({"visual": jnp.zeros(())}, {}),
            "task",
            lambda params, context, batch: passes(model, params["visual"], batch),
            lambda params, context, batch, features: embed(
                features, params["visual"], batch
            ),
        )

    return make


def _driven(embed):
    """A method that calls `model.embed` itself."""

    def make(model) -> Method:
        method = aligned(
            model,
            lambda key, model: ({"visual": jnp.zeros(())}, {}),
            "task",
            embed=lambda params, context, batch, features: embed(
                model, params, context, batch
            ),
        )
        return method._replace(drives_tower=True)

    return make


def _one(model, value, batch) -> tuple[Pass, ...]:
    return (Pass(_prompts(model, batch, value)),)


def _two(model, value, batch) -> tuple[Pass, ...]:
    return (*_one(model, 1.0, batch), *_one(model, value, batch))


def _if_moved(model, value, batch) -> tuple[Pass, ...]:
    """The injection is always the same; only whether it is asked for changes."""
    return (Pass(_prompts(model, batch, 1.0), when=value > 0.25),)


def _sum(features: Features, value, batch):
    return sum(features.embeddings)


def _else_query(features: Features, value, batch):
    (embedding,) = features.embeddings
    # what was not asked for is zero
    return embedding + jnp.where(value > 0.25, 0.0, 1.0) * batch.query


def _with_layers(model) -> Method:
    """The last blocks' features come with the pass."""

    def embed(features: Features, value, batch):
        assert features.layers is not None
        return features.embeddings[0] + features.layers.mean(1, keepdims=True)

    return _declared(_one, embed)(model)._replace(layer_blocks=1)


def _with_names(model) -> Method:
    """What it reads in the tower of text, beside the pass, are no samples."""
    method = _declared(_one)(model)

    def predict(params, context, batch, features):
        tokens = jnp.ones((2, model.spec.text.context_length), jnp.int32)
        names = model.embed(context.frozen, "text", {"tokens": tokens}, None)
        moved = features.embeddings[0] + params["visual"] * names.mean(0)
        moved = Features((moved,), features.layers)
        return method.predict(params, context, batch, moved)

    return method._replace(predict=predict)


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
    """The second forward depends on the first."""
    first = model.embed(context.frozen, batch.modality, batch.inputs, None)
    sign = 1 - 4 * params["visual"]
    best = jnp.argmax(sign * first @ context.classes.text.T, axis=-1)
    prompts = _prompts(model, batch, best[:, None, None, None].astype(jnp.float32))
    return model.embed(context.frozen, batch.modality, batch.inputs, prompts)


def _own_run(encoder_folder: pathlib.Path, make_method, test: int = 6) -> build.Run:
    run = _run(encoder_folder, "sequential", ("image",), test)
    learner = make_learner(
        make_method, run.model, run.config.train.optimizer, seed=0, mesh=run.mesh
    )
    method = make_method(run.model)
    return run._replace(make_method=make_method, method=method, learner=learner)


# by name, and how many passes through towers a prediction is declared to have
DECLARED = {
    "one": (_declared(_one), 1),
    "two": (_declared(_two, _sum), 2),
    "if moved": (_declared(_if_moved, _else_query), 1),
    "with layers": (_with_layers, 1),  # those of the frozen tower are cached
    "with names": (_with_names, 1),
}
DRIVEN = {
    "plain": (_plain, 1),
    "picture": (_picture, 1),
    "tuned": (_tuned, 1),
    "beside": (_beside, 1),
    "mapped": (_mapped, 1),
    "vectorized": (_vectorized, 1),
    "if trained": (_if_trained, 1),
    "chosen": (_chosen, 2),
}


@pytest.mark.parametrize("name", DECLARED)
def test_own_answers_are_kept_and_never_stale(encoder_folder: pathlib.Path, name: str):
    make_method, passes = DECLARED[name]
    run = _own_run(encoder_folder, make_method)
    scored, state = _Scored(run), _new(run)
    first = scored.score(state)
    # two batches of each task, and one that is predicted again
    assert scored.sent == {"image": 5} and not scored.whole
    assert run.learner.forwards["answer"] == passes
    assert run.learner.forwards["conclude"] == (name == "with names")
    np.testing.assert_equal(scored.score(state), first)
    assert scored.sent == {"image": 1} and not scored.whole
    state = _moved(state, "visual")
    moved = scored.score(state)
    assert scored.sent == {"image": 5}
    assert all((moved[task] != first[task]).any() for task in first)
    scored.forget()
    np.testing.assert_equal(scored.score(state), moved)
    # what a scorer gives that keeps nothing
    whole = run._replace(method=run.method._replace(drives_tower=True))
    for task, margin in _Scored(whole).score(state).items():
        np.testing.assert_allclose(moved[task], margin, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", DRIVEN)
def test_who_drives_the_tower_is_predicted_anew_after_every_stage(
    encoder_folder: pathlib.Path, name: str
):
    embed, passes = DRIVEN[name]
    run = _own_run(encoder_folder, _driven(embed))
    scored, state = _Scored(run), _new(run)
    first = scored.score(state)
    again = scored.score(state)
    np.testing.assert_equal(again, first)
    assert scored.whole == {"image": 5} and not scored.sent
    assert run.learner.forwards["predict"] == passes
    moved = scored.score(_moved(state, "visual"))
    assert scored.whole == {"image": 5}
    assert all((moved[task] != first[task]).any() for task in first)


def test_who_drives_the_tower_predicts_what_a_pass_does(encoder_folder: pathlib.Path):
    margins = []
    for make_method in (DECLARED["one"][0], _driven(_plain)):
        run = _own_run(encoder_folder, make_method)
        state = _moved(_new(run), "visual")
        margins.append(_Scored(run).score(state))
    for task in margins[0]:
        np.testing.assert_allclose(
            margins[0][task], margins[1][task], rtol=1e-4, atol=1e-4
        )


def test_one_bit_of_an_injection_asks_the_tower_anew(encoder_folder: pathlib.Path):
    run = _own_run(encoder_folder, DECLARED["one"][0])
    scored, state = (
        _Scored(run),
        _moved(_new(run), "visual"),
    )
    scored.score(state)
    value = np.nextafter(np.float32(0.5), np.float32(1))
    # the prompts are a tenth of it, which may be the same number
    assert np.float32(0.1) * value != np.float32(0.1) * np.float32(0.5)
    scored.score(dataclasses.replace(state, params={"visual": jnp.asarray(value)}))
    assert scored.sent == {"image": 5}


def test_what_is_not_injected_asks_the_tower_nothing(encoder_folder: pathlib.Path):
    def fixed(model, value, batch):
        return _one(model, 1.0, batch)

    def turned(features: Features, value, batch):
        return features.embeddings[0] + value * batch.query

    run = _own_run(encoder_folder, _declared(fixed, turned))
    scored, state = _Scored(run), _new(run)
    first = scored.score(state)
    moved = scored.score(_moved(state, "visual"))
    assert scored.sent == {"image": 1}
    assert all((moved[task] != first[task]).any() for task in first)


def test_an_error_of_a_prediction_is_told_as_it_is(encoder_folder: pathlib.Path):
    def wrong(model, value, batch):
        raise ZeroDivisionError("of the method's own")

    run = _own_run(encoder_folder, _declared(wrong))
    with pytest.raises(ZeroDivisionError, match="of the method's own"):
        _Scored(run).score(_new(run))


def test_who_reads_inputs_must_say_so(encoder_folder: pathlib.Path):
    def make_method(model) -> Method:
        return _driven(_picture)(model)._replace(drives_tower=False)

    run = _own_run(encoder_folder, make_method)
    with pytest.raises(CodeError, match="pixels.*drives_tower=True"):
        _Scored(run).score(_new(run))


def test_an_injection_without_a_digest_is_not_kept():
    with pytest.raises(TypeError, match="int32"):
        digest({"prompts": jnp.arange(3)})


def test_what_one_process_lacks_all_compute(
    encoder_folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch
):
    run = _own_run(encoder_folder, DECLARED["one"][0])
    scored, state = _Scored(run), _new(run)
    first = scored.score(state)
    monkeypatch.setattr(distributed, "everywhere", lambda holds: False)
    np.testing.assert_equal(scored.score(state), first)
    assert scored.sent == {"image": 5}


def test_batches_do_not_pile_up_on_the_devices(encoder_folder: pathlib.Path):
    run = _own_run(encoder_folder, DECLARED["one"][0], test=96)
    shape = (run.config.train.batch_size, run.model.spec.embedding)
    scored, state, held = (
        _Scored(run),
        _new(run),
        [],
    )

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
        tree | {"c": jnp.array(True)},
        tree | {"c": jnp.array(False)},
        tree | {"a": tree["a"].at[1, 2].add(1e-6)},
        tree | {"a": tree["a"][::-1]},
        tree | {"b": -tree["b"]},  # another zero
        tree | {"b": tree["b"].at[0].set(jnp.nan)},
    ]
    found = [tuple(np.asarray(digest(t)).tolist()) for t in [tree, *others]]
    assert len(set(found)) == len(found)
    assert found[0] == tuple(np.asarray(digest(dict(tree))).tolist())
