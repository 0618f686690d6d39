"""Methods against answers that the authors' own functions gave for the same inputs.

`fixtures/published` has inputs of each method (`inputs_*`), parameters before the call
(`weights_*`), constants and answers (`expected_*`), all of them random numbers or what
became of them. Heads are stored by rows, `y = x W^T`.
"""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmcl_jax.methods import fecam, rail, slda
from mmcl_jax.methods.base import Common, Features, Method
from mmcl_jax.models import adapters
from mmcl_jax.models.model import Model
from mmcl_jax.models.specs import TowerSpec, clip
from mmcl_jax.ops import gaussians, least_squares
from mmcl_jax.types import Batch, Capacity, Classes, Context

KEY = jax.random.key(0)
TOWER = TowerSpec(16, 2, 2, 32, "gelu", 1e-5)
COMMON = Common(adapters.shallow_prompts(2), "shared", "task")
MODEL = Model(
    spec=clip(TOWER, TOWER, 16, 16, 8, 99, 9, 98),
    modalities=("image",),
    logit_scale=100.0,
    input_shapes=({},),
    embed=lambda frozen, modality, inputs, injection: inputs["features"],
    layer_features=lambda frozen, modality, inputs: inputs["features"],
)


def published(name: str) -> dict[str, np.ndarray]:
    """Returns the arrays of a method."""
    path = pathlib.Path(__file__).parent / "fixtures" / "published" / f"{name}.npz"
    with np.load(path) as arrays:
        return dict(arrays)


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def rows_of(query, label=None) -> Batch:
    number = len(query)
    label = np.zeros(number) if label is None else label
    return Batch(
        inputs={},
        query=jnp.asarray(query, jnp.float32),
        label=jnp.asarray(label, jnp.int32),
        weight=jnp.ones(number),
        id=jnp.arange(number),
        hint=jnp.zeros(number, jnp.int32),
        modality="image",
    )


def context(memory, seen: int, text, phase: str = "prepare") -> Context:
    slots = jnp.arange(len(text))
    classes = Classes(
        jnp.asarray(text, jnp.float32), slots < seen, slots < seen, 0 * slots
    )
    return Context(None, memory, jnp.asarray(0), classes, phase)


def taught(method: Method, memory, seen: int, text, query, label, size: int):
    """Returns the memory after a task of batches of some size, in order."""
    for start in range(0, len(query), size):
        part = slice(start, start + size)
        at = context(memory, seen, text)
        memory = method.prepare({}, at, rows_of(query[part], label[part]), KEY)
    return method.end_task({}, context(memory, seen, text, "end"), KEY)[1]


def answers(method: Method, memory, seen: int, text, query) -> np.ndarray:
    at = context(memory, seen, text, "predict")
    return np.asarray(method.predict({}, at, rows_of(query), Features()).logits)


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


@pytest.mark.parametrize("size", [1, 7, 60])
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
        stats = memory["features"]
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
        memory["features"].mean, found["expected_vit_means"], atol=1e-6
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
