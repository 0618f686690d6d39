"""A tower that reads sentences."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mmcl_jax.models.initial_weights import init_blocks, init_norm
from mmcl_jax.models.injection import Injection, prompt_length
from mmcl_jax.models.layer_features import layer_features, token_means
from mmcl_jax.models.layers import layer_norm
from mmcl_jax.models.specs import TextSpec
from mmcl_jax.models.tower import (
    Entered,
    adapted_blocks,
    no_summary,
    plain_blocks,
)
from mmcl_jax.ops.losses import unit_norm
from mmcl_jax.types import DrawNormal, Key, PyTree


def embed(
    spec: TextSpec,
    weights: PyTree,
    ids: Int[Array, "b n"],
    injection: Injection | None = None,
    context: Float[Array, "b p w"] | None = None,
) -> Float[Array, "b d"]:
    """Returns unit embeddings of sentences: of the pooled token, or the mean of all.

    Args:
        spec: Shape of the tower.
        weights: Weights of the tower.
        ids: Token ids of each sentence.
        injection: What an adapter adds, or None.
        context: Offsets added to the embeddings of the first `p` words, after the start
            token if there is one; or None.
    """
    return embed_layers(spec, weights, ids, injection, blocks=0, context=context)[0]


def embed_layers(
    spec: TextSpec,
    weights: PyTree,
    ids: Int[Array, "b n"],
    injection: Injection | None,
    blocks: int,
    context: Float[Array, "b p w"] | None = None,
) -> tuple[Float[Array, "b d"], Float[Array, "b features"]]:
    """Returns `embed`, and the layer features of the same pass.

    These are the means of the tokens of a block, see `encoder.embed_layers`, without
    prompts, the start token and everything after the end.
    """
    entered = enter(spec, weights, ids, context)
    return leave(spec, weights, ids, entered, injection, blocks)


def enter(
    spec: TextSpec,
    weights: PyTree,
    ids: Int[Array, "b n"],
    context: Float[Array, "b p w"] | None = None,
) -> Entered:
    """Returns what enters the first block that adapters act in; see `embed`."""
    x = tokens(spec, weights, ids, context)
    means_of, blocks = token_means(spec.trunk, words(spec, ids)), weights["blocks"]
    return Entered(*plain_blocks(spec.trunk, blocks, x, mask(spec, ids), means_of))


def leave(
    spec: TextSpec,
    weights: PyTree,
    ids: Int[Array, "b n"],
    entered: Entered,
    injection: Injection | None,
    blocks: int,
) -> tuple[Float[Array, "b d"], Float[Array, "b features"]]:
    """Returns `embed_layers` from what enters the first block with an adapter."""
    first, prompts = spec.native_first, prompt_length(injection)
    counted = words(spec, ids)
    none = jnp.zeros((ids.shape[0], prompts), bool)
    counted = jnp.concatenate([counted[:, :first], none, counted[:, first:]], axis=1)
    x, means = adapted_blocks(
        spec.trunk,
        weights["blocks"],
        entered.tokens,
        injection,
        mask(spec, ids, prompts),
        first,
        token_means(spec.trunk, counted) if blocks else no_summary,
    )
    layers = jnp.zeros((ids.shape[0], 0))
    if blocks:
        layers = layer_features(spec.trunk, entered.means, means, blocks)
    end = _last_position(spec, ids)
    if spec.pool == "mean":
        native = jnp.concatenate([x[:, :first], x[:, first + prompts :]], axis=1)
        read = (jnp.arange(ids.shape[1]) <= end[:, None])[:, :, None]
        x = jnp.mean(native.astype(jnp.float32), 1, where=read)
    else:
        # prompts, inserted before the pooled token, shift its position
        x = jnp.take_along_axis(x, (end + prompts)[:, None, None], axis=1)[:, 0]
    if not spec.trunk.post_norm:
        x = layer_norm(x, weights["final_norm"], spec.trunk.norm_epsilon)
    x = x.astype(jnp.float32) @ weights["projection"]
    if spec.projection_bias:
        x = x + weights["projection_bias"]
    return unit_norm(x), layers


def tokens(
    spec: TextSpec,
    weights: PyTree,
    ids: Int[Array, "b n"],
    context: Float[Array, "b p w"] | None = None,
) -> Float[Array, "b n width"]:
    """Returns the tokens that enter the blocks; see `embed`."""
    x = weights["tokens"][ids] + weights["positions"][: ids.shape[1]]
    if context is not None:
        first = spec.native_first
        x = x.at[:, first : first + context.shape[1]].add(context.astype(x.dtype))
    if spec.trunk.post_norm:
        x = layer_norm(x, weights["first_norm"], spec.trunk.norm_epsilon)
    return x


def mask(
    spec: TextSpec, ids: Int[Array, "b n"], prompts: int = 0
) -> Bool[Array, "*rows n_out"] | None:
    """Returns the tokens that each token sees, prompts among them; None: all."""
    length = ids.shape[1] + prompts
    if spec.causal:
        return jnp.tril(jnp.ones((length, length), bool))
    if spec.pool != "mean":
        return None
    place, end = jnp.arange(length), _last_position(spec, ids)[:, None] + prompts
    return (place <= end)[:, None, None]


def words(spec: TextSpec, ids: Int[Array, "b n"]) -> Bool[Array, "b n"]:
    """Returns a mask of the sentence, without its start token and padding."""
    place = jnp.arange(ids.shape[1])[None, :]
    end = _last_position(spec, ids)
    if spec.pool == "last":
        # the pooled position may be padding, so the end is looked for
        is_end = ids == spec.end_token
        end = jnp.where(is_end.any(1), jnp.argmax(is_end, axis=1), end)
    return (place >= spec.native_first) & (place <= end[:, None])


def _last_position(spec: TextSpec, ids: Int[Array, "b n"]) -> Int[Array, " b"]:
    """Returns the position of the last token that is pooled."""
    if spec.pool in ("end", "mean"):
        return jnp.argmax(ids == spec.end_token, axis=1)
    if spec.pool == "argmax":
        return jnp.argmax(ids, axis=1)
    return jnp.full(len(ids), ids.shape[1] - 1)


def init(
    key: Key, spec: TextSpec, embedding: int, normal: DrawNormal = jax.random.normal
) -> PyTree:
    """Returns random weights."""
    keys, width = jax.random.split(key, 4), spec.trunk.width
    weights = {
        "tokens": 0.02 * normal(keys[0], (spec.vocabulary, width)),
        "positions": 0.01 * normal(keys[1], (spec.context_length, width)),
        "blocks": init_blocks(keys[2], spec.trunk, normal),
        "first_norm" if spec.trunk.post_norm else "final_norm": init_norm((width,)),
        "projection": width**-0.5 * normal(keys[3], (width, embedding)),
    }
    if spec.projection_bias:
        weights["projection_bias"] = jnp.zeros(embedding)
    return weights
