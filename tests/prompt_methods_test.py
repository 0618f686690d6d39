"""Methods that choose among prompts: numbers known by hand, and who sees which slot."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmcl_jax.methods import stage_slots
from mmcl_jax.methods.coda_prompt import gram_schmidt, orthogonality_penalty
from mmcl_jax.methods.dualprompt import reshaped_without_transpose
from mmcl_jax.models import encoder as encoders
from mmcl_jax.models.injection import Injection, Prefix
from mmcl_jax.models.pretrained import Encoder
from mmcl_jax.types import Capacity, Phase
from tests import by_hand
from tests.prompted import (
    GIVEN,
    OF_STAGE,
    ROOM,
    SHARED,
    STAGES,
    batch_of,
    begin,
    begun,
    context_at,
    make_coda_prompt,
    make_diki,
    make_dualprompt,
    make_l2p,
    make_s_prompts,
    model_of,
    queries_of,
    reveal,
    spec_of,
)

# parameter counts


def _counts(make, embedding: int, modalities=("image",), num_stages: int = 10) -> dict:
    """Numbers of parameters in towers of the size of ViT-B."""
    spec = spec_of(embedding, 768, 12)
    method, room = make(model_of(modalities, spec), SHARED), Capacity(1, num_stages)
    params, _ = jax.eval_shape(lambda: method.init(jax.random.key(0), room))
    return {
        name: sum(leaf.size for leaf in jax.tree.leaves(part))
        for name, part in params.items()
    }


def test_parameter_counts_are_the_published_ones() -> None:
    make = functools.partial(make_l2p, pool=10, length=10, top_k=4)
    assert _counts(make, 768) == {"visual": 84_480}
    counts = _counts(make_dualprompt, 768)
    assert (counts["general"], counts["experts"]) == (15_360, 230_400)
    assert _counts(make_coda_prompt, 768) == {"visual": 3_840_000}
    # two towers
    counts = _counts(make_diki, 512, ("image", "text"), num_stages=11)
    assert sum(counts.values()) == 11 * 163_840


# L2P


def test_chosen_prompts_stand_side_by_side() -> None:
    told = []

    def embed(frozen, modality, inputs, injection):
        told.append(injection.prompts)
        return reveal(frozen, modality, inputs, injection)

    model = model_of(embed=embed)
    method = make_l2p(model, SHARED, top_k=2)
    params, memory = by_hand.init(method, jax.random.key(0), ROOM)
    keys = np.eye(4)[:3] + [[0, 0, 0, 0], [0, 0, 0.1, 0], [0, 0, 0, 0]]
    params["visual"]["keys"] = jnp.asarray(keys, jnp.float32)
    batch = batch_of([[3.0, 1, 0, 0], [0, 0, 1, 0]])
    with jax.disable_jit():
        by_hand.predict(method, model)(params, context_at(memory, 0), batch)
    prompts = np.asarray(params["visual"]["prompts"])[:, 0]
    expected = [[prompts[0], prompts[1]], [prompts[2], prompts[1]]]
    np.testing.assert_array_equal(told[0][:, 0], np.reshape(expected, (2, 4, 16)))


@pytest.mark.parametrize("vote", [False, True])
def test_only_a_vote_makes_predictions_depend_on_the_batch(vote: bool) -> None:
    model = model_of()
    method = make_l2p(model, SHARED, batchwise_vote=vote)
    params, memory = by_hand.init(method, jax.random.key(0), ROOM)
    params["visual"]["keys"] = jnp.eye(4)[:3]
    context, predict = context_at(memory, STAGES - 1), by_hand.predict(method, model)

    def logits(query):
        return predict(params, context, batch_of(query)).logits

    rows = [[1.0, 0, 0, 0], [0, 1.0, 0, 0], [0, 1.0, 0.1, 0]]
    together = logits(rows)
    alone = jnp.concatenate([logits([row]) for row in rows])
    np.testing.assert_allclose(together[1:], alone[1:], atol=1e-6)
    assert (np.abs(together[0] - alone[0]).max() > 1e-3) == vote


def test_more_prompts_than_the_pool_has() -> None:
    with pytest.raises(ValueError, match=r"l2p.top_k: 4 is more than the 3"):
        make_l2p(model_of(), SHARED, top_k=4)


@pytest.mark.parametrize(
    "make",
    [
        make_l2p,
        make_s_prompts,
        *(
            pytest.param(make, marks=pytest.mark.full("methods"))
            for make in (make_dualprompt, make_coda_prompt, make_diki)
        ),
    ],
)
def test_no_gradient_flows_into_other_modalities(make) -> None:
    method, (params, memory) = begun(make, GIVEN)
    stage = STAGES - 1  # of video
    batch = batch_of(queries_of(stage), "video")
    batch = batch.replace(label=jnp.full(12, 2 * stage, jnp.int32))
    context = context_at(memory, stage)._replace(phase="train")
    free = method.trainable(params, context)
    loss = by_hand.loss(method, model_of())
    key = jax.random.key(0)
    gradient, _ = jax.grad(loss, has_aux=True)(params, context, batch, key)
    # earlier stages of the modality are held by the mask, not by the gradient
    masked = jax.tree.map(lambda g, m: g * m, gradient, free)
    assert any(np.any(leaf) for leaf in jax.tree.leaves(masked)) or make is make_diki
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
        if "text" in jax.tree_util.keystr(path):
            np.testing.assert_array_equal(leaf, 0)
            continue
        slots = np.abs(leaf).reshape(leaf.shape[0], -1).max(1)
        if len(slots) == 2:
            owners = np.array([0, 1])
        elif make is make_l2p:
            owners = np.repeat([0, 1], 3)
        else:
            owners = np.repeat(OF_STAGE, len(slots) // STAGES)
        assert (slots[owners != 1] == 0).all(), path


# DualPrompt


def test_the_reshape_bug_mixes_samples() -> None:
    keys, values = (jnp.arange(4.0) + base for base in (0, 10))
    shape = (4, 1, 1, 1)
    mixed = reshaped_without_transpose(
        Prefix(keys.reshape(shape), values.reshape(shape))
    )
    assert mixed.keys.ravel().tolist() == [0, 2, 10, 12]
    assert mixed.values.ravel().tolist() == [1, 3, 11, 13]


@pytest.mark.parametrize("bug", [False, True])
def test_only_the_reshape_bug_makes_predictions_depend_on_the_batch(bug: bool) -> None:
    method, (params, memory) = begun(
        functools.partial(make_dualprompt, reshape_bug=bug), SHARED
    )
    context = context_at(memory, STAGES - 1)
    predict = by_hand.predict(method, model_of())
    rows = np.concatenate([queries_of(stage, 1) for stage in (0, 1, 3, 4)])
    # each query's expert by its own key
    for i, stage in enumerate((0, 1, 3, 4)):
        keys = params["expert_keys"]["visual"]
        own = keys.at[stage].set(jnp.asarray(rows[i], jnp.float32))
        params = params | {"expert_keys": params["expert_keys"] | {"visual": own}}

    def logits(order):
        return predict(params, context, batch_of(rows[order])).logits

    plain, turned = logits([0, 1, 2, 3]), logits([3, 2, 1, 0])[::-1]
    assert np.allclose(plain, turned, atol=1e-5) != bug


def test_an_expert_starts_from_the_last_one_of_its_group() -> None:
    for sharing, sources in ((GIVEN, {3: 0, 4: 1}), (SHARED, {1: 0, 3: 1, 4: 3})):
        model = model_of()
        method = make_dualprompt(model, sharing)
        state = by_hand.init(method, jax.random.key(0), ROOM)
        for stage in range(STAGES):
            before = state[0]["experts"]["visual"]["keys"]
            state = begin(method, state, stage)
            after = state[0]["experts"]["visual"]["keys"]
            source = sources.get(stage, stage)
            np.testing.assert_array_equal(after[stage], before[source])
            # as if it had been trained
            state[0]["experts"]["visual"]["keys"] = after.at[stage].add(stage + 1.0)


def test_blocks_are_divided_between_general_and_expert_prefixes() -> None:
    for layers, depths in ((1, (0, 1)), (2, (1, 1)), (4, (2, 2)), (12, (2, 3))):
        model = model_of(("image",), spec=spec_of(layers=layers))
        params, _ = make_dualprompt(model, SHARED).init(jax.random.key(0), ROOM)
        got = [params[k]["visual"]["keys"].shape[1] for k in ("general", "experts")]
        assert tuple(got) == depths


# CODA-Prompt


def test_orthogonality_penalty_by_hand() -> None:
    used = jnp.ones(2, bool)
    assert orthogonality_penalty(jnp.array([[1.0, 0], [1, 1]]), used) == 0.75
    assert orthogonality_penalty(jnp.array([[0.6, 0.8], [-0.8, 0.6]]), used) < 1e-12
    more = jnp.array([[1.0, 0], [1, 1], [5, 5]])
    assert orthogonality_penalty(more, jnp.array([True, True, False])) == 0.75
    assert orthogonality_penalty(more, jnp.zeros(3, bool)) == 0


def test_new_rows_are_orthonormal_to_old_ones_at_any_angle() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(6, 12))
    rows[1] = rows[0] + 0.01 * rows[1]
    index = np.arange(6)
    old, new = index < 3, (index >= 3) & (index < 5)
    result = np.asarray(
        gram_schmidt(jnp.asarray(rows, jnp.float32), jnp.asarray(old), jnp.asarray(new))
    )
    np.testing.assert_array_equal(result[~new], rows[~new].astype(np.float32))
    np.testing.assert_allclose(result[new] @ result[new].T, np.eye(2), atol=1e-6)
    units = rows[:3] / np.linalg.norm(rows[:3], axis=1, keepdims=True)
    assert np.abs(units @ result[new].T).max() < 1e-6


def test_rows_without_room_start_as_unit_vectors() -> None:
    rows = jnp.array([[1.0, 0], [0, 2], [3, 4]])
    old = jnp.array([True, True, False])
    result = gram_schmidt(rows, old, ~old)
    np.testing.assert_allclose(result[2], [0.6, 0.8], atol=1e-6)


def test_components_of_a_stage_start_orthogonal_to_those_of_its_group() -> None:
    _, (params, memory) = begun(
        functools.partial(make_coda_prompt, components_per_stage=1), GIVEN
    )
    stack = params["visual"]
    vectors = np.concatenate([stack["keys"], stack["values"]], 2)
    vectors = vectors.reshape(STAGES, 2, -1).swapaxes(0, 1)
    for rows in vectors:
        products = rows @ rows.T
        for earlier, later in ((0, 3), (1, 4)):
            np.testing.assert_allclose(products[later, later], 1, atol=1e-5)
            assert np.abs(products[earlier, later]) < 1e-5
    assert memory["met"].tolist() == (np.eye(3, dtype=bool)[OF_STAGE]).tolist()


# who sees which stage


@pytest.mark.parametrize(
    ("sharing", "hint", "expected"),
    [
        (SHARED, -1, [1, 1, 0, 1, 0]),
        (GIVEN, 0, [1, 0, 0, 1, 0]),
        (GIVEN, 1, [0, 1, 0, 0, 0]),
    ],
)
def test_a_sample_sees_the_stages_of_its_group(
    sharing: str, hint: int, expected: list[int]
) -> None:
    _, (_, memory) = begun(make_s_prompts, sharing, stage=3)
    context = context_at(memory, 3)
    batch = batch_of(queries_of(0), "image", hint)
    seen = stage_slots.visible(model_of(), sharing, memory["met"], context, batch)
    assert (seen == np.array(expected, bool)).all()


@pytest.mark.parametrize("make", [make_s_prompts, make_diki])
def test_a_sample_takes_the_stage_that_it_resembles(make) -> None:
    method, (params, memory) = begun(make, SHARED)
    marked = jax.tree.map(
        lambda x: jnp.broadcast_to(
            jnp.eye(STAGES, x.shape[-1]).reshape(STAGES, *[1] * (x.ndim - 2), -1),
            x.shape,
        ),
        params,
    )
    model = model_of(embed=lambda *inputs: _marks(inputs[-1]))
    method = make(model, SHARED)
    context, predict = context_at(memory, STAGES - 1), by_hand.predict(method, model)
    for stage in (0, 1, 3):
        batch = batch_of(queries_of(stage))
        logits = predict(marked, context, batch).logits
        own = 10 * context.classes.text[:, stage]
        np.testing.assert_allclose(logits, np.stack([own] * 12), atol=1e-5)


def _marks(injection: Injection):
    """The slot that was taken, as a unit vector; the last of five has none."""
    if injection.prompts is not None:
        return injection.prompts[:, 0, 0, :4]
    return injection.prefixes[0].keys[:, 0, 0, :4]


# DIKI


def test_untrained_diki_is_the_frozen_encoder(encoder: Encoder) -> None:
    spec = encoder.spec

    def embed(frozen, modality, inputs, injection):
        return encoders.embed(spec, frozen, modality, inputs, injection)

    model = model_of(("image",), spec=spec, embed=embed)
    method = make_diki(model, SHARED)
    params, memory = by_hand.init(method, jax.random.key(0), ROOM)
    shape = (2, 1, *spec.reader("visual").image_size, 3)
    drawn = np.random.default_rng(0).normal(size=shape)
    pixels = jnp.asarray(drawn, jnp.float32)
    batch = batch_of(np.ones((2, spec.embedding))).replace(inputs={"pixels": pixels})
    text = jnp.eye(2 * STAGES, spec.embedding)
    plain = 10 * embed(encoder.frozen, "image", batch.inputs, None) @ text.T

    def logits(params, phase: Phase):
        context = context_at(memory, 0, encoder.frozen)
        context = context._replace(classes=context.classes._replace(text=text))
        return by_hand.predict(method, model, phase)(params, context, batch).logits

    for phase in ("predict", "train"):
        np.testing.assert_array_equal(logits(params, phase), plain)
    trained = jax.tree.map(lambda x: x + 1.0, params)
    # no stage is met yet, so nothing is familiar; in training all is
    np.testing.assert_array_equal(logits(trained, "predict"), plain)
    assert np.abs(logits(trained, "train") - plain).max() > 1e-2


def test_diki_is_as_strong_as_the_sample_is_familiar() -> None:
    told = []

    def embed(frozen, modality, inputs, injection):
        told.append(injection.prefixes[0].residual)
        return jnp.ones((len(told[-1]), 4)) / 2

    model = model_of(embed=embed)
    method = make_diki(model, SHARED)
    _, (params, memory) = begun(make_diki, SHARED)
    context = context_at(memory, STAGES - 1)
    near, far = queries_of(0, 1), -queries_of(0, 1)
    both = batch_of(np.concatenate([near, far]))
    with jax.disable_jit():
        by_hand.predict(method, model)(params, context, both)
        assert told[0][0] > 0.5 > told[0][1]
        loss = by_hand.loss(method, model)
        loss(params, context, batch_of(near), jax.random.key(0))
    assert told[1].tolist() == [1.0]
