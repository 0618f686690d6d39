"""Random weights of the parts that towers share."""

import jax
import jax.numpy as jnp
from jaxtyping import Array

from mmcl_jax.models.specs import TowerSpec
from mmcl_jax.types import DrawNormal, Key, PyTree


def no_draw(key: Key, shape: tuple[int, ...]) -> Array:
    """Returns zeros, for those who want shapes alone: half of the time to trace."""
    del key
    return jnp.zeros(shape)


def block_linears(spec: TowerSpec) -> dict[str, tuple[int, int]]:
    """Returns input and output widths of a block's linear maps, but for frames."""
    width, inner = spec.width, spec.mlp_width
    return {
        "qkv": (width, 3 * width),
        "out": (width, width),
        "mlp_in": (width, inner),
        "mlp_out": (inner, width),
    }


def init_blocks(
    key: Key, spec: TowerSpec, normal: DrawNormal = jax.random.normal
) -> PyTree:
    """Returns random blocks with the initial scales of CLIP."""
    layers, width = spec.layers, spec.width
    residual_std = (2 * layers * width) ** -0.5
    scales = (width**-0.5, residual_std, (2 * width) ** -0.5, residual_std)
    linears = block_linears(spec)
    blocks = {
        name: init_linear(k, (layers, *shape), std, normal)
        for k, std, (name, shape) in zip(
            jax.random.split(key, len(linears)), scales, linears.items(), strict=True
        )
    }
    for norm in ("norm1", "norm2"):
        blocks[norm] = init_norm((layers, width))
    if spec.frames > 1:
        keys = jax.random.split(jax.random.fold_in(key, 1), 3)
        embedding = 0.02 * normal(keys[0], (layers, spec.frames, width))
        blocks["over_frames"] = {
            "embedding": embedding,
            "norm": init_norm((layers, width)),
            "qkv": init_linear(keys[1], (layers, *linears["qkv"]), width**-0.5, normal),
            "out": init_linear(
                keys[2], (layers, *linears["out"]), residual_std, normal
            ),
        }
    if spec.learned_key:
        pair = normal(jax.random.fold_in(key, 2), (2, layers, width))
        blocks["learned_key"], blocks["learned_value"] = 0.02 * pair
    return blocks


def init_linear(
    key: Key, shape: tuple[int, ...], std: float, normal: DrawNormal = jax.random.normal
) -> PyTree:
    """Returns random linear maps with kernels of `shape` and biases of zero."""
    kernel = std * normal(key, shape)
    return {"kernel": kernel, "bias": jnp.zeros((*shape[:-2], shape[-1]))}


def init_norm(shape: tuple[int, ...]) -> PyTree:
    """Returns layer norms with scales of 1 and biases of 0."""
    return {"scale": jnp.ones(shape), "bias": jnp.zeros(shape)}
