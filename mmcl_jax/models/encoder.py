"""The frozen encoder: towers that read modalities, and one joint space."""

import dataclasses
from collections.abc import Collection
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mmcl_jax.models import text, visual
from mmcl_jax.models.layers import layer_norm
from mmcl_jax.models.text import TextSpec
from mmcl_jax.models.tower import (
    Injection,
    TowerSpec,
    trunk_with_summaries,
)
from mmcl_jax.models.visual import VisualSpec
from mmcl_jax.types import Key, PyTree

ReaderSpec = VisualSpec | TextSpec
PICTURES = ("image", "video", "audio", "depth")

_FLOAT32 = ("norm", "projection", "head", "scale")


@dataclasses.dataclass(frozen=True)
class EncoderSpec:
    """Shape of an encoder.

    Attributes:
        towers: each tower's name and shape.
        readers: each modality and the name of the tower that reads it.
        embedding: width of the joint space.
    """

    towers: tuple[tuple[str, ReaderSpec], ...]
    readers: tuple[tuple[str, str], ...]
    embedding: int

    def reader(self, name: str) -> ReaderSpec:
        """Returns the tower of a name."""
        return dict(self.towers)[name]

    def tower(self, name: str) -> TowerSpec:
        """Returns the transformer of a tower."""
        return self.reader(name).trunk

    def tower_of(self, modality: str) -> str:
        """Returns the name of the tower that reads `modality`."""
        return dict(self.readers)[modality]

    @property
    def text(self) -> TextSpec:
        """The tower that reads class names."""
        spec = self.reader(self.tower_of("text"))
        assert isinstance(spec, TextSpec)
        return spec


def two_towers(visual: VisualSpec, text: TextSpec, embedding: int) -> EncoderSpec:
    """Returns an encoder that takes everything but text for pictures."""
    readers = (*((name, "visual") for name in PICTURES), ("text", "text"))
    return EncoderSpec((("visual", visual), ("text", text)), readers, embedding)


def clip(
    visual: TowerSpec,
    text: TowerSpec,
    embedding: int,
    image_size: int,
    patch_size: int,
    vocabulary: int,
    context_length: int,
    end_token: int,
) -> EncoderSpec:
    """Returns an encoder as CLIP is made.

    Args:
        visual: transformer of the visual tower.
        text: transformer of the text tower.
        embedding: width of the joint space.
        image_size: side of a picture, pixels.
        patch_size: side of a patch, pixels.
        vocabulary: number of token ids.
        context_length: positions of the text tower.
        end_token: id of the token whose output is the sentence's embedding.

    References:
        Radford et al., Learning Transferable Visual Models From Natural Language
        Supervision, 2021.
    """
    return two_towers(
        VisualSpec(visual, (image_size, image_size), patch_size, patch_size),
        TextSpec(text, vocabulary, context_length, end_token),
        embedding,
    )


def siglip(
    visual: TowerSpec,
    text: TowerSpec,
    image_size: tuple[int, int],
    patch_size: int,
    vocabulary: int,
    context_length: int,
) -> EncoderSpec:
    """Returns an encoder as SigLIP is made.

    References:
        Zhai et al., Sigmoid Loss for Language Image Pre-Training, 2023.
    """
    return two_towers(
        VisualSpec(
            visual,
            image_size,
            patch_size,
            patch_size,
            class_token=False,
            patch_bias=True,
            pre_norm=False,
            pool="attention",
        ),
        TextSpec(
            text,
            vocabulary,
            context_length,
            end_token=1,
            causal=False,
            pool="last",
            projection_bias=True,
        ),
        visual.width,
    )


def embed(
    spec: EncoderSpec,
    frozen: PyTree,
    modality: str,
    inputs: PyTree,
    injection: Injection | None = None,
) -> Float[Array, "b d"]:
    """Returns unit embeddings by the tower that reads `modality`.

    Args:
        spec: shape of the encoder.
        frozen: its weights.
        modality: of the inputs.
        inputs: `{"pixels": float [b f h w c]}` or `{"tokens": int [b n]}`.
        injection: what an adapter adds, or None for the frozen encoder.
    """
    name = spec.tower_of(modality)
    reader = spec.reader(name)
    if isinstance(reader, TextSpec):
        return text.embed(reader, frozen[name], inputs["tokens"], injection)
    return visual.embed(reader, frozen[name], inputs["pixels"], injection)


def embed_names(
    spec: EncoderSpec,
    frozen: PyTree,
    ids: Int[Array, "C n"],
    context: Float[Array, "C p w"],
) -> Float[Array, "C d"]:
    """Returns unit embeddings of class names behind words that are learnt.

    With `v_i` the embedding of the i-th word of a sentence and `c_i` its context, the
    tower reads `start, v_1 + c_1, ..., v_p + c_p, name, end`. So the learnt vectors are
    kept as their distance from the words that they start at.

    Args:
        spec: shape of the encoder.
        frozen: its weights.
        ids: of the sentences; the first `p` words of each stand in front of the name.
        context: of each sentence.

    References:
        Zhou et al., Learning to Prompt for Vision-Language Models (CoOp), 2022,
        equation (2), initialised by words.
    """
    return text.embed(spec.text, frozen[spec.tower_of("text")], ids, context=context)


def layer_blocks(tower: TowerSpec, blocks: int) -> int:
    """Returns how many of `blocks` blocks a tower has before its final one."""
    return min(blocks, tower.layers - 1)


def layer_features(
    spec: EncoderSpec, frozen: PyTree, modality: str, inputs: PyTree, blocks: int
) -> Float[Array, "b features"]:
    """Returns what the last `blocks` frozen blocks before the final one say.

    Of every block the mean of its tokens, each brought to mean 0 and variance 1: what
    a final embedding has dropped because its pre-training had no use for it. The class
    or start token and what stands behind a sentence's end have no part in it.
    `features` is the width of the tower times `layer_blocks` of it.

    References:
        K. Ahrens et al., "Read Between the Layers: Leveraging Multi-Layer
        Representations for Rehearsal-Free Continual Learning with Pre-Trained Models",
        TMLR 2024.
    """
    name = spec.tower_of(modality)
    reader, weights = spec.reader(name), frozen[name]
    tower, causal = reader.trunk, False
    if isinstance(reader, TextSpec):
        ids, frames, causal = inputs["tokens"], 1, reader.causal
        x, counted = text.tokens(weights, ids), text.words(reader, ids)
    else:
        x, frames = visual.tokens(reader, weights, inputs["pixels"])
        place = jnp.arange(x.shape[1]) >= reader.native_first
        counted = jnp.broadcast_to(place, x.shape[:2])
    share = counted / jnp.maximum(counted.sum(1, keepdims=True), 1)
    plain = {"scale": jnp.ones(tower.width), "bias": jnp.zeros(tower.width)}

    def summarize(x: Array) -> Array:
        normal = layer_norm(x.astype(jnp.float32), plain, tower.norm_epsilon)
        return jnp.einsum("bn,bnw->bw", share, normal)

    _, kept = trunk_with_summaries(
        tower, weights["blocks"], x, None, causal, reader.native_first, summarize
    )
    kept = kept[:-1][-layer_blocks(tower, blocks) :]
    kept = kept.reshape(len(kept), -1, frames, tower.width).mean(2)
    return jnp.moveaxis(kept, 0, 1).reshape(kept.shape[1], -1)


def init(key: Key, spec: EncoderSpec) -> PyTree:
    """Returns random weights of all towers and the logarithm of the logit scale."""
    keys = jax.random.split(key, len(spec.towers))
    weights = {}
    for k, (name, reader) in zip(keys, spec.towers, strict=True):
        if isinstance(reader, TextSpec):
            weights[name] = text.init(k, reader, spec.embedding)
        else:
            weights[name] = visual.init(k, reader, spec.embedding)
    return weights | {"log_scale": jnp.log(1 / 0.07)}


def leaf_dtype(path: str, dtype: str) -> str:
    """Returns the type of a weight in an encoder that computes in `dtype`.

    Layer norms, pooling heads and projections compute in float32 all the same, as every
    softmax does.

    Args:
        path: of the leaf, with `/` between names.
        dtype: "float32" or "bfloat16".
    """
    return "float32" if any(name in path for name in _FLOAT32) else dtype


def with_trunks(
    spec: EncoderSpec, names: Collection[str] | None = None, **changes: Any
) -> EncoderSpec:
    """Returns the shape with fields of some towers' transformers changed; None: all."""

    def changed(reader: ReaderSpec) -> ReaderSpec:
        trunk = dataclasses.replace(reader.trunk, **changes)
        return dataclasses.replace(reader, trunk=trunk)

    towers = tuple(
        (name, changed(reader) if names is None or name in names else reader)
        for name, reader in spec.towers
    )
    return dataclasses.replace(spec, towers=towers)
