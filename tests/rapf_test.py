"""RAPF by hand: fusion, separation of neighbours, draws, and the loss of a stage."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmcl_jax.methods.rapf import Options, drawn, fused, hinge
from mmcl_jax.methods.rapf import make as rapf
from mmcl_jax.ops.gaussians import Gaussians
from tests.tuned import GIVEN, SHARED, Stream, with_options
from tests.tuned import KEY as STREAM_KEY

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


def test_neighbours_are_kept_apart_by_a_margin() -> None:
    # the last class has the name of the first one, from which nothing tells it apart
    text = unit(np.array([[1, 0, 0], [0, 1, 0], [1, 0.3, 0], [1, 0, 0.4], [1, 0, 0]]))
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
        jnp.asarray(text, jnp.float32),
        jnp.asarray([False, False, True, True, True]),
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
    draw = jax.jit(drawn, static_argnums=(3, 4))
    found, label, weight = map(np.asarray, draw(KEY, stats, of, 20_000, 0.0))
    assert set(label) == {0, 2} and (weight == 1).all()
    assert abs((label == 0).mean() - 0.5) < 0.02
    for own in (0, 2):
        mine = found[label == own]
        spread = np.sqrt(np.diag(scatter[own]) / 39)
        assert (abs(mine.mean(0) - mean[own]) < 0.05 * spread).all()
        np.testing.assert_allclose(
            np.cov(mine.T), scatter[own] / 39, atol=0.05 * spread.max() ** 2
        )
    # more class slots draw the same
    wider = jax.tree.map(lambda v: jnp.concatenate([v, jnp.zeros_like(v)]), stats)
    again = draw(KEY, wider, jnp.concatenate([of, of & False]), 20_000, 0.0)
    for one, other in zip((found, label, weight), again, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
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


@pytest.mark.full("methods")
def test_draws_have_their_share_and_only_neighbours_are_separated(encoder) -> None:
    plain = Stream(encoder, with_options(rapf, Options(draws=0.0)), GIVEN)
    text = np.asarray(plain.context(AGAIN).classes.text)
    apart = np.linalg.norm(text[OLD][:, None] - text[NEW], axis=2)
    # that one old class alone is nearer to a new one
    threshold = float(np.sort(apart.min(1)).mean())
    near = OLD[int(apart.min(1).argmin())]
    options = Options(draws=2.0, threshold=threshold)
    stream = Stream(encoder, with_options(rapf, options), GIVEN)
    stream.learn([IMAGE], by=-1.0)
    stream.begin(AGAIN)
    assert np.flatnonzero(stream.memory["neighbours"][:4]).tolist() == [near]
    (_, metrics), _ = stream.gradient(AGAIN)
    batch, stats = stream.batch(AGAIN), stream.memory["features"]
    mapped, among = np.asarray(stream.params["map"])[0], [*OLD, *NEW]

    def logits(x) -> np.ndarray:
        return 10 * unit(np.asarray(x) @ mapped) @ text[among].T

    number, slots = 2 * len(batch.label), jnp.arange(len(text))
    near_key, key = jax.random.split(STREAM_KEY)
    x, label, _ = drawn(key, stats, slots < 2, number, 0.0)
    own = cross_entropy(logits(batch.query), np.asarray(batch.label) - NEW[0] + 2)
    others = cross_entropy(logits(x), np.asarray(label))
    expected = own / 3 + others * 2 / 3
    assert float(metrics["cross_entropy"]) == pytest.approx(expected, abs=1e-3)
    x, label, weight = drawn(near_key, stats, slots == near, number, 0.0)
    new = jnp.isin(slots, jnp.asarray(NEW))
    z = jnp.asarray(unit(np.asarray(x) @ mapped))
    separation = hinge(z, label, weight, jnp.asarray(text), new, threshold)
    assert float(metrics["separation"]) == pytest.approx(float(separation), abs=1e-4)
    assert float(separation) > 0


@pytest.mark.full("methods")
def test_a_map_is_fused_where_classes_return(encoder) -> None:
    stream = Stream(encoder, with_options(rapf, Options()), GIVEN)
    stream.learn([IMAGE], by=0.1)
    before = np.asarray(stream.params["map"])
    stream.begin(IMAGE)
    stream.move(0.1)
    after = np.asarray(stream.params["map"])
    stream.end(IMAGE)
    expected = fused(jnp.asarray(before[0]), jnp.asarray(after[0]), 0.6)
    np.testing.assert_allclose(stream.params["map"][0], expected, atol=1e-4)
