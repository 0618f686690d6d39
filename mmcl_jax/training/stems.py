"""What a tower computes before any adapter acts, computed once per sample.

It is frozen: a convolutional stem, and with `adapter.first_block` the blocks before
that one. So it is a part of decoding, done in the loader's threads and kept with the
decoded inputs.
"""

import functools
from collections.abc import Sequence

import jax
import numpy as np

from mmcl_jax.modalities.base import Inputs, Stem
from mmcl_jax.models import encoder as encoders
from mmcl_jax.models.specs import ConseSpec, EncoderSpec, TextSpec
from mmcl_jax.models.stem_specs import StemSpec
from mmcl_jax.types import PyTree

Shapes = dict[str, jax.ShapeDtypeStruct]


def decoded_shapes(
    spec: EncoderSpec,
    frozen: PyTree,
    modalities: Sequence[str],
    preprocessed: tuple[Shapes, ...],
) -> tuple[Shapes, ...]:
    """Returns the shapes of a decoded sample of each modality, see `encoder.begin`.

    Args:
        spec: Shape of the encoder.
        frozen: Its weights, or their shapes.
        modalities: Names of the modalities.
        preprocessed: Shapes of a preprocessed sample of each of them.
    """

    def decoded(modality: str, shapes: Shapes) -> Shapes:
        if not encoders.begins(spec, modality):
            return shapes
        reader = spec.reader(spec.tower_of(modality))
        # to trace a stem takes longer than all else that precedes the data
        if isinstance(reader, ConseSpec) or not reader.trunk.plain_layers:
            assert not isinstance(reader, TextSpec) and reader.stem
            return _stem_shape(reader.stem, shapes)
        return jax.eval_shape(functools.partial(_begin, spec, modality), frozen, shapes)

    return tuple(map(decoded, modalities, preprocessed))


def _stem_shape(spec: StemSpec, shapes: Shapes) -> Shapes:
    *frames, height, width, _ = shapes["pixels"].shape
    size = (*frames, *spec.sides((height, width)), spec.channels)
    return {"features": jax.ShapeDtypeStruct(size, np.dtype(np.float32))}


def _begin(spec: EncoderSpec, modality: str, frozen: PyTree, inputs: PyTree) -> PyTree:
    """Returns `encoder.begin` of one sample, which is without an axis of samples."""
    one = {name: values[None] for name, values in inputs.items()}
    begun = encoders.begin(spec, frozen, modality, one)
    return {name: values[0] for name, values in begun.items()}


def make_stem(spec: EncoderSpec, frozen: PyTree) -> Stem | None:
    """Returns a function from inputs to `encoder.begin`; None: it changes nothing.

    It computes one sample at a time on one device of this process, so what it returns
    for a sample depends on nothing else.
    """
    begun = {name for name, _ in spec.readers if encoders.begins(spec, name)}
    if not begun:
        return None
    device = jax.local_devices()[0]
    needed = {
        name: encoders.weights_to_begin(spec, frozen, name)
        for name in {spec.tower_of(modality) for modality in begun}
    }
    weights = jax.device_put(jax.tree.map(_local, needed), device)
    compiled = jax.jit(functools.partial(_begin, spec), static_argnums=0)

    def stem(modality: str, inputs: Inputs) -> Inputs:
        if modality not in begun:
            return inputs
        found = compiled(modality, weights, inputs)
        return {name: np.asarray(values) for name, values in found.items()}

    return stem


def _local(leaf: jax.Array | np.ndarray) -> jax.Array | np.ndarray:
    """Returns a weight, of which every device has a whole copy, as one of them."""
    return leaf.addressable_data(0) if isinstance(leaf, jax.Array) else leaf
