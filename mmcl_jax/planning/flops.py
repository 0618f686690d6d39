"""Floating-point operations of a frozen tower, by formula.

For a layer of width `D`, an inner width `M` of its MLP, and `N` tokens,

    forward = 2 N (4 D² + 2 D M) + 4 N² D,

where the first term counts linear maps, the second attention. Since nothing inside is
trained, the backward pass computes gradients of the activations alone: the linear maps
cost as much again, attention twice as much. So a step costs a little more than twice
its forward pass, not three times as training all weights would. Convolutions of a stem
and blocks before the first adapter are not counted: they are a part of decoding, once
per sample.
"""

import math

from mmcl_jax.models.specs import (
    ConseSpec,
    EncoderSpec,
    TextSpec,
    TowerSpec,
    VisualSpec,
)


def forward(spec: EncoderSpec, modality: str, frames: int, prompts: int) -> float:
    """Returns the operations of embedding one sample.

    Args:
        spec: Shape of the encoder.
        modality: Modality of the sample.
        frames: Number of its frames; 1 for an image or a sentence.
        prompts: Number of tokens that are injected into every layer.
    """
    linear, attention = _trunk(spec, modality, frames, prompts)
    return linear + attention + _ends(spec, modality, frames)


def backward(spec: EncoderSpec, modality: str, frames: int, prompts: int) -> float:
    """Returns the operations of the gradient of injected tokens; see `forward`."""
    linear, attention = _trunk(spec, modality, frames, prompts)
    return linear + 2 * attention


def _trunk(
    spec: EncoderSpec, modality: str, frames: int, prompts: int
) -> tuple[float, float]:
    reader = spec.reader(spec.tower_of(modality))
    if isinstance(reader, ConseSpec):
        return 0.0, 0.0  # nothing is injected into it
    trunk = reader.trunk
    native = reader.context_length if isinstance(reader, TextSpec) else _tokens(reader)
    rows = frames if isinstance(reader, TextSpec) else _rows(reader, frames)
    linear, attention = _layer(trunk, native + prompts)
    if trunk.frames > 1:
        # each position of a frame attends over the frames of its clip
        linear += 8 * native * trunk.width**2
        attention += 4 * native * trunk.frames * trunk.width
    # what is computed before any adapter acts is a part of decoding, unless the weights
    # lie on several devices, see `encoder.begin`
    layers = trunk.layers if trunk.sharded else trunk.adapted_layers
    return rows * layers * linear, rows * layers * attention


def _layer(trunk: TowerSpec, tokens: int) -> tuple[float, float]:
    width, keys = trunk.width, tokens + trunk.learned_key
    linear = 2 * tokens * (4 * width**2 + 2 * width * trunk.mlp_width)
    return linear, 4 * tokens * keys * width


def _ends(spec: EncoderSpec, modality: str, frames: int) -> float:
    """Returns the operations of patch embedding and of the final projection."""
    reader = spec.reader(spec.tower_of(modality))
    if isinstance(reader, ConseSpec):
        return 2.0 * reader.stem.channels * reader.classes
    width = reader.trunk.width
    if isinstance(reader, TextSpec):
        return 2.0 * width * spec.embedding
    of_patches = reader.patches * reader.patch_inputs
    return _rows(reader, frames) * 2.0 * width * (of_patches + spec.embedding)


def _tokens(reader: VisualSpec) -> int:
    return reader.patches + reader.native_first


def _rows(reader: VisualSpec, frames: int) -> int:
    return math.ceil(frames / reader.tube)
