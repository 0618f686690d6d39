"""A reservoir keeps each sample of a stream with the same probability."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from mmcl_jax.ops import reservoir

SLOTS, SAMPLES = 5, 20
LABEL = {"label": jax.ShapeDtypeStruct((), jnp.int32)}


def fill(key, sizes=(8, 5, 7)):
    """Offers samples 0, 1, ... in batches of given sizes, as a stream does."""
    kept, start = reservoir.init(SLOTS, LABEL), 0
    for i, size in enumerate(sizes):
        ids = jnp.arange(start, start + size)
        kept = reservoir.add(
            kept, {"label": ids}, jnp.ones(size), ids, jax.random.fold_in(key, i)
        )
        start += size
    return kept


def test_every_sample_is_kept_with_equal_probability():
    trials = 4000
    keys = jax.random.split(jax.random.key(0), trials)
    kept = np.asarray(jax.jit(jax.vmap(fill))(keys).rows["label"])
    assert all(len(set(row)) == SLOTS for row in kept)
    observed = np.bincount(kept.ravel(), minlength=SAMPLES)
    expected = trials * SLOTS / SAMPLES
    # counts of a draw without replacement vary less than independent ones
    spread = np.sum((observed - expected) ** 2 / (expected * (1 - SLOTS / SAMPLES)))
    chi_square = spread * (SAMPLES - 1) / SAMPLES
    low, high = stats.chi2.ppf([1e-3, 1 - 1e-3], SAMPLES - 1)
    assert low < chi_square < high


def test_all_are_kept_while_there_is_room():
    kept = fill(jax.random.key(0), (2, 2))
    assert sorted(np.asarray(kept.rows["label"])[np.asarray(kept.priority) >= 0]) == [
        *range(4)
    ]
    assert (kept.priority >= 0).sum() == 4


def test_a_place_in_the_batch_does_not_matter_and_padding_is_not_there():
    key, ids = jax.random.key(1), jnp.arange(9)
    plain = reservoir.init(SLOTS, LABEL)
    plain = reservoir.add(plain, {"label": ids}, jnp.ones(9), ids, key)
    order = np.random.default_rng(0).permutation(12)
    padded = jnp.concatenate([ids, jnp.full(3, -1)])[order]
    weight = jnp.concatenate([jnp.ones(9), jnp.zeros(3)])[order]
    other = reservoir.init(SLOTS, LABEL)
    other = reservoir.add(other, {"label": padded}, weight, padded, key)
    np.testing.assert_array_equal(plain.rows["label"], other.rows["label"])
    np.testing.assert_array_equal(plain.priority, other.priority)


@pytest.mark.parametrize("stored", [0, 2, 5])
def test_draws_are_without_replacement_and_weigh_what_is_there(stored: int):
    kept = fill(jax.random.key(2), (stored,) if stored else ())
    rows, weight = reservoir.draw(kept, jax.random.key(3), 4)
    assert weight.sum() == min(stored, 4)
    drawn = np.asarray(rows["label"])[np.asarray(weight) > 0]
    assert len(set(drawn)) == len(drawn)


def test_draws_are_even():
    kept = fill(jax.random.key(2), (5,))
    keys = jax.random.split(jax.random.key(0), 2000)
    rows, _ = jax.vmap(lambda key: reservoir.draw(kept, key, 2))(keys)
    observed = np.bincount(np.asarray(rows["label"]).ravel(), minlength=5)
    np.testing.assert_allclose(observed, 800, rtol=0.1)


def test_rows_take_on_the_dtypes_of_the_slots():
    half = {"x": jax.ShapeDtypeStruct((3,), jnp.float16)}
    kept = reservoir.add(
        reservoir.init(2, half),
        {"x": jnp.ones((1, 3))},
        jnp.ones(1),
        jnp.arange(1),
        jax.random.key(0),
    )
    assert kept.rows["x"].dtype == jnp.float16
    assert reservoir.row_bytes(half) == 3 * 2 + 4
