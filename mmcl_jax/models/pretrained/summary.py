"""Lines that summarize an encoder."""

import pathlib

import jax

from mmcl_jax.modalities.base import InputSpec
from mmcl_jax.models.specs import ConseSpec, EncoderSpec, TextSpec, VisualSpec
from mmcl_jax.types import PyTree


def towers(spec: EncoderSpec, frozen: PyTree) -> list[str]:
    """Returns a line for each tower: the modalities it reads, and its size."""
    lines = []
    for name, reader in spec.towers:
        size = sum(leaf.size for leaf in jax.tree.leaves(frozen[name]))
        read = [m for m, tower in spec.readers if tower == name]
        shape = (
            _convolutions(reader) if isinstance(reader, ConseSpec) else _trunk(reader)
        )
        lines.append(
            f"{name} (reads {', '.join(read)}): {size / 1e6:.1f} M parameters, {shape}"
        )
    return lines


def _trunk(reader: VisualSpec | TextSpec) -> str:
    trunk = reader.trunk
    return (
        f"{trunk.layers} x {trunk.width}, {trunk.heads} heads, {trunk.activation}, "
        f"epsilon {trunk.norm_epsilon:g}"
    )


def _convolutions(reader: ConseSpec) -> str:
    stem = reader.stem
    return (
        f"{len(stem.blocks())} residual blocks, {stem.channels} features, the names of "
        f"the {reader.top} most probable of {reader.classes} classes"
    )


def preprocessing(fed: InputSpec, spec: EncoderSpec) -> list[str]:
    """Returns a line on the preprocessing of pictures, and one on that of text."""
    pictures = (
        f"pictures: mean {fed.mean}, deviation {fed.std}, style {fed.style}, "
        f"{fed.resize}"
    )
    return [
        *([] if spec.readers == (("text", "text"),) else [pictures]),
        f"text: {spec.text.context_length} tokens, pooled at {spec.text.pool}, "
        f"{pathlib.Path(fed.tokenizer.path).name}",
    ]
