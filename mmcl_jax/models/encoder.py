"""The frozen encoder: towers that read modalities, and one joint space."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mmcl_jax.models import conse, text, visual
from mmcl_jax.models.injection import Injection
from mmcl_jax.models.layers import layer_norm
from mmcl_jax.models.specs import (
    ConseSpec,
    EncoderSpec,
    TextSpec,
    VisualSpec,
    layer_blocks,
)
from mmcl_jax.models.tower import trunk_with_summaries
from mmcl_jax.types import Key, PyTree

# parts of names of weights that stay float32 in any encoder
_FLOAT32 = ("norm", "projection", "head", "scale", "stem")


def embed(
    spec: EncoderSpec,
    frozen: PyTree,
    modality: str,
    inputs: PyTree,
    injection: Injection | None = None,
) -> Float[Array, "b d"]:
    """Returns unit embeddings by the tower that reads `modality`.

    Args:
        spec: Shape of the encoder.
        frozen: Weights of the encoder.
        modality: Modality of the inputs.
        inputs: `pixels` or a stem's `features`, `[b f h w c]`, or `tokens [b n]`.
        injection: What an adapter adds, or None for the frozen encoder.
    """
    name = spec.tower_of(modality)
    reader = spec.reader(name)
    if isinstance(reader, TextSpec):
        return text.embed(reader, frozen[name], inputs["tokens"], injection)
    pictures = visual.frames_of(reader, frozen[name], inputs)
    if isinstance(reader, ConseSpec):
        return conse.embed(reader, frozen[name], pictures)
    return visual.embed(reader, frozen[name], pictures, injection)


def embed_names(
    spec: EncoderSpec,
    frozen: PyTree,
    ids: Int[Array, "C n"],
    context: Float[Array, "C p w"],
) -> Float[Array, "C d"]:
    """Returns unit embeddings of class names after learnt words.

    With `v_i` the embedding of the i-th word of a sentence and `c_i` its context, the
    tower reads `start, v_1 + c_1, ..., v_p + c_p, name, end`. So the learnt vectors are
    stored as offsets from the words that they start at.

    Args:
        spec: Shape of the encoder.
        frozen: Weights of the encoder.
        ids: Token ids of the sentences; the first `p` words precede the name.
        context: Learnt offsets of the words of each sentence.

    References:
        Zhou et al., Learning to Prompt for Vision-Language Models (CoOp), 2022,
        equation (2), initialised by words.
    """
    return text.embed(spec.text, frozen[spec.tower_of("text")], ids, context=context)


def layer_features(
    spec: EncoderSpec, frozen: PyTree, modality: str, inputs: PyTree, blocks: int
) -> Float[Array, "b features"]:
    """Returns features of the last `blocks` frozen blocks before the final one.

    For every block they are the mean of its tokens, each normalised to mean 0 and
    variance 1: information that the final embedding dropped because pre-training had no
    use for it. The class or start token and everything after a sentence's end are left
    out. `features` is the width of the tower times `layer_blocks` of it.

    References:
        K. Ahrens et al., "Read Between the Layers: Leveraging Multi-Layer
        Representations for Rehearsal-Free Continual Learning with Pre-Trained Models",
        TMLR 2024.
    """
    name = spec.tower_of(modality)
    reader, weights = spec.reader(name), frozen[name]
    tower, mask = spec.tower(name), None
    if isinstance(reader, TextSpec):
        ids, frames = inputs["tokens"], 1
        x, counted = text.tokens(reader, weights, ids), text.words(reader, ids)
        mask = text.mask(reader, ids)
    else:
        assert isinstance(reader, VisualSpec)  # it has a transformer
        pictures = visual.frames_of(reader, weights, inputs)
        x, frames = visual.tokens(reader, weights, pictures)
        place = jnp.arange(x.shape[1]) >= reader.native_first
        counted = jnp.broadcast_to(place, x.shape[:2])
    # a sentence without words has zeros, not NaN
    share = counted / jnp.maximum(counted.sum(1, keepdims=True), 1)
    plain = {"scale": jnp.ones(tower.width), "bias": jnp.zeros(tower.width)}

    def summarize(x: Array) -> Array:
        normal = layer_norm(x.astype(jnp.float32), plain, tower.norm_epsilon)
        return jnp.einsum("bn,bnw->bw", share, normal)

    _, kept = trunk_with_summaries(
        tower, weights["blocks"], x, None, mask, reader.native_first, summarize
    )
    # without the final block, whose tokens the embedding already reads
    kept = kept[:-1][-layer_blocks(tower, blocks) :]
    kept = kept.reshape(len(kept), -1, frames, tower.width).mean(2)
    return jnp.moveaxis(kept, 0, 1).reshape(kept.shape[1], -1)


def init(key: Key, spec: EncoderSpec) -> PyTree:
    """Returns random weights of all towers and the logarithm of the logit scale."""
    keys = jax.random.split(key, len(spec.towers))
    weights = {}
    for k, (name, reader) in zip(keys, spec.towers, strict=True):
        module = {TextSpec: text, ConseSpec: conse}.get(type(reader), visual)
        weights[name] = module.init(k, reader, spec.embedding)
    return weights | {"log_scale": jnp.log(1 / 0.07)}


def leaf_dtype(path: str, dtype: str) -> str:
    """Returns the data type of a weight in an encoder that computes in `dtype`.

    Layer norms, pooling heads and projections always compute in float32, as every
    softmax does.

    Args:
        path: Path of the leaf, with `/` between names.
        dtype: Either "float32" or "bfloat16".
    """
    return "float32" if any(name in path for name in _FLOAT32) else dtype
