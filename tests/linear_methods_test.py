"""Heads and maps on frozen queries against NumPy, one for all or one a modality."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mmcl_jax.methods.base import Common, Features
from mmcl_jax.methods.cmcl import Options as CmclOptions
from mmcl_jax.methods.cmcl import make as cmcl
from mmcl_jax.methods.klda import Options as KldaOptions
from mmcl_jax.methods.klda import fourier
from mmcl_jax.methods.klda import make as klda
from mmcl_jax.methods.layup import Options as LayupOptions
from mmcl_jax.methods.layup import make as layup
from mmcl_jax.methods.linear_probe import make as linear_probe
from mmcl_jax.methods.ncm import make as ncm
from mmcl_jax.methods.rail import Options as RailOptions
from mmcl_jax.methods.rail import make as rail
from mmcl_jax.methods.ranpac import Options as RanpacOptions
from mmcl_jax.methods.ranpac import make as ranpac
from mmcl_jax.methods.ridge import Options as RidgeOptions
from mmcl_jax.methods.ridge import make as ridge
from mmcl_jax.methods.slca import Options as SlcaOptions
from mmcl_jax.methods.slca import make as slca
from mmcl_jax.methods.slca import mean_norm
from mmcl_jax.models import adapters
from mmcl_jax.models.model import Model
from mmcl_jax.models.specs import TowerSpec, clip
from mmcl_jax.types import Batch, Capacity, Classes, Context
from tests import by_hand

# two towers; the first two modalities are read by one
MODALITIES = ("image", "depth", "text")
STAGES, WIDTH, ROWS = 6, 8, 24
KEY = jax.random.key(0)
GIVEN, ROUTED, SHARED = "per_modality_given", "per_modality_routed", "shared"
TOWER = TowerSpec(16, 2, 2, 32, "gelu", 1e-5)
MODEL = Model(
    spec=clip(TOWER, TOWER, WIDTH, 16, 8, 99, 9, 98),
    modalities=MODALITIES,
    logit_scale=10.0,
    input_shapes=({}, {}, {}),
    embed=lambda frozen, modality, inputs, injection: inputs["features"],
    embed_layers=lambda frozen, modality, inputs, injection, blocks: (
        None,
        inputs["features"],
    ),
)
OF = np.repeat(np.arange(STAGES), 2)
ROOM = Capacity(2 * STAGES, STAGES)


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


TEXT = unit(np.random.default_rng(9).normal(size=(2 * STAGES, WIDTH)))


def context(memory, stage: int) -> Context:
    classes = Classes(
        jnp.asarray(TEXT, jnp.float32),
        jnp.asarray(OF <= stage),
        jnp.asarray(OF == stage),
        jnp.asarray(OF % len(MODALITIES), jnp.int32),
    )
    return Context(None, memory, jnp.asarray(stage), classes, "train")


def batch(stage: int, seed: int = 0, hint: int | None = None) -> Batch:
    rng, index = np.random.default_rng([stage, seed]), stage % len(MODALITIES)
    label = np.resize([2 * stage, 2 * stage + 1], ROWS)
    # each modality has its cone, each class its place in it
    centre = 2 * np.eye(WIDTH)[index] + np.random.default_rng(5).normal(
        size=(2 * STAGES, WIDTH)
    )
    query = unit(centre[label] + 0.3 * rng.normal(size=(ROWS, WIDTH)))
    query = jnp.asarray(query, jnp.float32)
    return Batch(
        inputs={"features": query},
        query=query,
        label=jnp.asarray(label, jnp.int32),
        weight=jnp.ones(ROWS),
        id=jnp.arange(ROWS),
        hint=jnp.full(ROWS, index if hint is None else hint, jnp.int32),
        modality=MODALITIES[index],
    )


def learn(method, stages=range(STAGES)):
    params, memory = by_hand.init(method, KEY, ROOM)
    prepare, begin, end = map(
        by_hand.compiled, (method.prepare, method.begin_task, method.end_task)
    )
    observe = by_hand.observe(method, MODEL)
    for stage in stages:
        memory = prepare(params, context(memory, stage), batch(stage), KEY)
        params, memory = begin(params, context(memory, stage), KEY)
        memory = observe(params, context(memory, stage), batch(stage), KEY)
        params, memory = end(params, context(memory, stage), KEY)
    return params, memory


def logits(method, params, memory, rows, stage: int = STAGES - 1):
    predict = by_hand.predict(method, MODEL)
    return np.asarray(predict(params, context(memory, stage), rows).logits)


def common(sharing: str, label_space: str = "task") -> Common:
    return Common(adapters.deep_prompts(2, None), sharing, label_space)


def samples(modality: int | None = None):
    """Queries and one-hot labels of all stages, or of those of a modality."""
    stages = [s for s in range(STAGES) if modality in (None, s % len(MODALITIES))]
    x = np.concatenate([np.asarray(batch(s).query, np.float64) for s in stages])
    label = np.concatenate([np.asarray(batch(s).label) for s in stages])
    return x, np.eye(2 * STAGES)[label]


def solved(x, y, regularization: float):
    gram = x.T @ x
    return np.linalg.solve(gram + regularization * np.eye(len(gram)), x.T @ y)


def relative(x, share: float) -> float:
    return share * np.trace(x.T @ x) / x.shape[1]


def with_constant(x):
    return np.concatenate([x, np.ones_like(x[:, :1])], axis=1)


def test_one_ridge_head_is_that_of_all_samples():
    method = ridge(MODEL, RidgeOptions(0.1), common(SHARED))
    params, memory = learn(method)
    x, y = samples()
    x = with_constant(x)
    head = solved(x, y, relative(x, 0.1))
    np.testing.assert_allclose(memory["head"], head, atol=1e-4)
    assert memory["gram"].shape == (1, WIDTH + 1, WIDTH + 1)
    rows = batch(3, seed=1)
    expected = with_constant(np.asarray(rows.query)) @ head
    np.testing.assert_allclose(
        logits(method, params, memory, rows), expected, atol=1e-4
    )


@pytest.mark.parametrize("sharing", [GIVEN, ROUTED])
def test_a_ridge_head_a_modality_is_that_of_its_samples(sharing: str):
    method = ridge(MODEL, RidgeOptions(0.1), common(sharing))
    params, memory = learn(method)
    for modality in range(len(MODALITIES)):
        x, y = samples(modality)
        x = with_constant(x)
        own = OF % len(MODALITIES) == modality
        head = solved(x, y, relative(x, 0.1))[:, own]
        np.testing.assert_allclose(memory["head"][:, own], head, atol=1e-4)
        rows = batch(modality, seed=1)
        told = logits(method, params, memory, rows)
        expected = with_constant(np.asarray(rows.query)) @ head
        np.testing.assert_allclose(told[:, own], expected, atol=1e-4)


def test_heads_read_no_hint():
    for sharing in (GIVEN, ROUTED):
        method = ridge(MODEL, RidgeOptions(0.1), common(sharing))
        params, memory = learn(method)
        told = [
            logits(method, params, memory, batch(0, seed=1, hint=hint))
            for hint in (-1, 0, 1, 2)
        ]
        assert all((each == told[0]).all() for each in told)
        assert not method.uses_hint


@pytest.mark.parametrize("sharing", [SHARED, GIVEN])
def test_recursion_ends_at_the_ridge_solution(sharing: str):
    options = RailOptions(width=16, regularization=0.5, ridge_share=None)
    method = rail(MODEL, options, common(sharing))
    _, memory = learn(method)
    projection = np.asarray(memory["projection"], np.float64)
    for modality in range(len(MODALITIES)):
        x, y = samples(None if sharing == SHARED else modality)
        own = OF % len(MODALITIES) == modality
        head = solved(np.maximum(x @ projection, 0), y, 0.5)[:, own]
        np.testing.assert_allclose(memory["head"][:, own], head, atol=2e-3)


def test_ranpac_is_ridge_on_random_features():
    method = ranpac(MODEL, RanpacOptions(16, 0.1, first_session=False), common(SHARED))
    _, memory = learn(method)
    x, y = samples()
    x = np.maximum(x @ np.asarray(memory["projection"], np.float64), 0)
    head = solved(x, y, relative(x, 0.1))
    np.testing.assert_allclose(memory["head"], head, atol=1e-4)


def test_a_ridge_is_chosen_on_every_fifth_sample_of_a_stage():
    method = ranpac(MODEL, RanpacOptions(16, first_session=False), common(GIVEN))
    _, memory = learn(method, [0, 1])
    rows = batch(1)
    x = np.maximum(np.asarray(rows.query) @ memory["projection"], 0).astype(float)
    y = np.eye(2 * STAGES)[np.asarray(rows.label)]
    held = np.arange(1, ROWS + 1) % 5 == 0
    grid = 10.0 ** np.arange(-2, 9)
    errors = [
        np.square(x[held] @ solved(x[~held], y[~held], ridge) - y[held]).mean()
        for ridge in grid
    ]
    np.testing.assert_allclose(memory["ridge"], grid[np.argmin(errors)])
    # that of the stage before stays with its head
    head = solved(x, y, memory["ridge"])[:, OF % 3 == 1]
    np.testing.assert_allclose(memory["head"][:, OF % 3 == 1], head, atol=1e-3)
    assert memory["fitted"].count == memory["held_out"].count == 0


def test_layers_and_embedding_stand_side_by_side():
    model = MODEL._replace(
        embed_layers=lambda frozen, modality, inputs, *rest: (
            None,
            2 * inputs["features"],
        )
    )
    method = layup(model, LayupOptions(blocks=3, regularization=0.1), common(SHARED))
    _, memory = by_hand.init(method, KEY, ROOM)
    observe = by_hand.observe(method, model)
    for stage in range(STAGES):
        memory = observe({}, context(memory, stage), batch(stage), KEY)
    params, memory = method.end_task({}, context(memory, STAGES - 1), KEY)
    x, y = samples()

    def wide(x):
        # one block of 16 before the final one, of which the features fill 8
        return np.concatenate([2 * x, np.zeros_like(x), 8**0.5 * x], axis=1)

    x, rows = wide(x), batch(1, seed=1)
    head = solved(x, y, relative(x, 0.1))
    predict = by_hand.predict(method, model)
    told = predict(params, context(memory, STAGES - 1), rows).logits
    np.testing.assert_allclose(told, wide(np.asarray(rows.query)) @ head, atol=1e-3)


@pytest.mark.parametrize("sharing", [SHARED, GIVEN])
def test_klda_is_a_discriminant_of_fourier_features(sharing: str):
    options = KldaOptions(width=24, regularization=0.1)
    method = klda(MODEL, options, common(sharing))
    params, memory = learn(method)
    rows = batch(1, seed=1)
    told = logits(method, params, memory, rows)

    def features(x):
        matrix, phase = (np.asarray(memory[k], float) for k in ("projection", "phase"))
        return (2 / 24) ** 0.5 * np.cos(x @ matrix + phase)

    own = OF % len(MODALITIES) == 1 if sharing == GIVEN else OF >= 0
    x, y = samples(1 if sharing == GIVEN else None)
    x, y = features(x), y[:, own]
    means = (y.T @ x) / y.sum(0)[:, None]
    rest = x - means[y.argmax(1)]
    covariance = rest.T @ rest / len(x)
    covariance += 0.1 * np.trace(covariance) / 24 * np.eye(24)
    white = np.linalg.solve(covariance, means.T)
    expected = features(np.asarray(rows.query)) @ white - 0.5 * (white * means.T).sum(0)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(told[:, own], expected, atol=1e-4 * scale)


def test_fourier_features_approach_the_kernel():
    method = klda(MODEL, KldaOptions(width=2000, bandwidth=0.7), common(SHARED))
    memory, rows = by_hand.init(method, KEY, ROOM)[1], batch(0)
    x = np.asarray(rows.query)
    phi = np.asarray(fourier(memory, rows, Features()))
    kernel = np.exp(-0.7 * np.square(x[:, None] - x[None]).sum(-1))
    np.testing.assert_allclose(phi @ phi.T, kernel, atol=0.1)


def test_fusion_is_for_samples_whose_zero_shot_answer_was_seen():
    stage = 2
    fused, alone = (
        rail(MODEL, RailOptions(16, 0.5, share), common(SHARED))
        for share in (0.8, None)
    )
    params, memory = learn(fused, range(stage + 1))
    rows = batch(0, seed=1)
    told = logits(fused, params, memory, rows, stage)
    scores = logits(alone, params, memory, rows, stage)
    similar = 10 * np.asarray(rows.query) @ TEXT.T
    zero_shot = np.exp(similar) / np.exp(similar).sum(1, keepdims=True)
    seen = (OF <= stage)[similar.argmax(1)]
    assert 0 < seen.sum() < ROWS
    np.testing.assert_allclose(
        told[seen], (0.8 * scores + 0.2 * zero_shot)[seen], atol=1e-5
    )
    np.testing.assert_allclose(told[~seen], zero_shot[~seen], atol=1e-5)


def test_nearest_mean_by_numpy():
    method = ncm(MODEL, None, common(SHARED))
    params, memory = learn(method)
    x, y = samples()
    means = unit((y.T @ x) / y.sum(0)[:, None])
    rows = batch(1, seed=1)
    np.testing.assert_allclose(
        logits(method, params, memory, rows),
        10 * np.asarray(rows.query) @ means.T,
        atol=1e-4,
    )
    # a class without samples is no nearer than at a right angle
    _, early = learn(method, [0])
    assert (logits(method, params, early, rows, 0)[:, 2:] == 0).all()


def test_a_probe_of_all_classes_is_multinomial_regression():
    method = linear_probe(MODEL, None, common(SHARED, "all_seen"))
    params, memory = by_hand.init(method, KEY, ROOM)
    at, rows = context(memory, 0), batch(0)
    loss = by_hand.loss(method, MODEL)
    gradient = jax.grad(loss, has_aux=True)(params, at, rows, KEY)[0]
    x, y = np.asarray(rows.query), np.eye(2)[np.asarray(rows.label)]
    scores = 10 * x @ np.asarray(params["weight"])[:, :2]
    p = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    expected = 10 * x.T @ (p - y) / ROWS
    np.testing.assert_allclose(gradient["weight"][:, :2], expected, atol=1e-5)
    assert np.all(np.asarray(gradient["weight"])[:, 2:] == 0)


def _train(method, params, memory, stage: int, steps: int = 10):
    """Steps of AdamW as the learner makes them."""
    optimizer = optax.chain(
        optax.scale_by_adam(), optax.add_decayed_weights(0.1), optax.scale(-0.01)
    )
    state, at = optimizer.init(params), context(memory, stage)
    loss = by_hand.loss(method, MODEL)

    @jax.jit
    def step(params, state):
        gradient = jax.grad(loss, has_aux=True)(params, at, batch(stage), KEY)[0]
        updates, state = optimizer.update(gradient, state, params)
        updates = method.constrain(updates, params, at)
        return optax.apply_updates(params, updates), state

    for _ in range(steps):
        params, state = step(params, state)
    return params


@pytest.mark.parametrize("project", ["update", "gradient_then_adam"])
def test_old_pairs_see_nothing_of_projected_updates(project: str):
    options = CmclOptions(project=project, input_threshold=0.0)
    method = cmcl(MODEL, options, common(SHARED))
    params, memory = by_hand.init(method, KEY, ROOM)
    # few samples, so that there are directions left
    old = jax.tree.map(lambda x: x[:3], batch(0))
    memory = method.prepare(params, context(memory, 0), old, KEY)
    params, memory = method.end_task(params, context(memory, 0), KEY)
    before = logits(method, params, memory, old)
    params = _train(method, params, memory, 1)
    change = np.abs(logits(method, params, memory, old) - before)
    assert change[:, 2:].max() > 0.1
    if project == "update":
        assert change[:, :2].max() < 1e-3
    else:
        assert change[:, :2].max() > 0.1


def test_moments_are_counted_by_group():
    method = cmcl(MODEL, CmclOptions(), common(GIVEN))
    _, memory = learn(method)
    np.testing.assert_array_equal(memory["count"], ROWS / 2)
    for modality, (tower, group) in enumerate(
        [("visual", 0), ("visual", 1), ("text", 0)]
    ):
        x, y = samples(modality)
        np.testing.assert_allclose(memory["moment"][tower][group], x.T @ x, atol=1e-3)
        values, vectors = np.linalg.eigh(x.T @ x / len(x))
        kept = vectors[:, values > 0.1]
        np.testing.assert_allclose(
            memory["inputs"][tower][group], kept @ kept.T, atol=1e-3
        )
        partners = np.asarray(memory["partners"][tower][group])
        np.testing.assert_allclose(TEXT[y.any(0)] @ partners, TEXT[y.any(0)], atol=1e-3)
        np.testing.assert_allclose(np.trace(partners), y.any(0).sum(), atol=1e-3)


def _slca(options: SlcaOptions, sharing: str = SHARED):
    return slca(MODEL, options, common(sharing))


def test_adapters_are_slow_and_the_head_is_fast():
    method = _slca(SlcaOptions(slow_rate=0.25))
    params, memory = by_hand.init(method, KEY, ROOM)
    ones = jax.tree.map(jnp.ones_like, params)
    updates = method.constrain(ones, params, context(memory, 0))
    assert all((leaf == 0.25).all() for leaf in jax.tree.leaves(updates["adapters"]))
    assert all((leaf == 1).all() for leaf in jax.tree.leaves(updates["head"]))


@pytest.mark.parametrize(
    ("covariance", "sharing"),
    [
        ("modality", GIVEN),
        pytest.param("class", SHARED, marks=pytest.mark.full("methods")),
        pytest.param("modality", SHARED, marks=pytest.mark.full("methods")),
        pytest.param("class", GIVEN, marks=pytest.mark.full("methods")),
    ],
)
def test_alignment_tells_apart_classes_that_no_loss_saw_together(
    sharing: str, covariance: str
):
    options = SlcaOptions(covariance=covariance, shrinkage=0.1)
    method = _slca(options, sharing)
    params, memory = learn(method)
    off, _ = learn(_slca(SlcaOptions(alignment_steps=0), sharing))
    right = {"aligned": [], "off": []}
    for stage in range(STAGES):
        rows = batch(stage, seed=1)
        for name, trained in (("aligned", params), ("off", off)):
            told = logits(method, trained, memory, rows).argmax(1)
            right[name].extend(told == np.asarray(rows.label))
    assert np.mean(right["aligned"]) > 0.9 > np.mean(right["off"])


def test_the_first_task_is_not_aligned():
    method = _slca(SlcaOptions())
    start, _ = by_hand.init(method, KEY, ROOM)
    params, _ = learn(method, [0])
    jax.tree.map(np.testing.assert_array_equal, params, start)


def test_mean_norm_is_over_the_tasks_that_were_seen():
    logits_ = np.zeros((1, 2 * STAGES), np.float32)
    logits_[0, :4] = [3, 4, 6, 8]
    logits_[0, 4:] = 99
    classes = context({}, 1).classes
    norm = mean_norm(jnp.asarray(logits_), classes, jnp.asarray(OF))
    np.testing.assert_allclose(norm, [[7.5]], rtol=1e-6)
