"""RAPF by hand: fusion, separation of neighbours, draws, and the loss of a stage."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmcl_jax.methods.rapf import Options, drawn, fused, hinge
from mmcl_jax.methods.rapf import make as rapf
from mmcl_jax.ops.gaussians import Gaussians
from mmcl_jax.types import Classes
from tests.tuned import GIVEN, SHARED, Stream, with_options

IMAGE, DEPTH, AGAIN = 0, 1, 4
OLD, NEW = [0, 1], [8, 9]  # classes of pictures
KEY = jax.random.key(1)
RNG = np.random.default_rng(2)


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def test_maps_are_fused_in_the_basis_of_the_one_before() -> None:
    before, after = RNG.normal(size=(2, 5, 5))
    # maps of columns, as the published code has them
    u, s, v = np.linalg.svd(before.T)
    old, new = np.diag(s) @ v, u.T @ after.T
    moved = abs(new - old)
    share = np.minimum(moved / moved.max() + 0.6, 1)
    expected = (u @ (share * new + (1 - share) * old)).T
    given = jnp.asarray(before, jnp.float32), jnp.asarray(after, jnp.float32)
    np.testing.assert_allclose(fused(*given, 0.6), expected, atol=1e-4)
    np.testing.assert_allclose(fused(*given, 1.0), after, atol=1e-4)
    np.testing.assert_allclose(fused(given[0], given[0], 0.1), before, atol=1e-4)
    whole = np.asarray(fused(*given, 0.0))
    assert np.linalg.norm(whole - before) < np.linalg.norm(after - before)


def classes_of(text: np.ndarray, new: list[int]) -> Classes:
    number = len(text)
    return Classes(
        jnp.asarray(text, jnp.float32),
        jnp.ones(number, bool),
        jnp.isin(jnp.arange(number), jnp.asarray(new)),
        jnp.zeros(number, jnp.int32),
    )


def test_neighbours_are_kept_apart_by_a_margin() -> None:
    text = unit(np.array([[1, 0, 0], [0, 1, 0], [1, 0.3, 0], [1, 0, 0.4]]))
    z = unit(RNG.normal(size=(3, 3)))
    label, weight = np.array([0, 1, 0]), np.array([1, 1, 0])
    pairs = {
        (i, j)
        for i in (0, 1)
        for j in (2, 3)
        if np.linalg.norm(text[i] - text[j]) < 0.55
    }
    assert pairs == {(0, 2), (0, 3)}
    terms = [max(0, 0.1 - z[0] @ text[0] + z[0] @ text[j]) for j in (2, 3)]
    found = hinge(
        jnp.asarray(z, jnp.float32),
        jnp.asarray(label, jnp.int32),
        jnp.asarray(weight, jnp.float32),
        classes_of(text, [2, 3]),
        0.55,
    )
    assert float(found) == pytest.approx(np.mean(terms), abs=1e-6)


def test_draws_have_the_moments_of_their_classes() -> None:
    x = RNG.normal(size=(3, 40, 4)) @ RNG.normal(size=(4, 4))
    mean = x.mean(1)
    scatter = np.einsum("cni,cnj->cij", x - mean[:, None], x - mean[:, None])
    stats = Gaussians(
        *(jnp.asarray(v, jnp.float32) for v in (np.full(3, 40), mean, scatter))
    )
    of = jnp.asarray([True, False, True])
    found, label, weight = map(np.asarray, drawn(KEY, stats, of, 20_000, 0.0))
    assert set(label) == {0, 2} and (weight == 1).all()
    assert abs((label == 0).mean() - 0.5) < 0.02
    for own in (0, 2):
        mine = found[label == own]
        spread = np.sqrt(np.diag(scatter[own]) / 39)
        assert (abs(mine.mean(0) - mean[own]) < 0.05 * spread).all()
        np.testing.assert_allclose(
            np.cov(mine.T), scatter[own] / 39, atol=0.05 * spread.max() ** 2
        )
    nothing = jnp.zeros(3, bool)
    assert not np.any(drawn(KEY, stats, nothing, 4, 0.0)[2])


def cross_entropy(logits: np.ndarray, label: np.ndarray) -> float:
    shifted = logits - logits.max(1, keepdims=True)
    probability = np.exp(shifted) / np.exp(shifted).sum(1, keepdims=True)
    return float(-np.log(probability[np.arange(len(label)), label]).mean())


@pytest.mark.full("methods")
def test_a_stage_is_over_all_classes_of_its_head(encoder) -> None:
    build = with_options(rapf, Options(draws=0.0, threshold=0.0))
    stream = Stream(encoder, build, GIVEN)
    stream.learn([IMAGE, DEPTH])
    stream.begin(AGAIN)
    batch, text = stream.batch(AGAIN), np.asarray(stream.context(AGAIN).classes.text)
    mapped = np.asarray(stream.params["map"])[0]
    z = unit(np.asarray(batch.query) @ mapped)
    (value, metrics), gradient = stream.gradient(AGAIN)
    among = [*OLD, *NEW]
    label = np.asarray(batch.label) - NEW[0] + 2
    expected = cross_entropy(10 * z @ text[among].T, label)
    assert float(value) == pytest.approx(expected, abs=1e-4)
    assert float(metrics["separation"]) == 0
    moved = np.abs(gradient["map"]).max((1, 2)) > 0
    assert moved.tolist() == [True, False, False, False]
    told = np.asarray(stream.logits(AGAIN, "predict"))
    np.testing.assert_allclose(told[:, among], 10 * z @ text[among].T, atol=1e-3)


@pytest.mark.full("methods")
@pytest.mark.parametrize("sharing", [GIVEN, SHARED])
def test_old_classes_are_drawn_and_the_map_is_fused(encoder, sharing: str) -> None:
    # every text is a neighbour
    build = with_options(rapf, Options(draws=2.0, threshold=2.0))
    stream = Stream(encoder, build, sharing)
    stream.begin(IMAGE)
    (_, first), _ = stream.gradient(IMAGE)
    assert float(first["separation"]) == 0
    stream.move(0.1)
    moved = np.asarray(stream.params["map"])
    stream.end(IMAGE)
    # there was nothing to fuse with
    np.testing.assert_array_equal(stream.params["map"], moved)
    stream.begin(AGAIN)
    (_, second), _ = stream.gradient(AGAIN)
    assert float(second["separation"]) > 0
    before = np.asarray(stream.params["map"])
    stream.move(0.1)
    after = np.asarray(stream.params["map"])
    stream.end(AGAIN)
    found = np.asarray(stream.params["map"])
    expected = fused(jnp.asarray(before[0]), jnp.asarray(after[0]), 0.6)
    np.testing.assert_allclose(found[0], expected, atol=1e-4)
    np.testing.assert_array_equal(found[1:], after[1:])
