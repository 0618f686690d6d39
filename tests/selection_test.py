"""What a sample takes of a pool, by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmcl_jax.methods import pool
from mmcl_jax.ops import kmeans

KEYS = jnp.array([[3.0, 0.0], [0.0, 2.0], [1.0, 1.0], [-1.0, 0.0]])
QUERY = jnp.array([[1.0, 0.0]])


def test_top_k_by_hand() -> None:
    scores = pool.cosines(QUERY, KEYS)
    np.testing.assert_allclose(scores, [[1, 0, 0.707107, -1]], atol=1e-6)
    every = jnp.ones((1, 4), bool)
    chosen = pool.top_k(scores, every, 2)
    assert chosen.tolist() == [[0, 2]]
    pull = pool.key_distance(scores, chosen, jnp.ones(1))
    np.testing.assert_allclose(pull, -1.707107, atol=1e-6)


@pytest.mark.parametrize(("of_query", "of_keys"), [(7.0, 1.0), (1.0, 0.01)])
def test_lengths_change_nothing(of_query: float, of_keys: float) -> None:
    scaled = pool.cosines(of_query * QUERY, of_keys * KEYS)
    np.testing.assert_allclose(scaled, pool.cosines(QUERY, KEYS), atol=1e-6)


def test_what_is_not_visible_is_not_chosen() -> None:
    scores = pool.cosines(QUERY, KEYS)
    visible = jnp.array([[False, True, False, True]])
    assert pool.top_k(scores, visible, 2).tolist() == [[1, 3]]
    assert pool.top_k(scores, ~visible & False, 2).tolist() == [[0, 1]]


def test_a_vote_overrules_a_sample() -> None:
    chosen = jnp.array([[0], [1], [1]])
    assert pool.majority(chosen, jnp.ones(3), 2).tolist() == [[1], [1], [1]]
    # padding has no vote
    weight = jnp.array([1.0, 0.0, 0.0])
    assert pool.majority(chosen, weight, 2).tolist() == [[0], [0], [0]]


def test_rows_of_no_weight_pull_no_key() -> None:
    scores, chosen = jnp.array([[0.5], [-0.25]]), jnp.zeros((2, 1), int)
    pull = pool.key_distance(scores, chosen, jnp.array([1.0, 0.0]))
    assert pull == -0.5


def _attention(query, vectors, keys, visible=True):
    """One layer's weights, for lists."""
    layered = (jnp.array(x, jnp.float32)[:, None, :] for x in (vectors, keys))
    query = jnp.array([query], jnp.float32)
    mask = jnp.broadcast_to(jnp.asarray(visible), (1, len(keys)))
    return pool.soft_attention(query, *layered, mask)[0, 0]


def test_soft_attention_by_hand() -> None:
    vectors, keys = [[1, 1], [1, 0]], [[1, 0], [0, 1]]
    weights = _attention([3, 4], vectors, keys)
    np.testing.assert_allclose(weights, [0.6, 0.0], atol=1e-6)
    hidden = _attention([3, 4], vectors, keys, [False, True])
    np.testing.assert_array_equal(hidden, [0.0, 0.0])


def test_soft_attention_is_the_cosine_of_each_layer() -> None:
    rng = np.random.default_rng(0)
    query = rng.normal(size=(3, 5))
    vectors, keys = rng.normal(size=(2, 4, 2, 5))
    got = pool.soft_attention(
        *(jnp.asarray(x, jnp.float32) for x in (query, vectors, keys)),
        jnp.ones((3, 4), bool),
    )
    for b, layer, s in np.ndindex(3, 2, 4):
        x, k = query[b] * vectors[s, layer], keys[s, layer]
        expected = x @ k / np.linalg.norm(x) / np.linalg.norm(k)
        np.testing.assert_allclose(got[b, layer, s], expected, atol=1e-6)


def test_soft_attention_of_nothing_has_a_finite_gradient() -> None:
    gradient = jax.grad(lambda x: _attention([0, 0], x, [[1, 0]]).sum())
    assert np.isfinite(gradient(jnp.ones((1, 2)))).all()


def test_distances_differ_by_their_order() -> None:
    # (1.5, 0) and (0.9, 0.9): 1.5 and 1.27 away, 1.5 and 1.8 in absolute differences
    centres = jnp.array([[[1.5, 0.0]], [[0.9, 0.9]]])
    query, every = jnp.zeros((1, 2)), jnp.ones((1, 2), bool)
    assert pool.nearest(query, centres, every, 2).tolist() == [1]
    assert pool.nearest(query, centres, every, 1).tolist() == [0]
    only = jnp.array([[True, False]])
    assert pool.nearest(query, centres, only, 2).tolist() == [0]


def test_any_centre_of_a_slot_counts() -> None:
    centres = jnp.array([[[2.0], [8.0]], [[4.0], [5.0]]])
    query = jnp.array([[0.0], [4.4], [7.0]])
    every = jnp.ones((3, 2), bool)
    assert pool.nearest(query, centres, every).tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    ("density", "weight"),
    [(0, 0.268941), (512, 0.5), (1024, 0.731059), (1536, 0.880797)],
)
def test_residual_weight_by_hand(density: float, weight: float) -> None:
    got = pool.residual_weight(jnp.array([density], jnp.float32), 512)
    np.testing.assert_allclose(got, [weight], atol=1e-6)


def test_what_resembles_nothing_has_no_weight() -> None:
    densities = jnp.array([[3.0, 9.0, 5.0]] * 2)
    visible = jnp.array([[True, False, True], [False, False, False]])
    slot, density = pool.most_likely(densities, visible)
    assert slot.tolist() == [2, 0]
    assert density[0] == 5
    assert pool.residual_weight(density, 16)[1] == 0


def _blobs(number: int) -> np.ndarray:
    rng, corners = np.random.default_rng(1), [[0, 0], [9, 0], [0, 9]]
    return np.concatenate([rng.normal(c, 0.3, size=(number, 2)) for c in corners])


@pytest.mark.parametrize("seed", range(4))
def test_centres_of_separate_blobs_are_their_means(seed: int) -> None:
    rows = _blobs(20)
    padded = np.concatenate([rows, np.full((15, 2), 99.0)])
    used = np.arange(len(padded)) < len(rows)
    found = kmeans.fit(
        jax.random.key(seed), jnp.asarray(padded, jnp.float32), jnp.asarray(used), 3
    )
    means = rows.reshape(3, 20, 2).mean(1)
    for mean in means:
        assert np.linalg.norm(found - mean, axis=1).min() < 1e-4


@pytest.mark.parametrize("number", [0, 1, 2])
def test_fewer_rows_than_centres(number: int) -> None:
    rows = jnp.array([[1.0, 2.0], [3.0, 4.0], [7.0, 7.0]])
    centres = kmeans.fit(jax.random.key(0), rows, jnp.arange(3) < number, 3)
    expected = [[0.0, 0.0], [1.0, 2.0], [3.0, 4.0]]
    allowed = expected[:1] if number == 0 else expected[1 : 1 + number]
    assert {tuple(c) for c in centres.tolist()} == {tuple(c) for c in allowed}
