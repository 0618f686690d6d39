"""Words in front of class names that are learnt."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmcl_jax import config
from mmcl_jax.errors import ConfigError, DataError
from mmcl_jax.methods.class_context import CLASS_CONTEXT, with_names
from mmcl_jax.methods.registry import METHODS
from mmcl_jax.modalities import MODALITIES
from mmcl_jax.modalities.text import TEXT, preprocess_name
from mmcl_jax.modalities.tokenization import load_tokenizer
from mmcl_jax.models import encoder as encoders
from mmcl_jax.models.pretrained import Encoder
from mmcl_jax.parallel import sharding
from mmcl_jax.streams import procedural
from mmcl_jax.training import build, class_slots
from mmcl_jax.types import Classes, Context
from tests import by_hand
from tests.contract import Bench

TEMPLATE = "a photo of a {}."
NAMES = ("spinning red star", "star", "a rather long name of a class")


def _tokens(sentence: str, encoder: Encoder) -> np.ndarray:
    return TEXT.preprocess(sentence, encoder.inputs)["tokens"]


def _words(sentence: str, encoder: Encoder) -> list[int]:
    tokens, loaded = (
        _tokens(sentence, encoder),
        load_tokenizer(encoder.inputs.tokenizer),
    )
    return tokens[1 : tokens.tolist().index(loaded.end)].tolist()


@pytest.mark.parametrize("name", NAMES)
def test_as_many_words_as_the_template_has_are_its_sentence(
    name: str, encoder: Encoder
) -> None:
    context = len(_words("a photo of a", encoder))
    found = preprocess_name(name, TEMPLATE, context, encoder.inputs)
    np.testing.assert_array_equal(found, _tokens(TEMPLATE.format(name), encoder))


def test_fewer_words_are_the_last_and_more_are_repeated(encoder: Encoder) -> None:
    a, photo, of = (_words(word, encoder) for word in ("a", "photo", "of"))
    front, fed = [*a, *photo, *of, *a], encoder.inputs
    rest = _words("star.", encoder)
    for context in (1, 2, len(front), len(front) + 3):
        found = preprocess_name("star", TEMPLATE, context, fed)[1:]
        expected = (2 * front)[-context:] + rest
        assert found[: len(expected)].tolist() == expected


def test_there_must_be_words_and_room(encoder: Encoder) -> None:
    with pytest.raises(DataError, match="'{} of a star': no word before"):
        preprocess_name("star", "{} of a star", 2, encoder.inputs)
    room = encoder.inputs.context_length - 3
    last = preprocess_name("star", TEMPLATE, room, encoder.inputs)
    assert last[-1] == load_tokenizer(encoder.inputs.tokenizer).end
    message = f"which leaves {room} at most before a name; lower its length"
    with pytest.raises(DataError, match=message):
        preprocess_name("star", TEMPLATE, room + 1, encoder.inputs)


def _class_tokens(encoder: Encoder, context: int | None, *templates: str):
    options = config.MethodOptions(adapter=config.AdapterOptions(context=context))
    chosen = config.EncoderOptions(templates=templates)
    stream = procedural.build(
        **{k: v for k, v in dataclasses.asdict(config.World()).items() if k != "kind"},
        order_seed=0,
        data_seed=0,
    )
    made = config.Config(method=options, encoder=chosen)
    return stream, class_slots.class_tokens(made, encoder.inputs, stream)


def test_tokens_of_a_stream(encoder: Encoder) -> None:
    assert _class_tokens(encoder, None)[1] is None
    stream, whole = _class_tokens(encoder, 3)
    tokens = class_slots.cut(whole, encoder.spec.text, encoder.inputs)
    end = load_tokenizer(encoder.inputs.tokenizer).end
    assert len(tokens) == len(stream.classes)
    # cut after the longest sentence, at a multiple of 8 tokens
    assert (tokens == end).any(1).all() and (tokens[:, -8:] == end).any()
    assert tokens.shape[1] % 8 == 0 or tokens.shape == whole.shape
    for slot, row in zip(stream.classes, tokens, strict=True):
        with_words = [
            t for t in MODALITIES[slot.modality].templates if not t.startswith("{}")
        ]
        whole = preprocess_name(slot.name, with_words[0], 3, encoder.inputs)
        np.testing.assert_array_equal(row, whole[: len(row)])
    _, (first, *_) = _class_tokens(encoder, 2, "{}", "this is {}")
    assert first[1:3].tolist() == _words("this is", encoder)[-2:]
    with pytest.raises(ConfigError, match=r"adapter\.context: '{}': no word"):
        _class_tokens(encoder, 2, "{}")


def test_a_sentence_may_be_cut_behind_its_end(encoder: Encoder) -> None:
    rows = (preprocess_name(name, TEMPLATE, 2, encoder.inputs) for name in NAMES[:2])
    tokens = np.stack([*rows])
    context = jax.random.normal(jax.random.key(0), (2, 2, 16))
    end = load_tokenizer(encoder.inputs.tokenizer).end
    cut = tokens[:, : (tokens == end).argmax(1).max() + 1]
    assert cut.shape[1] < tokens.shape[1]

    @jax.jit
    def embed(frozen, tokens):
        return encoders.embed_names(encoder.spec, frozen, tokens, context)

    whole, short = (embed(encoder.frozen, each) for each in (tokens, cut))
    np.testing.assert_allclose(whole, short, atol=2e-6)


def _context(bench: Bench, vectors: np.ndarray, stage: int = 3) -> Context:
    classes = bench.classes(stage)
    at = Context(bench.frozen, {}, jnp.asarray(stage), classes, "train")
    return with_names(bench.model, jnp.asarray(vectors, jnp.float32), at)


@pytest.mark.full("methods")
@pytest.mark.xdist_group("sequential context")
def test_a_class_has_the_context_of_its_modality(benches) -> None:
    bench = benches("sequential context")
    modalities = len(bench.modalities)
    width = bench.encoder.spec.text.trunk.width
    vectors = np.zeros((modalities, 2, width))
    none = _context(bench, vectors).classes.text
    frozen = encoders.embed(
        bench.encoder.spec, bench.frozen, "text", {"tokens": bench.classes(3).tokens}
    )
    np.testing.assert_allclose(none, frozen, atol=1e-6)
    vectors[1] = np.random.default_rng(0).normal(size=(2, width))
    moved = np.abs(_context(bench, vectors).classes.text - none).max(1)
    np.testing.assert_array_equal(moved > 1e-3, bench.slots == 1)
    # one for all
    moved = np.abs(_context(bench, vectors[1:2]).classes.text - none).max(1)
    assert (moved > 1e-3).all()


def _contexts(tree) -> np.ndarray:
    params = tree.params.get("adapters", tree.params)
    return np.asarray(params[CLASS_CONTEXT])


@pytest.mark.full("methods")
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.xdist_group(name))
        for name in ("sequential context", "comm context")
    ],
)
def test_a_task_trains_the_context_of_its_modality(name: str, benches) -> None:
    bench = benches(name)
    # but the first, whose only class has nothing to be told from
    for stage, (modality, _) in list(enumerate(bench.tasks))[1:7]:
        begun, trained = bench.history.begun[stage], bench.history.trained[stage]
        moved = (_contexts(begun) != _contexts(trained)).any((1, 2))
        own = np.arange(len(bench.modalities)) == bench.modalities.index(modality)
        np.testing.assert_array_equal(moved, own)


@pytest.mark.full("methods")
@pytest.mark.xdist_group("comm context")
def test_context_of_comm_is_the_mean_of_its_snapshots(benches) -> None:
    bench = benches("comm context")
    first, second = (
        [i for i, (name, _) in enumerate(bench.tasks) if name == "video"][k]
        for k in (0, 1)
    )
    own = bench.modalities.index("video")
    theta = [_contexts(bench.history.trained[i])[own] for i in (first, second)]
    anchor = bench.history.ended[second].memory["anchor"][CLASS_CONTEXT][own]
    np.testing.assert_allclose(anchor, sum(theta) / 2, atol=1e-7)


@pytest.mark.full("methods")
@pytest.mark.xdist_group("sequential context")
def test_logits_are_of_the_learnt_texts(benches) -> None:
    bench = benches("sequential context")
    stage = bench.last_of("image")
    state, batch = bench.history.ended[stage], bench.rows(stage, test=True)
    logits, _ = bench.predict(state, stage, batch)
    # the adapters alone, before class texts of that context
    texts = _context(bench, _contexts(state), stage).classes.text
    plain = dataclasses.replace(
        bench.config,
        method=dataclasses.replace(
            bench.config.method, adapter=config.AdapterOptions(length=2, rank=2)
        ),
    )
    method = build.method_of(plain)(bench.model)
    params, memory = jax.tree.map(jnp.asarray, (state.params, state.memory))
    own = {k: v for k, v in params.items() if k != CLASS_CONTEXT}
    classes: Classes = bench.classes(stage)._replace(text=texts, tokens=None)
    at = Context(bench.frozen, memory, jnp.asarray(stage), classes, "predict")
    predict = by_hand.predict(method, bench.model)
    expected = jax.jit(lambda batch: predict(own, at, batch).logits)(batch)
    np.testing.assert_allclose(logits[0], expected, atol=1e-4)


def test_who_does_not_learn_a_context_is_refused() -> None:
    for name, entry in METHODS.items():
        options = config.MethodOptions(name, adapter=config.AdapterOptions(context=4))
        tree = config.to_config_dict(config.Config(method=options))
        if entry.learns_class_context:
            assert config.resolve(tree).method.adapter.context == 4
        else:
            with pytest.raises(ConfigError, match=rf"context: '{name}'"):
                config.resolve(tree)


def test_classes_have_tokens_only_where_they_are_read(encoder: Encoder) -> None:
    mesh = sharding.make_mesh(jax.devices()[:1])
    plain = class_slots.make_classes(np.eye(2), [0, 0], [0], [0], mesh)
    assert plain.tokens is None
