"""Methods against answers that the authors' own functions gave for the same inputs."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmcl_jax.methods import (
    coda_prompt,
    derpp,
    ease,
    fecam,
    l2p,
    ncm,
    pool,
    rail,
    s_prompts,
    slca,
    slda,
    zero_shot,
)
from mmcl_jax.ops import gaussians, kmeans, least_squares, losses, projection
from mmcl_jax.types import Capacity
from tests import by_hand
from tests.published import (
    COMMON,
    KEY,
    MODEL,
    answers,
    context,
    published,
    rows_of,
    taught,
    unit,
)

pytestmark = pytest.mark.full("methods")


def test_rail_in_its_primal_form() -> None:
    found = published("rail_primal")
    text, width = found["inputs_class_texts"], found["weights_random"].shape[1]
    options = rail.Options(width, float(found["constants_lambda"]), 0.8)
    method = rail.make(MODEL, options, COMMON)
    _, memory = method.init(KEY, Capacity(len(text), 3))
    memory |= {"projection": jnp.asarray(found["weights_random"])}
    for task, seen in enumerate((2, 5, 7)):
        query = unit(found[f"inputs_features_task{task}"])
        label = found[f"inputs_labels_task{task}"]
        memory = taught(method, memory, seen, text, query, label, 5)
        for name, own in (("inverse", memory["inverse"][0]), ("head", memory["head"])):
            expected = found[f"expected_{name}_task{task}"]
            own = np.asarray(own)[:, : expected.shape[1]]
            np.testing.assert_allclose(own, expected, atol=1e-4)
        for other in range(3):
            query = unit(found[f"inputs_test_features_task{other}"])
            expected = found[f"expected_fused_after_task{task}_on_task{other}"]
            told = answers(method, memory, seen, text, query)
            np.testing.assert_allclose(told, expected, atol=1e-5)


def test_rail_fuses_the_scores_of_its_dual_form_alike() -> None:
    found = published("rail_dual")
    for task, number in enumerate((2, 5, 7)):
        for other in range(task + 1):
            place = f"after_task{task}_on_task{other}"
            scores = found[f"expected_scores_{place}"]
            scores = np.pad(scores, ((0, 0), (0, 7 - number)))
            told = rail.fused(
                jnp.asarray(scores),
                jnp.asarray(found[f"expected_zero_shot_task{other}"]),
                jnp.arange(7) < number,
                float(found["constants_fusion"]),
            )
            np.testing.assert_allclose(
                told, found[f"expected_fused_{place}"], atol=1e-6
            )


def test_rail_draws_its_layer_as_published() -> None:
    method = rail.make(MODEL, rail.Options(width=4000), COMMON)
    drawn = np.asarray(method.init(KEY, Capacity(2, 1))[1]["projection"])
    assert np.abs(drawn).max() <= 1 / 4
    np.testing.assert_allclose(drawn.var(), 1 / (3 * 16), rtol=0.02)
    official = published("rail_primal")["weights_random"]
    assert np.abs(official).max() <= 1 / 4
    np.testing.assert_allclose(official.var(), 1 / (3 * 16), rtol=0.1)


@pytest.mark.parametrize("size", [1, 60])
def test_slda_in_batches_of_any_size(size: int) -> None:
    found = published("slda")
    shrinkage = float(found["constants_shrinkage"])
    method = slda.make(MODEL, slda.Options(shrinkage), COMMON)
    _, memory = method.init(KEY, Capacity(6, 3))
    text = np.eye(6, 16)
    for task in range(3):
        part = slice(60 * task, 60 * task + 60)
        query, label = found["inputs_features"][part], found["inputs_labels"][part]
        memory = taught(method, memory, 6, text, query, label, size)
        stats = memory["gaussians"]
        met = np.asarray(stats.count) > 0
        np.testing.assert_allclose(
            stats.mean[met], found[f"expected_means_task{task}"][met], atol=1e-5
        )
        sigma = np.asarray(stats.scatter[0]) / (60 * task + 60)
        np.testing.assert_allclose(
            sigma, found[f"expected_sigma_task{task}"], atol=1e-5
        )
        told = answers(method, memory, 6, text, found["inputs_test_features"])
        expected = found[f"expected_scores_task{task}"]
        np.testing.assert_allclose(told, expected, atol=1e-5 * np.abs(expected).max())


def test_fecam_shrinks_and_scales_as_published() -> None:
    found = published("fecam")
    alphas = [float(found[f"constants_alpha{i}"]) for i in (1, 2)]
    for c in range(6):
        powered = np.sqrt(found[f"inputs_features_class{c}"].astype(float))
        matrix = jnp.asarray(np.cov(powered.T), jnp.float32)
        for times in ("once", "twice"):
            matrix = fecam.shrunk(matrix, *alphas)
            expected = found[f"expected_covariances_shrunk_{times}"][c]
            np.testing.assert_allclose(matrix, expected, atol=1e-6)
        expected = found["expected_covariances_normalised"][c]
        np.testing.assert_allclose(fecam.correlation(matrix), expected, atol=1e-5)


def test_fecam_for_transformers() -> None:
    found = published("fecam")
    method = fecam.make(MODEL, fecam.Options(), COMMON)
    _, memory = method.init(KEY, Capacity(6, 1))
    query = np.concatenate([found[f"inputs_features_class{c}"] for c in range(6)])
    label, text = np.repeat(np.arange(6), 30), np.eye(6, 16)
    memory = taught(method, memory, 6, text, unit(query), label, 50)
    np.testing.assert_allclose(
        memory["gaussians"].mean, found["expected_vit_means"], atol=1e-6
    )
    told = answers(method, memory, 6, text, unit(found["inputs_test_features"]))
    np.testing.assert_allclose(-told, found["expected_vit_distances"], atol=1e-5)


@pytest.mark.parametrize("kind", ["rp", "norp"])
def test_ranpac_chooses_its_ridge(kind: str) -> None:
    found = published("ranpac")
    matrix, grid = found[f"weights_random_{kind}"], found["constants_lambda_grid"]
    total = least_squares.init(matrix.shape[1], 6)

    def features(x):
        return jnp.asarray(np.maximum(x @ matrix, 0) if kind == "rp" else x @ matrix)

    def added(stats, x, y):
        return least_squares.update(stats, x, jnp.asarray(y), jnp.ones(len(x)))

    for task in range(3):
        x = features(found[f"inputs_features_task{task}"])
        y = np.eye(6)[found[f"inputs_labels_task{task}"]]
        empty = least_squares.init(matrix.shape[1], 6)
        fitted, held = added(empty, x[:32], y[:32]), added(empty, x[32:], y[32:])
        ridge = least_squares.chosen(fitted, held, jnp.asarray(grid, jnp.float32))
        assert ridge == found[f"expected_lambda_{kind}_task{task}"]
        # smaller ones are noise in single precision
        for i in range(8, len(grid)):
            weights, _ = least_squares.solve(fitted, jnp.float32(grid[i]))
            np.testing.assert_allclose(
                least_squares.squared_error(weights, held),
                found[f"expected_validation_mse_{kind}_task{task}"][i],
                atol=2e-5,
            )
        total = added(total, x, y)
        weights, _ = least_squares.solve(total, ridge)
        told = features(found["inputs_test_features"]) @ weights
        expected = found[f"expected_logits_{kind}_task{task}"]
        np.testing.assert_allclose(told[:, : expected.shape[1]], expected, atol=1e-5)
    np.testing.assert_allclose(total.gram, found[f"expected_G_{kind}"], atol=1e-3)


def test_class_means_of_the_simplest_head() -> None:
    found = published("ranpac")
    stats = gaussians.init(6, 1, 16)
    for task in range(3):
        x, label = (
            found[f"inputs_{name}_task{task}"] for name in ("features", "labels")
        )
        stats = gaussians.update(
            stats, jnp.asarray(x), jnp.asarray(label, jnp.int32), jnp.ones(40), 0
        )
    np.testing.assert_allclose(stats.mean, found["expected_head_ncm"], atol=1e-5)


def test_simplecil_is_the_cosine_with_class_means() -> None:
    found, inputs = published("simplecil"), published("fecam")
    method = ncm.make(MODEL, None, COMMON)
    _, memory = method.init(KEY, Capacity(6, 1))
    query = np.concatenate([inputs[f"inputs_features_class{c}"] for c in range(6)])
    label, text = np.repeat(np.arange(6), 30), np.eye(6, 16)
    # means of the features as they are, which here have no unit norm
    memory = taught(method, memory, 6, text, query, label, 50)
    np.testing.assert_allclose(
        memory["sums"] / 30, found["expected_simplecil_head"], atol=1e-5
    )
    told = answers(method, memory, 6, text, unit(inputs["inputs_test_features"]))
    expected = found["expected_simplecil_logits"]
    np.testing.assert_allclose(told / MODEL.logit_scale, expected, atol=1e-5)


@pytest.mark.parametrize("tasks", [2, 3])
def test_ease_completes_class_means(tasks: int) -> None:
    found = published("ease")
    classes, width = 2 * tasks, 6
    stage = jnp.repeat(jnp.arange(tasks), 2)
    there = jnp.arange(tasks)[:, None] <= stage
    means = np.zeros((tasks, classes, width), np.float32)
    for task in range(tasks):
        new = found[f"inputs_new_prototypes_task{task}"].reshape(2, task + 1, width)
        means[: task + 1, 2 * task : 2 * task + 2] = new.swapaxes(0, 1)
    full = ease.completed(jnp.asarray(means), there, stage)
    expected = found[f"expected_head_reset_task{tasks - 1}"]
    told = np.moveaxis(full, 0, 1).reshape(classes, -1)
    np.testing.assert_allclose(told, expected, atol=1e-5)
    if tasks < 3:
        return
    x = found["inputs_test_features"].reshape(6, tasks, width).swapaxes(0, 1)
    cosines = np.einsum("tbd,tcd->tbc", unit(x), unit(full))
    alpha, usable = float(found["constants_alpha"]), jnp.ones((6, tasks), bool)
    told = ease.reweighted(jnp.asarray(cosines), stage, usable, alpha)
    np.testing.assert_allclose(
        told, found["expected_logits_reweighted_reset"], atol=1e-5
    )


def test_s_prompts_answers_within_the_nearest_session() -> None:
    found = published("s_prompts")
    moved = jnp.asarray(found["weights_prompt_map"])

    def embed(frozen, modality, inputs, injection):
        added = injection.prompts.mean((1, 2)) @ moved
        return losses.unit_norm(inputs["features"] + added)

    model = MODEL._replace(
        embed=embed, logit_scale=float(found["constants_logit_scale_exp"])
    )
    options = s_prompts.Options(centres=5, distance="l1")
    method = s_prompts.make(model, options, COMMON)
    params, memory = method.init(KEY, Capacity(12, 3))
    shape = params["visual"]["prompts"].shape
    prompts = jnp.asarray(found["weights_prompts"]).reshape(shape)
    own = np.repeat(np.eye(3, dtype=bool), 4, axis=1)
    memory |= {
        "met": jnp.ones((3, 1), bool),
        "centres": jnp.stack([found[f"expected_centres_task{t}"] for t in range(3)]),
        "classes": jnp.asarray(own),
    }
    test = found["inputs_test_features"]
    rows = rows_of(unit(test)).replace(inputs={"features": jnp.asarray(test)})
    text = found["weights_class_texts"].reshape(12, 16)
    at = context(memory, 12, unit(text), "predict")
    params = {"visual": {"prompts": prompts}}
    told = by_hand.predict(method, model)(params, at, rows).logits
    session = found["expected_session"]
    np.testing.assert_array_equal(told.argmax(1) // 4, session)
    told = np.asarray(told)[own[session]].reshape(12, 4)
    np.testing.assert_allclose(told, found["expected_logits_within_session"], atol=1e-5)
    # without the switch, classes of another session win somewhere
    free = s_prompts.make(
        model, dataclasses.replace(options, within_stage=False), COMMON
    )
    told = by_hand.predict(free, model)(params, at, rows).logits
    assert (told.argmax(1) // 4 != session).any()


def test_s_prompts_finds_the_clusters() -> None:
    found = published("s_prompts")
    for task in range(3):
        z = unit(found[f"inputs_train_features_task{task}"])
        runs = [
            kmeans.fit(jax.random.key(i), jnp.asarray(z), jnp.ones(30, bool), 5)
            for i in range(3)
        ]
        inertia = [
            np.square(z[:, None] - np.asarray(c)[None]).sum(-1).min(1).sum()
            for c in runs
        ]
        expected = found[f"expected_inertia_task{task}"]
        np.testing.assert_allclose(min(inertia), expected, rtol=1e-3)


def test_diki_routes_and_weighs_as_published() -> None:
    found = published("diki_route")
    covariances = found["expected_covariances"].astype(float)
    factors = np.linalg.inv(np.linalg.cholesky(covariances))
    spread = np.log(np.diagonal(factors, axis1=1, axis2=2)).sum(-1)
    densities = gaussians.Densities(
        jnp.asarray(found["expected_means"]),
        jnp.asarray(factors, jnp.float32),
        jnp.asarray(spread - 8 * np.log(2 * np.pi), jnp.float32),
    )
    query = jnp.asarray(unit(found["inputs_features"]))
    density = gaussians.log_density(densities, query)
    np.testing.assert_allclose(density, found["expected_log_prob"], rtol=1e-3)
    stage, most = pool.most_likely(density, jnp.ones((8, 3), bool))
    np.testing.assert_array_equal(stage, found["expected_task_index"])
    weight = pool.residual_weight(most, 512)
    np.testing.assert_allclose(weight, found["expected_weight"], atol=1e-4)
    for task in range(3):
        z = jnp.asarray(unit(found[f"inputs_train_features_task{task}"]))
        stats = gaussians.update(
            gaussians.init(1, 1, 16), z, jnp.zeros(40, jnp.int32), jnp.ones(40), 0
        )
        np.testing.assert_allclose(
            stats.mean[0], found["expected_means"][task], atol=1e-6
        )
        covariance = gaussians.covariance(stats, 0.0) + 1e-7 * np.eye(16)
        np.testing.assert_allclose(covariance, covariances[task], atol=1e-6)


@pytest.mark.parametrize("kind", ["sample", "batchwise"])
def test_l2p_chooses_and_pulls(kind: str) -> None:
    found = published("l2p")
    query, every = jnp.asarray(found["inputs_query"]), jnp.ones((6, 7), bool)

    def pull(keys):
        scores = pool.cosines(query, keys)
        chosen = pool.top_k(scores, every, 3)
        if kind == "batchwise":
            chosen = pool.majority(chosen, jnp.ones(6), 7)
        return -pool.key_distance(scores, chosen, jnp.ones(6)), (scores, chosen)

    keys = jnp.asarray(found["weights_key"])
    (value, told), slope = jax.value_and_grad(pull, has_aux=True)(keys)
    np.testing.assert_allclose(told[0], found[f"expected_sim_{kind}"], atol=1e-6)
    np.testing.assert_array_equal(told[1], found[f"expected_prompt_idx_{kind}"])
    np.testing.assert_allclose(value, found[f"expected_reduce_sim_{kind}"], atol=1e-6)
    np.testing.assert_allclose(slope, found[f"expected_grad_key_{kind}"], atol=1e-6)


def test_l2p_starts_as_published() -> None:
    params, _ = l2p.make(MODEL, l2p.Options(), COMMON).init(KEY, Capacity(2, 1))
    for leaf in jax.tree.leaves(params):
        assert 0 <= leaf.min() < 0.001 < 0.009 < leaf.max() < 0.01


def test_coda_prompt_composes_and_is_held_orthogonal() -> None:
    found = published("coda_prompt")
    attention, keys, prompts = (
        jnp.asarray(found[f"weights_{name}_task2"])
        for name in ("attention", "keys", "prompts")
    )
    query = jnp.asarray(found["inputs_query"])
    layered = attention[:, None], keys[:, None]
    weights = pool.soft_attention(query, *layered, jnp.ones((6, 6), bool))[:, 0]
    told = np.einsum("bs,snd->bnd", weights, prompts)
    for name, part in (("keys", told[:, :2]), ("values", told[:, 2:])):
        expected = found[f"expected_prefix_{name}_task2"]
        np.testing.assert_allclose(part, expected, atol=1e-5)
    penalty = sum(
        coda_prompt.orthogonality_penalty(rows, jnp.ones(6, bool))
        for rows in (keys, attention, prompts.reshape(6, -1))
    )
    expected = found["expected_penalty_weighted_task2"]
    np.testing.assert_allclose(0.1 * penalty, expected, rtol=1e-5)


@pytest.mark.parametrize("task", range(3))
@pytest.mark.parametrize("name", ["keys", "attention", "prompts"])
def test_coda_prompt_starts_orthonormal(name: str, task: int) -> None:
    found = published("coda_prompt")
    # where old rows are orthonormal still; elsewhere the published sum is no projection
    fresh = "fresh_" if task else ""

    def rows_named(words: str) -> np.ndarray:
        return found[words.format(f"{name}_task{task}")]

    raw = rows_named(f"inputs_gram_schmidt_{fresh}raw_{{}}")
    old = rows_named("inputs_gram_schmidt_fresh_old_{}") if task else raw[:0]
    rows = jnp.asarray(np.concatenate([old, raw]))
    new = jnp.arange(len(rows)) >= len(old)
    told = coda_prompt.gram_schmidt(rows, ~new, new)[len(old) :]
    expected = rows_named(f"expected_gram_schmidt_{fresh}new_{{}}")
    np.testing.assert_allclose(told, expected, atol=1e-5)


@pytest.mark.parametrize("norm", [True, False])
def test_slca_aligns_by_the_published_loss(norm: bool) -> None:
    found = published("slca")
    x = np.concatenate([found[f"inputs_features_class{c}"] for c in range(4)])
    group = jnp.arange(4)
    stats = gaussians.update(
        gaussians.init(4, 4, 8),
        jnp.asarray(x),
        jnp.repeat(group, 20),
        jnp.ones(80),
        group,
    )
    covariances = gaussians.group_covariances(stats, 0.0, group) + 1e-4 * np.eye(8)
    np.testing.assert_allclose(stats.mean, found["expected_means"], atol=1e-6)
    np.testing.assert_allclose(covariances, found["expected_covariances"], atol=1e-6)
    drawn = found["inputs_pseudo_features"][0]
    logits = jnp.asarray(
        drawn @ found["weights_head_before"].T + found["weights_bias_before"]
    )
    if norm:
        known = context({}, 4, np.eye(4, 16)).classes
        mean = slca.mean_norm(logits, known, jnp.array([0, 0, 1, 1]))
        logits = logits / (mean * float(found["constants_logit_norm"]))
    label = jnp.asarray(found["inputs_pseudo_labels"][0], jnp.int32)
    value = losses.cross_entropy(logits, label, jnp.ones(256), jnp.ones(4, bool))
    expected = found[f"expected_losses_{'norm' if norm else 'plain'}"][0]
    np.testing.assert_allclose(value, expected, atol=1e-5)


@pytest.mark.parametrize("name", ["lwf", "zscl"])
def test_distillation(name: str) -> None:
    found = published(name)
    if name == "lwf":
        # its code leaves out the factor T^2, and the classes of the task
        teacher, student, scale = found["inputs_old_logits"], found["inputs_logits"], 4
        teacher = np.pad(teacher, ((0, 0), (0, 2)))
        allowed = jnp.arange(5) < 3
    else:
        teacher, student = (
            found[f"inputs_{who}_logits"] for who in ("teacher", "student")
        )
        scale, allowed = 1, jnp.ones(5, bool)
    teacher = jnp.asarray(teacher)

    def value(student):
        form = "cross_entropy"
        ones = jnp.ones(len(student))
        return losses.distillation(teacher, student, 2.0, allowed, ones, form) / scale

    told, slope = jax.value_and_grad(value)(jnp.asarray(student))
    np.testing.assert_allclose(told, found["expected_distillation"], rtol=1e-5)
    np.testing.assert_allclose(slope, found["expected_distillation_grad"], atol=1e-5)


def test_derpp_adds_both_terms() -> None:
    found = published("derpp")
    for step in (1, 2, 3):
        head = found[f"expected_head_step{step - 1}"].T
        bias = found[f"expected_bias_step{step - 1}"]

        def logits(x, head=head, bias=bias):
            return jnp.asarray(x @ head + bias)

        def error(x, y, logits=logits):
            label, every = jnp.asarray(y, jnp.int32), jnp.ones(5, bool)
            return losses.cross_entropy(logits(x), label, jnp.ones(len(x)), every)

        replayed = {
            name: found[f"inputs_replayed_{name}_step{step}"]
            for name in ("features_a", "logits_a", "features_b", "labels_b")
        }
        distance = derpp.logit_distance(
            logits(replayed["features_a"]),
            jnp.asarray(replayed["logits_a"]),
            jnp.ones(4),
        )
        told = (
            error(found["inputs_features"][step], found["inputs_labels"][step])
            + found["constants_alpha"] * distance
            + found["constants_beta"]
            * error(replayed["features_b"], replayed["labels_b"])
        )
        np.testing.assert_allclose(told, found[f"expected_loss_step{step}"], atol=1e-5)


def test_cmcl_projects_as_published() -> None:
    found = published("cmcl")
    moment, partner = (
        jnp.asarray(found[f"inputs_{name}"]) for name in ("moment", "moment_partner")
    )
    inputs = projection.span(moment, 0.1)
    outputs = projection.span(partner, 0.01)
    for told, name in (
        (inputs, "projector_threshold_0.1"),
        (projection.span(moment, 0.01), "projector_threshold_0.01"),
        (outputs, "partner_projector_threshold_0.01"),
    ):
        np.testing.assert_allclose(told, found[f"expected_{name}"], atol=1e-5)
    told = projection.outside(jnp.asarray(found["inputs_gradient"]), outputs, inputs)
    np.testing.assert_allclose(told, found["expected_gradient_projected"], atol=1e-5)


def test_zero_shot_by_class_texts() -> None:
    found = published("zero_shot")
    each = unit(found["inputs_template_embeddings"])
    text = unit(each.mean(1))
    np.testing.assert_allclose(text, found["expected_class_texts"], atol=1e-6)
    method = zero_shot.make(MODEL, None, COMMON)
    told = answers(method, {}, 4, text, unit(found["inputs_features"]))
    np.testing.assert_allclose(told, found["expected_logits"], atol=1e-4)
