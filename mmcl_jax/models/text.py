"""A tower that reads sentences."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mmcl_jax.models.injection import Injection
from mmcl_jax.models.layers import layer_norm
from mmcl_jax.models.specs import TextSpec
from mmcl_jax.models.tower import init_blocks, init_norm, trunk
from mmcl_jax.ops.losses import unit_norm
from mmcl_jax.types import Key, PyTree


def embed(
    spec: TextSpec,
    weights: PyTree,
    ids: Int[Array, "b n"],
    injection: Injection | None = None,
    context: Float[Array, "b p w"] | None = None,
) -> Float[Array, "b d"]:
    """Returns the unit embedding at each sentence's pooled token.

    Args:
        spec: Shape of the tower.
        weights: Weights of the tower.
        ids: Token ids of each sentence.
        injection: What an adapter adds, or None.
        context: Offsets added to the embeddings of the first `p` words, after the start
            token if there is one; or None.
    """
    x = tokens(weights, ids)
    length, first = x.shape[1], spec.native_first
    if context is not None:
        words = slice(first, first + context.shape[1])
        x = x.at[:, words].add(context.astype(x.dtype))
    x = trunk(spec.trunk, weights["blocks"], x, injection, spec.causal, first)
    # prompts, inserted before the pooled token, shift its position
    end = _pooled_position(spec, ids) + (x.shape[1] - length)
    x = jnp.take_along_axis(x, end[:, None, None], axis=1)[:, 0]
    x = layer_norm(x, weights["final_norm"], spec.trunk.norm_epsilon)
    x = x.astype(jnp.float32) @ weights["projection"]
    if spec.projection_bias:
        x = x + weights["projection_bias"]
    return unit_norm(x)


def tokens(weights: PyTree, ids: Int[Array, "b n"]) -> Float[Array, "b n width"]:
    """Returns the tokens that enter the blocks."""
    return weights["tokens"][ids] + weights["positions"][: ids.shape[1]]


def words(spec: TextSpec, ids: Int[Array, "b n"]) -> Bool[Array, "b n"]:
    """Returns a mask of the sentence, without its start token and padding."""
    place = jnp.arange(ids.shape[1])[None, :]
    end = _pooled_position(spec, ids)
    if spec.pool == "last":
        # the pooled position may be padding, so the end is looked for
        is_end = ids == spec.end_token
        end = jnp.where(is_end.any(1), jnp.argmax(is_end, axis=1), end)
    return (place >= spec.native_first) & (place <= end[:, None])


def _pooled_position(spec: TextSpec, ids: Int[Array, "b n"]) -> Int[Array, " b"]:
    if spec.pool == "end":
        return jnp.argmax(ids == spec.end_token, axis=1)
    if spec.pool == "argmax":
        return jnp.argmax(ids, axis=1)
    return jnp.full(len(ids), ids.shape[1] - 1)


def init(key: Key, spec: TextSpec, embedding: int) -> PyTree:
    """Returns random weights."""
    keys = jax.random.split(key, 4)
    width, normal = spec.trunk.width, jax.random.normal
    weights = {
        "tokens": 0.02 * normal(keys[0], (spec.vocabulary, width)),
        "positions": 0.01 * normal(keys[1], (spec.context_length, width)),
        "blocks": init_blocks(keys[2], spec.trunk),
        "final_norm": init_norm((width,)),
        "projection": width**-0.5 * normal(keys[3], (width, embedding)),
    }
    if spec.projection_bias:
        weights["projection_bias"] = jnp.zeros(embedding)
    return weights
