"""Features of the blocks of a tower: means of their tokens."""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mmcl_jax.models.layers import layer_norm
from mmcl_jax.models.specs import TowerSpec, layer_blocks


def token_means(
    spec: TowerSpec, counted: Bool[Array, "rows n"]
) -> Callable[[Array], Float[Array, "rows w"]]:
    """Returns the function that summarizes tokens by their mean, each normalised first.

    Args:
        spec: Shape of the tower.
        counted: Tokens that take part; a row without any has zeros.
    """
    share = counted / jnp.maximum(counted.sum(1, keepdims=True), 1)
    plain = {"scale": jnp.ones(spec.width), "bias": jnp.zeros(spec.width)}

    def summarize(x: Array) -> Array:
        normal = layer_norm(x.astype(jnp.float32), plain, spec.norm_epsilon)
        return jnp.einsum("bn,bnw->bw", share, normal)

    return summarize


def layer_features(
    spec: TowerSpec,
    below: Float[Array, "b *f k w"],
    above: Float[Array, "l rows w"],
    blocks: int,
) -> Float[Array, "b features"]:
    """Returns the means of the last blocks before the final one, side by side.

    Args:
        spec: Shape of the tower.
        below: Means of the blocks that no adapter acts in, see `Entered`.
        above: Means of the others; the frames of a sample are adjacent rows.
        blocks: Number of blocks, see `specs.layer_blocks`.
    """
    rows, frames = below.shape[0], above.shape[1] // below.shape[0]
    below = below.reshape(rows, frames, below.shape[-2], spec.width)
    above = jnp.moveaxis(above, 0, 1).reshape(rows, frames, len(above), spec.width)
    means = jnp.concatenate([below, above], axis=2).mean(1)
    # without the final block, whose tokens the embedding already reads
    return means[:, :-1][:, -layer_blocks(spec, blocks) :].reshape(rows, -1)
