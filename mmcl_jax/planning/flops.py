"""Floating-point operations of a frozen tower, by formula.

For a layer of width `D`, an inner width `M` of its MLP, and `N` tokens,

    forward = 2 N (4 D² + 2 D M) + 4 N² D,

of which the first term are linear maps, the second attention. The backward pass to the
activations alone, since nothing inside is trained, costs the linear maps once more and
attention twice. So a step costs a little more than twice its forward pass, not three
times as training all weights would.
"""

import math

from mmcl_jax.models.specs import EncoderSpec, TextSpec, TowerSpec, VisualSpec


def forward(spec: EncoderSpec, modality: str, frames: int, prompts: int) -> float:
    """Returns the operations of embedding one sample.

    Args:
        spec: shape of the encoder.
        modality: of the sample.
        frames: that it has; 1 of a still or a sentence.
        prompts: tokens that are injected into every layer.
    """
    linear, attention = _trunk(spec, modality, frames, prompts)
    return linear + attention + _ends(spec, modality, frames)


def backward(spec: EncoderSpec, modality: str, frames: int, prompts: int) -> float:
    """Returns those of the gradient with respect to what is injected; as `forward`."""
    linear, attention = _trunk(spec, modality, frames, prompts)
    return linear + 2 * attention


def _trunk(
    spec: EncoderSpec, modality: str, frames: int, prompts: int
) -> tuple[float, float]:
    reader = spec.reader(spec.tower_of(modality))
    trunk = reader.trunk
    native = reader.context_length if isinstance(reader, TextSpec) else _tokens(reader)
    rows = frames if isinstance(reader, TextSpec) else _rows(reader, frames)
    linear, attention = _layer(trunk, native + prompts)
    if trunk.frames > 1:
        # each position of a picture attends over the frames of its clip
        linear += 8 * native * trunk.width**2
        attention += 4 * native * trunk.frames * trunk.width
    return rows * trunk.layers * linear, rows * trunk.layers * attention


def _layer(trunk: TowerSpec, tokens: int) -> tuple[float, float]:
    width, keys = trunk.width, tokens + trunk.learned_key
    linear = 2 * tokens * (4 * width**2 + 2 * width * trunk.mlp_width)
    return linear, 4 * tokens * keys * width


def _ends(spec: EncoderSpec, modality: str, frames: int) -> float:
    """Patches into tokens, and the pooled token into the joint space."""
    reader = spec.reader(spec.tower_of(modality))
    width = reader.trunk.width
    if isinstance(reader, TextSpec):
        return 2.0 * width * spec.embedding
    inputs = reader.channels * reader.tube * reader.patch_size**2
    rows = _rows(reader, frames)
    return rows * 2.0 * width * (reader.patches * inputs + spec.embedding)


def _tokens(reader: VisualSpec) -> int:
    return reader.patches + reader.native_first


def _rows(reader: VisualSpec, frames: int) -> int:
    return math.ceil(frames / reader.tube)
