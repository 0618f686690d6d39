"""Layers: gradients are those of the plain formulas, and little is stored for them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmcl_jax.models import layers


def plain_attention(q, k, v, mask):
    scores = jnp.einsum("bnhk,bmhk->bhnm", q, k) * q.shape[-1] ** -0.5
    if mask is not None:
        scores = jnp.where(mask, scores, jnp.finfo(scores.dtype).min)
    return jnp.einsum("bhnm,bmhk->bnhk", jax.nn.softmax(scores, -1), v)


def plain_norm(x, norm, epsilon):
    normal = (x - x.mean(-1, keepdims=True)) / jnp.sqrt(
        x.var(-1, keepdims=True) + epsilon
    )
    return normal * norm["scale"] + norm["bias"]


PLAIN = {
    "quick_gelu": lambda x: x / (1 + jnp.exp(-1.702 * x)),
    "gelu": lambda x: x * jax.scipy.stats.norm.cdf(x),
    "gelu_tanh": lambda x: (
        x / 2 * (1 + jnp.tanh((2 / jnp.pi) ** 0.5 * (x + 0.044715 * x**3)))
    ),
}


def normal(*shape: int, seed: int = 0) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def attended(keys: int = 7) -> tuple[jax.Array, ...]:
    """Queries, keys and values of three rows, two heads."""
    counts = (5, keys, keys)
    return tuple(normal(3, n, 2, 4, seed=i) for i, n in enumerate(counts))


def causal(queries: int, keys: int) -> jax.Array:
    return jnp.tril(jnp.ones((queries, keys), bool), keys - queries)


def weighed(function, *arguments):
    """Returns the gradient of a weighed sum of what a function of arrays returns."""
    weights = normal(*jax.eval_shape(function, *arguments).shape, seed=9)

    def total(*arguments):
        return (weights * function(*arguments)).sum()

    return jax.jit(jax.grad(total, argnums=tuple(range(len(arguments)))))(*arguments)


def assert_close(ours, plain, tolerance: float = 1e-6) -> None:
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(plain), strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * abs(b).max())
        assert abs(b).max() > 1e-3


@pytest.mark.parametrize("masked", [False, True])
def test_attention(masked: bool):
    arrays, mask = attended(), causal(5, 7) if masked else None
    ours, plain = (
        weighed(lambda q, k, v: function(q, k, v, mask), *arrays)  # noqa: B023
        for function in (layers.attend, plain_attention)
    )
    assert_close(ours, plain)


def test_attention_in_half_precision_is_near_that_in_float32():
    halves = [x.astype(jnp.bfloat16) for x in attended()]
    found = weighed(lambda *x: layers.attend(*x, None).astype(jnp.float32), *halves)
    wanted = weighed(lambda *x: plain_attention(*x, None), *attended())
    assert all(x.dtype == jnp.bfloat16 for x in found)
    assert_close([x.astype(jnp.float32) for x in found], wanted, 0.05)


@pytest.mark.parametrize("name", layers.ACTIVATIONS)
def test_activations(name: str):
    x = 3 * normal(4, 50)
    ours, plain = layers.ACTIVATIONS[name], PLAIN[name]
    np.testing.assert_allclose(ours(x), plain(x), atol=1e-6)
    assert_close(weighed(ours, x), weighed(plain, x))


def test_layer_norm():
    arrays = normal(3, 5, 16), normal(16, seed=1), normal(16, seed=2)
    ours, plain = (
        weighed(lambda x, s, b: norm(x, {"scale": s, "bias": b}, 1e-5), *arrays)  # noqa: B023
        for norm in (layers.layer_norm, plain_norm)
    )
    assert_close(ours, plain)


def stored(function, *arguments) -> int:
    """Returns how many numbers the backward pass finds stored."""
    _, backward = jax.vjp(function, *arguments)
    return sum(kept.size for kept in jax.tree.leaves(backward))


@pytest.mark.parametrize("name", layers.ACTIVATIONS)
def test_an_activation_stores_what_it_was_given(name: str):
    assert stored(layers.ACTIVATIONS[name], normal(4, 50)) == 4 * 50


def test_a_layer_norm_stores_what_it_was_given():
    norm = {"scale": normal(16), "bias": normal(16)}
    kept = stored(lambda x: layers.layer_norm(x, norm, 1e-5), normal(3, 5, 16))
    assert kept <= 3 * 5 * 16 + 2 * 16


def test_attention_stores_its_probabilities_and_what_it_was_given():
    arrays = attended()
    kept = stored(lambda *x: layers.attend(*x, None), *arrays)
    assert kept == sum(x.size for x in arrays) + 3 * 2 * 5 * 7
