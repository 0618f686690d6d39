"""Methods that choose among prompts: numbers known by hand, and who sees which slot."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmcl_jax.methods import stages
from mmcl_jax.methods.base import Method
from mmcl_jax.methods.coda_prompt import (
    CodaPromptOptions,
    coda_prompt,
    gram_schmidt,
    orthogonality_penalty,
)
from mmcl_jax.methods.diki import DikiOptions, diki
from mmcl_jax.methods.dualprompt import (
    DualPromptOptions,
    dualprompt,
    reshaped_without_transpose,
)
from mmcl_jax.methods.l2p import L2POptions, l2p
from mmcl_jax.methods.s_prompts import SPromptsOptions, s_prompts
from mmcl_jax.models import Model, adapters, dual
from mmcl_jax.models.pretrained.huggingface_clip import Encoder
from mmcl_jax.models.tower import Injection, Prefix
from mmcl_jax.types import Batch, Classes, Context

MODALITIES = ("image", "video", "text")
GIVEN, SHARED = "per_modality_given", "shared"
# a stage of each modality in turn, two classes each
STAGES = 5
OF_STAGE = [0, 1, 2, 0, 1]


def _spec(embedding: int = 4, width: int = 16, layers: int = 2) -> dual.DualSpec:
    towers = [
        dual.TowerSpec(w, layers, 2, 4 * w, "gelu", 1e-5)
        for w in (width, width * 2 // 3 if width > 99 else width)
    ]
    return dual.DualSpec(*towers, embedding, 224, 16, 99, 9, 98)


def _reveal(frozen, inputs, injection: Injection | None):
    """An encoder that says what is put into it: the first entries of each token."""
    if injection.prompts is not None:
        tokens = injection.prompts
    else:
        tokens = jnp.concatenate([p.keys for p in injection.prefixes], axis=1)
    told = tokens[..., :4].mean((1, 2))
    return told / jnp.linalg.norm(told, axis=-1, keepdims=True)


def _model(
    modalities=MODALITIES, num_stages: int = STAGES, spec=None, embed=_reveal
) -> Model:
    towers = tuple("text" if m == "text" else "visual" for m in modalities)
    return Model(
        spec=spec or _spec(),
        modalities=modalities,
        towers=towers,
        num_classes=2 * num_stages,
        num_stages=num_stages,
        logit_scale=10.0,
        input_shapes=(),
        embed=embed,
        layer_features=lambda frozen, inputs: inputs,
    )


def _context(memory, stage: int, train: bool, frozen=None) -> Context:
    modality = np.repeat(OF_STAGE, 2)
    stage_of = np.repeat(np.arange(STAGES), 2)
    text = np.random.default_rng(4).normal(size=(2 * STAGES, 4))
    text /= np.linalg.norm(text, axis=1, keepdims=True)
    classes = Classes(
        jnp.asarray(text, jnp.float32),
        jnp.asarray(stage_of <= stage),
        jnp.asarray(stage_of == stage),
        jnp.asarray(modality, jnp.int32),
    )
    return Context(frozen, memory, jnp.asarray(stage), classes, train)


def _batch(query, modality: str = "image", hint: int | None = None) -> Batch:
    query = jnp.asarray(query, jnp.float32)
    rows = len(query)
    own = MODALITIES.index(modality) if hint is None else hint
    return Batch(
        inputs={},
        query=query / jnp.linalg.norm(query, axis=1, keepdims=True),
        label=jnp.zeros(rows, jnp.int32),
        weight=jnp.ones(rows),
        id=jnp.arange(rows, dtype=jnp.int32),
        hint=jnp.full(rows, own, jnp.int32),
        modality=modality,
    )


def _queries(stage: int, rows: int = 12) -> np.ndarray:
    """Samples of a stage lie around a direction of their own."""
    centre = np.random.default_rng(stage).normal(size=4)
    noise = np.random.default_rng([9, stage]).normal(size=(rows, 4))
    return centre / np.linalg.norm(centre) + 0.05 * noise


@functools.lru_cache
def _compiled(method: Method):
    @jax.jit
    def begin(params, context: Context, batch: Batch, key):
        context = context._replace(train=True)
        context = context._replace(memory=method.prepare(params, context, batch, key))
        return method.begin_task(params, context, key)

    return begin


def _begin(method: Method, state, stage: int):
    params, memory = state
    batch = _batch(_queries(stage), MODALITIES[OF_STAGE[stage]])
    batch = batch.replace(label=jnp.full(12, 2 * stage, jnp.int32))
    context = _context(memory, stage, True)
    return _compiled(method)(params, context, batch, jax.random.key(stage))


@functools.lru_cache
def _begun(make, sharing: str, stage: int = STAGES - 1):
    """A method and its state when the last stage has begun; nothing was trained."""
    model = _model()
    method = make(model, sharing)
    state = method.init(jax.random.key(0), model)
    for i in range(stage + 1):
        state = _begin(method, state, i)
    return method, state


def _l2p(model: Model, sharing: str, **options) -> Method:
    options = {"pool": 3, "length": 2, "top_k": 1} | options
    return l2p(model, L2POptions(**options), sharing, "task")


def _dual(model: Model, sharing: str, **options) -> Method:
    return dualprompt(model, DualPromptOptions(**options), sharing, "task")


def _coda(model: Model, sharing: str, **options) -> Method:
    return coda_prompt(model, CodaPromptOptions(**options), sharing, "task")


def _s_prompts(model: Model, sharing: str) -> Method:
    options = SPromptsOptions(centres=2, sampled_queries=8)
    adapter = adapters.shallow_prompts(2)
    return s_prompts(model, adapter, options, sharing, "task")


def _diki(model: Model, sharing: str) -> Method:
    return diki(model, DikiOptions(), sharing, "task")


# parameter counts


def _counts(make, embedding: int, modalities=("image",), num_stages: int = 10) -> dict:
    """Numbers of parameters in towers of the size of ViT-B."""
    spec = _spec(embedding, 768, 12)
    model = _model(modalities, num_stages, spec)
    method = make(model, SHARED)
    params, _ = jax.eval_shape(lambda: method.init(jax.random.key(0), model))
    return {
        name: sum(leaf.size for leaf in jax.tree.leaves(part))
        for name, part in params.items()
    }


def test_parameter_counts_are_the_published_ones() -> None:
    make = functools.partial(_l2p, pool=10, length=10, top_k=4)
    assert _counts(make, 768) == {"visual": 84_480}
    counts = _counts(_dual, 768)
    assert (counts["general"], counts["experts"]) == (15_360, 230_400)
    assert _counts(_coda, 768) == {"visual": 3_840_000}
    # two towers
    counts = _counts(_diki, 512, ("image", "text"), num_stages=11)
    assert sum(counts.values()) == 11 * 163_840


# L2P


def test_chosen_prompts_stand_side_by_side() -> None:
    told = []

    def embed(frozen, inputs, injection):
        told.append(injection.prompts)
        return _reveal(frozen, inputs, injection)

    model = _model(embed=embed)
    method = _l2p(model, SHARED, top_k=2)
    params, memory = method.init(jax.random.key(0), model)
    keys = np.eye(4)[:3] + [[0, 0, 0, 0], [0, 0, 0.1, 0], [0, 0, 0, 0]]
    params["visual"]["keys"] = jnp.asarray(keys, jnp.float32)
    batch = _batch([[3.0, 1, 0, 0], [0, 0, 1, 0]])
    method.predict(params, _context(memory, 0, False), batch)
    prompts = np.asarray(params["visual"]["prompts"])[:, 0]
    expected = [[prompts[0], prompts[1]], [prompts[2], prompts[1]]]
    np.testing.assert_array_equal(told[0][:, 0], np.reshape(expected, (2, 4, 16)))


@pytest.mark.parametrize("vote", [False, True])
def test_only_a_vote_makes_predictions_depend_on_the_batch(vote: bool) -> None:
    model = _model()
    method = _l2p(model, SHARED, batchwise_vote=vote)
    params, memory = method.init(jax.random.key(0), model)
    params["visual"]["keys"] = jnp.eye(4)[:3]
    context = _context(memory, STAGES - 1, False)

    def logits(query):
        return method.predict(params, context, _batch(query)).logits

    rows = [[1.0, 0, 0, 0], [0, 1.0, 0, 0], [0, 1.0, 0.1, 0]]
    together = logits(rows)
    alone = jnp.concatenate([logits([row]) for row in rows])
    np.testing.assert_allclose(together[1:], alone[1:], atol=1e-6)
    assert (np.abs(together[0] - alone[0]).max() > 1e-3) == vote


def test_more_prompts_than_the_pool_has() -> None:
    with pytest.raises(ValueError, match=r"l2p.top_k: 4 is more than the 3"):
        _l2p(_model(), SHARED, top_k=4)


@pytest.mark.parametrize("make", [_l2p, _dual, _coda, _s_prompts, _diki])
def test_no_gradient_flows_into_other_modalities(make) -> None:
    method, (params, memory) = _begun(make, GIVEN)
    stage = STAGES - 1  # of video
    batch = _batch(_queries(stage), "video")
    batch = batch.replace(label=jnp.full(12, 2 * stage, jnp.int32))
    context = _context(memory, stage, True)
    free = method.trainable(params, context)
    loss = functools.partial(
        method.loss, context=context, batch=batch, key=jax.random.key(0)
    )
    gradient = jax.jit(jax.grad(lambda params: loss(params)[0]))(params)
    # earlier stages of the modality are held by the mask, not by the gradient
    masked = jax.tree.map(lambda g, m: g * m, gradient, free)
    assert any(np.any(leaf) for leaf in jax.tree.leaves(masked)) or make is _diki
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
        if "text" in jax.tree_util.keystr(path):
            np.testing.assert_array_equal(leaf, 0)
            continue
        slots = np.abs(leaf).reshape(leaf.shape[0], -1).max(1)
        if len(slots) == 2:
            owners = np.array([0, 1])
        elif make is _l2p:
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
    method, (params, memory) = _begun(functools.partial(_dual, reshape_bug=bug), SHARED)
    context = _context(memory, STAGES - 1, False)
    rows = np.concatenate([_queries(stage, 1) for stage in (0, 1, 3, 4)])
    # each query's expert by its own key
    for i, stage in enumerate((0, 1, 3, 4)):
        keys = params["expert_keys"]["visual"]
        own = keys.at[stage].set(jnp.asarray(rows[i], jnp.float32))
        params = params | {"expert_keys": params["expert_keys"] | {"visual": own}}

    def logits(order):
        return method.predict(params, context, _batch(rows[order])).logits

    plain, turned = logits([0, 1, 2, 3]), logits([3, 2, 1, 0])[::-1]
    assert np.allclose(plain, turned, atol=1e-5) != bug


def test_an_expert_starts_from_the_last_one_of_its_group() -> None:
    for sharing, sources in ((GIVEN, {3: 0, 4: 1}), (SHARED, {1: 0, 3: 1, 4: 3})):
        model = _model()
        method = _dual(model, sharing)
        state = method.init(jax.random.key(0), model)
        for stage in range(STAGES):
            before = state[0]["experts"]["visual"]["keys"]
            state = _begin(method, state, stage)
            after = state[0]["experts"]["visual"]["keys"]
            source = sources.get(stage, stage)
            np.testing.assert_array_equal(after[stage], before[source])
            # as if it had been trained
            state[0]["experts"]["visual"]["keys"] = after.at[stage].add(stage + 1.0)


def test_blocks_are_divided_between_general_and_expert_prefixes() -> None:
    for layers, depths in ((1, (0, 1)), (2, (1, 1)), (4, (2, 2)), (12, (2, 3))):
        model = _model(("image",), spec=_spec(layers=layers))
        params, _ = _dual(model, SHARED).init(jax.random.key(0), model)
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
    _, (params, memory) = _begun(functools.partial(_coda, components=5), GIVEN)
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
    _, (_, memory) = _begun(_s_prompts, sharing, stage=3)
    context = _context(memory, 3, False)
    batch = _batch(_queries(0), "image", hint)
    seen = stages.visible(_model(), sharing, memory["met"], context, batch)
    assert (seen == np.array(expected, bool)).all()


@pytest.mark.parametrize("make", [_s_prompts, _diki])
def test_a_sample_takes_the_stage_that_it_resembles(make) -> None:
    method, (params, memory) = _begun(make, SHARED)
    marked = jax.tree.map(
        lambda x: jnp.broadcast_to(
            jnp.eye(STAGES, x.shape[-1]).reshape(STAGES, *[1] * (x.ndim - 2), -1),
            x.shape,
        ),
        params,
    )
    model = _model(embed=lambda frozen, inputs, injection: _marks(injection))
    method = make(model, SHARED)
    context = _context(memory, STAGES - 1, False)
    for stage in (0, 1, 3):
        batch = _batch(_queries(stage))
        logits = method.predict(marked, context, batch).logits
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

    def embed(frozen, inputs, injection):
        return dual.embed(spec, frozen, inputs, injection)

    model = _model(("image",), spec=spec, embed=embed)
    method = _diki(model, SHARED)
    params, memory = method.init(jax.random.key(0), model)
    shape = (2, 1, spec.image_size, spec.image_size, 3)
    drawn = np.random.default_rng(0).normal(size=shape)
    pixels = jnp.asarray(drawn, jnp.float32)
    batch = _batch(np.ones((2, spec.embedding))).replace(inputs={"pixels": pixels})
    text = jnp.eye(2 * STAGES, spec.embedding)
    plain = 10 * embed(encoder.frozen, batch.inputs, None) @ text.T

    def logits(params, train: bool):
        context = _context(memory, 0, train, encoder.frozen)
        context = context._replace(classes=context.classes._replace(text=text))
        return method.predict(params, context, batch).logits

    for train in (False, True):
        np.testing.assert_array_equal(logits(params, train), plain)
    trained = jax.tree.map(lambda x: x + 1.0, params)
    # no stage is met yet, so nothing is familiar; in training all is
    np.testing.assert_array_equal(logits(trained, False), plain)
    assert np.abs(logits(trained, True) - plain).max() > 1e-2


def test_diki_is_as_strong_as_the_sample_is_familiar() -> None:
    told = []

    def embed(frozen, inputs, injection):
        told.append(injection.prefixes[0].residual)
        return jnp.ones((len(told[-1]), 4)) / 2

    method = _diki(_model(embed=embed), SHARED)
    _, (params, memory) = _begun(_diki, SHARED)
    context = _context(memory, STAGES - 1, False)
    near, far = _queries(0, 1), -_queries(0, 1)
    method.predict(params, context, _batch(np.concatenate([near, far])))
    assert told[0][0] > 0.5 > told[0][1]
    training = context._replace(train=True)
    method.loss(params, training, _batch(near), jax.random.key(0))
    assert told[1].tolist() == [1.0]
