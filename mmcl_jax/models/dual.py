"""The two-tower encoder: one image-side tower, one text tower, one joint space."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mmcl_jax.losses import unit_norm
from mmcl_jax.models.tower import (
    Injection,
    TowerSpec,
    init_blocks,
    init_norm,
    layer_norm,
    trunk,
    trunk_with_summaries,
)
from mmcl_jax.types import Key, PyTree


@dataclasses.dataclass(frozen=True)
class DualSpec:
    """Shape of the encoder.

    Attributes:
        visual: trunk of the image-side tower.
        text: trunk of the text tower.
        embedding: width of the joint space.
        image_size: side of the input picture, pixels.
        patch_size: side of a patch, pixels.
        vocabulary: number of token ids.
        context_length: positions of the text tower.
        end_token: id of the token whose output is the sentence's embedding.
    """

    visual: TowerSpec
    text: TowerSpec
    embedding: int
    image_size: int
    patch_size: int
    vocabulary: int
    context_length: int
    end_token: int

    @property
    def patches(self) -> int:
        """Patches of one picture."""
        return (self.image_size // self.patch_size) ** 2

    def tower(self, name: str) -> TowerSpec:
        """Returns the trunk of the tower "visual" or "text"."""
        return {"visual": self.visual, "text": self.text}[name]


def embed_visual(
    spec: DualSpec,
    frozen: PyTree,
    pixels: Float[Array, "b f h w 3"],
    injection: Injection | None = None,
) -> Float[Array, "b d"]:
    """Returns unit embeddings: the mean over frames, then normalised.

    A still is a clip of one frame: repeating it changes nothing, so the number of
    frames tells a method nothing about the modality.
    """
    weights, rows = frozen["visual"], pixels.shape[0]
    x, frames = _visual_tokens(spec, frozen, pixels)
    if injection is not None:
        injection = injection.repeat(frames)
    x = trunk(spec.visual, weights["blocks"], x, injection)
    x = layer_norm(x[:, 0], weights["post_norm"], spec.visual.norm_epsilon)
    x = x @ weights["projection"]
    return unit_norm(x.reshape(rows, frames, -1).mean(1))


def embed_text(
    spec: DualSpec,
    frozen: PyTree,
    tokens: Int[Array, "b n"],
    injection: Injection | None = None,
) -> Float[Array, "b d"]:
    """Returns the unit embedding at each sentence's first end token."""
    weights = frozen["text"]
    x = weights["tokens"][tokens] + weights["positions"][: tokens.shape[1]]
    length = x.shape[1]
    x = trunk(spec.text, weights["blocks"], x, injection, causal=True)
    # prompts stand behind the start token and shift every later position
    end = jnp.argmax(tokens == spec.end_token, axis=1) + (x.shape[1] - length)
    x = jnp.take_along_axis(x, end[:, None, None], axis=1)[:, 0]
    x = layer_norm(x, weights["final_norm"], spec.text.norm_epsilon)
    return unit_norm(x @ weights["projection"])


def layer_blocks(tower: TowerSpec, blocks: int) -> int:
    """Returns how many of `blocks` blocks a tower has before its final one."""
    return min(blocks, tower.layers - 1)


def layer_features(
    spec: DualSpec, frozen: PyTree, inputs: PyTree, blocks: int
) -> Float[Array, "b features"]:
    """Returns what the last `blocks` frozen blocks before the final one say.

    Of every block the mean of its tokens, each brought to mean 0 and variance 1: what
    a final embedding has dropped because its pre-training had no use for it. The start
    token and what stands behind a sentence's end have no part in it. `features` is the
    width of the tower times `layer_blocks` of it.

    References:
        K. Ahrens et al., "Read Between the Layers: Leveraging Multi-Layer
        Representations for Rehearsal-Free Continual Learning with Pre-Trained Models",
        TMLR 2024.
    """
    if "tokens" in inputs:
        tokens, weights = inputs["tokens"], frozen["text"]
        x = weights["tokens"][tokens] + weights["positions"][: tokens.shape[1]]
        end = jnp.argmax(tokens == spec.end_token, axis=1)
        place = jnp.arange(tokens.shape[1])[None, :]
        counted = (place > 0) & (place <= end[:, None])
        tower, frames = spec.text, 1
    else:
        x, frames = _visual_tokens(spec, frozen, inputs["pixels"])
        counted = jnp.broadcast_to(jnp.arange(x.shape[1]) > 0, x.shape[:2])
        tower, weights = spec.visual, frozen["visual"]
    share = counted / jnp.maximum(counted.sum(1, keepdims=True), 1)
    plain = {"scale": jnp.ones(tower.width), "bias": jnp.zeros(tower.width)}

    def summarize(x: Array) -> Array:
        normal = layer_norm(x, plain, tower.norm_epsilon)
        return jnp.einsum("bn,bnw->bw", share, normal)

    _, kept = trunk_with_summaries(
        tower, weights["blocks"], x, None, "tokens" in inputs, summarize
    )
    kept = kept[:-1][-layer_blocks(tower, blocks) :]
    kept = kept.reshape(len(kept), -1, frames, tower.width).mean(2)
    return jnp.moveaxis(kept, 0, 1).reshape(kept.shape[1], -1)


def embed(
    spec: DualSpec,
    frozen: PyTree,
    inputs: PyTree,
    injection: Injection | None = None,
) -> Float[Array, "b d"]:
    """Returns unit embeddings by the tower that `inputs` are for."""
    if "tokens" in inputs:
        return embed_text(spec, frozen, inputs["tokens"], injection)
    return embed_visual(spec, frozen, inputs["pixels"], injection)


def init(key: Key, spec: DualSpec) -> PyTree:
    """Returns random weights of both towers and the logarithm of the logit scale."""
    keys = jax.random.split(key, 8)
    visual, text = spec.visual, spec.text
    inputs = 3 * spec.patch_size**2
    normal = jax.random.normal
    return {
        "visual": {
            "patch": inputs**-0.5 * normal(keys[0], (inputs, visual.width)),
            "class": visual.width**-0.5 * normal(keys[1], (visual.width,)),
            "positions": visual.width**-0.5
            * normal(keys[2], (1 + spec.patches, visual.width)),
            "pre_norm": init_norm((visual.width,)),
            "blocks": init_blocks(keys[3], visual),
            "post_norm": init_norm((visual.width,)),
            "projection": visual.width**-0.5
            * normal(keys[4], (visual.width, spec.embedding)),
        },
        "text": {
            "tokens": 0.02 * normal(keys[5], (spec.vocabulary, text.width)),
            "positions": 0.01 * normal(keys[6], (spec.context_length, text.width)),
            "blocks": init_blocks(jax.random.fold_in(keys[6], 1), text),
            "final_norm": init_norm((text.width,)),
            "projection": text.width**-0.5
            * normal(keys[7], (text.width, spec.embedding)),
        },
        "log_scale": jnp.log(1 / 0.07),
    }


def _visual_tokens(
    spec: DualSpec, frozen: PyTree, pixels: Float[Array, "b f h w 3"]
) -> tuple[Float[Array, "rows n width"], int]:
    """Returns the tokens that enter the blocks, frames as rows, and the frames."""
    weights = frozen["visual"]
    rows, frames = pixels.shape[:2]
    patches = _patchify(pixels.reshape(rows * frames, *pixels.shape[2:]), spec)
    x = patches @ weights["patch"]
    first = jnp.broadcast_to(weights["class"], (x.shape[0], 1, x.shape[2]))
    x = jnp.concatenate([first, x], axis=1) + weights["positions"]
    return layer_norm(x, weights["pre_norm"], spec.visual.norm_epsilon), frames


def _patchify(
    pixels: Float[Array, "b h w 3"], spec: DualSpec
) -> Float[Array, "b n inputs"]:
    size, patch = spec.image_size, spec.patch_size
    grid = size // patch
    x = pixels.reshape(pixels.shape[0], grid, patch, grid, patch, 3)
    # channel-major rows, the order of a PyTorch convolution's kernel
    return x.transpose(0, 1, 3, 5, 2, 4).reshape(x.shape[0], grid * grid, -1)
