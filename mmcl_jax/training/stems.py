"""What frozen convolutional stems make of a sample, computed once per sample.

Nothing that is trained acts before a stem's features, so they are a part of decoding:
they are computed in the loader's threads and kept with the decoded inputs.
"""

import functools
from collections.abc import Sequence

import jax
import numpy as np
from jaxtyping import Array, Float

from mmcl_jax.modalities.base import Inputs, Stem
from mmcl_jax.models import convolutional
from mmcl_jax.models.specs import EncoderSpec, StemSpec, TextSpec
from mmcl_jax.types import PyTree

Shapes = dict[str, jax.ShapeDtypeStruct]


def readers(spec: EncoderSpec) -> dict[str, StemSpec]:
    """Returns the stems of towers that have one, by the modality that they read."""
    towers = {modality: spec.reader(name) for modality, name in spec.readers}
    return {
        modality: tower.stem
        for modality, tower in towers.items()
        if not isinstance(tower, TextSpec) and tower.stem
    }


def decoded_shapes(
    spec: EncoderSpec, modalities: Sequence[str], preprocessed: tuple[Shapes, ...]
) -> tuple[Shapes, ...]:
    """Returns the shapes of a decoded sample of each modality, after its stem if any.

    Args:
        spec: Shape of the encoder.
        modalities: Names of the modalities.
        preprocessed: Shapes of a preprocessed sample of each of them.
    """
    with_stem = readers(spec)
    return tuple(
        _stem_shape(with_stem[name], shapes) if name in with_stem else shapes
        for name, shapes in zip(modalities, preprocessed, strict=True)
    )


def _stem_shape(spec: StemSpec, shapes: Shapes) -> Shapes:
    *frames, height, width, _ = shapes["pixels"].shape
    size = (*frames, *spec.sides((height, width)), spec.channels)
    return {"features": jax.ShapeDtypeStruct(size, np.dtype(np.float32))}


def make_stem(spec: EncoderSpec, frozen: PyTree) -> Stem | None:
    """Returns a function that replaces pixels by features; None: there is no stem.

    It computes one sample at a time on one device of this process, so a sample's
    features depend on nothing else.
    """
    with_stem = readers(spec)
    if not with_stem:
        return None
    device = jax.local_devices()[0]
    weights = {
        name: jax.device_put(_on_host(frozen[name]["stem"]), device)
        for name in {spec.tower_of(modality) for modality in with_stem}
    }

    @functools.partial(jax.jit, static_argnums=0)
    def compiled(
        own: StemSpec, weights: PyTree, pixels: Float[Array, "f h w c"]
    ) -> Float[Array, "f rows columns features"]:
        return convolutional.stem(own, weights, pixels)

    def stem(modality: str, inputs: Inputs) -> Inputs:
        if modality not in with_stem:
            return inputs
        own = weights[spec.tower_of(modality)]
        features = compiled(with_stem[modality], own, inputs["pixels"])
        return {"features": np.asarray(features)}

    return stem


def _on_host(weights: PyTree) -> PyTree:
    """Returns weights, which every device has a whole copy of, as NumPy arrays."""
    return jax.tree.map(
        lambda leaf: np.asarray(
            leaf.addressable_data(0) if isinstance(leaf, jax.Array) else leaf
        ),
        weights,
    )
