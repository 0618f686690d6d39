"""A tower that reads pictures and clips of them."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mmcl_jax.models import convolutional
from mmcl_jax.models.initial_weights import (
    block_linears,
    init_blocks,
    init_linear,
    init_norm,
)
from mmcl_jax.models.injection import Injection, prompt_length
from mmcl_jax.models.layer_features import layer_features, token_means
from mmcl_jax.models.layers import ACTIVATIONS, attend, layer_norm
from mmcl_jax.models.specs import ConseSpec, TowerSpec, VisualSpec
from mmcl_jax.models.tower import (
    Entered,
    adapted_blocks,
    linear,
    no_summary,
    plain_blocks,
    split_heads,
)
from mmcl_jax.ops.losses import unit_norm
from mmcl_jax.types import DrawNormal, Key, PyTree

_PATCH_NORM_EPSILON = 1e-5


def features(
    spec: VisualSpec | ConseSpec,
    weights: PyTree,
    pixels: Float[Array, "b *frames h w c"],
) -> Float[Array, "b *frames rows columns features"]:
    """Returns what a tower with a stem makes of each frame before its tokens."""
    assert spec.stem is not None
    leading = pixels.shape[:-3]
    pictures = pixels.reshape(-1, *pixels.shape[-3:])
    found = convolutional.stem(spec.stem, weights["stem"], pictures)
    return found.reshape(*leading, *found.shape[1:])


def frames_of(spec: VisualSpec | ConseSpec, weights: PyTree, inputs: PyTree) -> Array:
    """Returns what a tower cuts into patches: pixels, or the features of its stem.

    What a stem computes is frozen and precedes everything that is trained, so it need
    be computed only once for each sample: inputs may hold it already.

    Args:
        spec: Shape of the tower.
        weights: Weights of the tower.
        inputs: `pixels` or, of a tower with a stem, `features`, each `[b f h w c]`.
    """
    if "features" in inputs:
        return inputs["features"]
    if spec.stem is None:
        return inputs["pixels"]
    return features(spec, weights, inputs["pixels"])


def tokens(
    spec: VisualSpec, weights: PyTree, pixels: Float[Array, "b *frames h w c"]
) -> tuple[Float[Array, "rows n width"], int]:
    """Returns tokens for the blocks, a row per frame, and the frames of a sample.

    Frames may come in clips, `[b clips f h w c]`, which are then concatenated. A tower
    with a stem takes its features in place of pixels.
    """
    rows = pixels.shape[0]
    pixels = pixels.reshape(rows, -1, *pixels.shape[-3:])
    if pixels.shape[1] == 1:
        pixels = jnp.repeat(pixels, spec.tube, axis=1)
    frames = pixels.shape[1] // spec.tube
    pictures = pixels.reshape(rows * frames, spec.tube, *pixels.shape[2:])
    kernel = weights["patch"]
    x = _patchify(pictures, spec).astype(kernel.dtype) @ kernel
    if spec.patch_bias:
        x = x + weights["patch_bias"]
    if spec.patch_norm:
        x = layer_norm(x, weights["patch_norm"], _PATCH_NORM_EPSILON)
    if spec.class_token:
        # one class token for all frames, or one for each frame of a clip
        first = weights["class"].reshape(-1, 1, x.shape[2])
        first = jnp.tile(first, (x.shape[0] // len(first), 1, 1))
        x = jnp.concatenate([first, x], axis=1)
    x = x + weights["positions"]
    if spec.pre_norm:
        x = layer_norm(x, weights["pre_norm"], spec.trunk.norm_epsilon)
    return x, frames


def embed(
    spec: VisualSpec,
    weights: PyTree,
    pixels: Float[Array, "b *frames h w c"],
    injection: Injection | None = None,
) -> Float[Array, "b d"]:
    """Returns unit embeddings: the mean over frames, normalised.

    A tower with a stem takes the result of `features` in place of pixels. A still is a
    clip of one frame: repeating it changes nothing, so the number of frames does not
    reveal the modality to a method.
    """
    return embed_layers(spec, weights, pixels, injection, blocks=0)[0]


def embed_layers(
    spec: VisualSpec,
    weights: PyTree,
    pixels: Float[Array, "b *frames h w c"],
    injection: Injection | None,
    blocks: int,
) -> tuple[Float[Array, "b d"], Float[Array, "b features"]]:
    """Returns `embed`, and the layer features of the same pass.

    These are the means of the tokens of a block, see `encoder.embed_layers`, without
    the class token and prompts.
    """
    return leave(spec, weights, enter(spec, weights, pixels), injection, blocks)


def enter(
    spec: VisualSpec, weights: PyTree, pixels: Float[Array, "b *frames h w c"]
) -> Entered:
    """Returns what enters the first block that adapters act in.

    A tower with a stem takes its features in place of pixels.
    """
    x, frames = tokens(spec, weights, pixels)
    means_of = token_means(spec.trunk, _counted(spec, x, 0))
    x, means = plain_blocks(spec.trunk, weights["blocks"], x, None, means_of)
    by_frame = (pixels.shape[0], frames)
    return Entered(
        x.reshape(*by_frame, *x.shape[1:]), means.reshape(*by_frame, *means.shape[1:])
    )


def leave(
    spec: VisualSpec,
    weights: PyTree,
    entered: Entered,
    injection: Injection | None,
    blocks: int,
) -> tuple[Float[Array, "b d"], Float[Array, "b features"]]:
    """Returns `embed_layers` from what enters the first block with an adapter."""
    samples, frames, *_ = entered.tokens.shape
    x = entered.tokens.reshape(-1, *entered.tokens.shape[2:])
    prompts, at = 0, spec.native_first
    if injection is not None:
        # an injection is per sample, and each frame of a sample is a row
        injection = injection.repeat(frames)
        prompts = prompt_length(injection)
    counted = _counted(spec, x, prompts)
    x, means = adapted_blocks(
        spec.trunk,
        weights["blocks"],
        x,
        injection,
        None,
        at,
        token_means(spec.trunk, counted) if blocks else no_summary,
    )
    layers = jnp.zeros((samples, 0))
    if blocks:
        layers = layer_features(spec.trunk, entered.means, means, blocks)
    if spec.pool == "class":
        x = layer_norm(x[:, 0], weights["post_norm"], spec.trunk.norm_epsilon)
        x = x.astype(jnp.float32) @ weights["projection"]
    else:
        native = jnp.concatenate([x[:, :at], x[:, at + prompts :]], axis=1)
        x = _attention_pool(spec.trunk, weights, native)
    if spec.unit_frames:
        x = unit_norm(x)
    return unit_norm(x.reshape(samples, frames, -1).mean(1)), layers


def _counted(
    spec: VisualSpec, x: Float[Array, "rows n w"], prompts: int
) -> Bool[Array, "rows n_out"]:
    """Returns which tokens are those of patches, once there are prompts, too."""
    place = jnp.arange(x.shape[1] + prompts) >= spec.native_first + prompts
    return jnp.broadcast_to(place, (x.shape[0], len(place)))


def _attention_pool(
    spec: TowerSpec, weights: PyTree, x: Float[Array, "b n w"]
) -> Float[Array, "b w"]:
    """Returns SigLIP's pooled tokens in float32; a learned probe is the query."""
    head, epsilon = weights["head"], spec.norm_epsilon
    x = layer_norm(x.astype(jnp.float32), weights["post_norm"], epsilon)
    probe = jnp.broadcast_to(head["probe"], (len(x), 1, spec.width))
    query, _, _ = split_heads(spec, linear(probe, head["qkv"]))
    _, keys, values = split_heads(spec, linear(x, head["qkv"]))
    pooled = attend(query, keys, values, None).reshape(len(x), spec.width)
    pooled = linear(pooled, head["out"])
    h = layer_norm(pooled, head["norm"], epsilon)
    h = ACTIVATIONS[spec.activation](linear(h, head["mlp_in"]))
    return pooled + linear(h, head["mlp_out"])


def _patchify(
    pictures: Float[Array, "b t h w c"], spec: VisualSpec
) -> Float[Array, "b n inputs"]:
    """Cuts patches; their values are in the order of a PyTorch convolution's kernel."""
    unit = spec.stem.stride if spec.stem else 1
    patch, stride = spec.patch_size // unit, spec.stride // unit
    rows, columns = spec.grid
    batch, tube, _, _, channels = pictures.shape
    # overlapping patches: a convolution by the identity, exact at this precision
    if stride != patch:
        flat = jnp.moveaxis(pictures, 1, -1).reshape(
            batch, *pictures.shape[2:4], channels * tube
        )
        cut = jax.lax.conv_general_dilated_patches(
            flat,
            (patch, patch),
            (stride, stride),
            "VALID",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            precision=jax.lax.Precision.HIGHEST,
        )
        return cut.reshape(batch, rows * columns, -1)
    x = pictures[:, :, : rows * patch, : columns * patch]
    x = x.reshape(batch, tube, rows, patch, columns, patch, channels)
    x = x.transpose(0, 2, 4, 6, 1, 3, 5)
    return x.reshape(batch, rows * columns, -1)


def init(
    key: Key, spec: VisualSpec, embedding: int, normal: DrawNormal = jax.random.normal
) -> PyTree:
    """Returns random weights."""
    keys, trunk = jax.random.split(key, 5), spec.trunk
    width, std = trunk.width, trunk.width**-0.5
    count, inputs = spec.native_first + spec.patches, spec.patch_inputs
    weights = {
        "patch": inputs**-0.5 * normal(keys[0], (inputs, width)),
        "positions": std * normal(keys[2], (count, width)),
        "blocks": init_blocks(keys[3], trunk, normal),
        "post_norm": init_norm((width,)),
    }
    if spec.class_token:
        shape = (spec.class_frames, width) if spec.class_frames > 1 else (width,)
        weights["class"] = std * normal(keys[1], shape)
    if spec.stem is not None:
        drawn = jax.random.fold_in(key, 1)
        weights["stem"] = convolutional.init(drawn, spec.stem, normal)
    if spec.patch_bias:
        weights["patch_bias"] = jnp.zeros(width)
    if spec.patch_norm:
        weights["patch_norm"] = init_norm((width,))
    if spec.pre_norm:
        weights["pre_norm"] = init_norm((width,))
    if spec.pool == "class":
        weights["projection"] = std * normal(keys[4], (width, embedding))
    else:
        weights["head"] = _init_head(keys[4], trunk, normal)
    return weights


def _init_head(key: Key, spec: TowerSpec, normal: DrawNormal) -> PyTree:
    shapes, std = block_linears(spec), spec.width**-0.5
    keys = jax.random.split(key, len(shapes) + 1)
    head = {
        name: init_linear(k, shape, std, normal)
        for k, (name, shape) in zip(keys[1:], shapes.items(), strict=True)
    }
    probe = std * normal(keys[0], (spec.width,))
    return head | {"probe": probe, "norm": init_norm((spec.width,))}
