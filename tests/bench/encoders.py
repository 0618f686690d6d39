"""The visual towers that benches are about."""

import dataclasses
from typing import Any, NamedTuple

import jax
import numpy as np

from mmcl_jax.models import pretrained, visual
from mmcl_jax.models.sizes import SIZES
from mmcl_jax.models.specs import VisualSpec
from mmcl_jax.training import build


class Tower(NamedTuple):
    """A visual tower, and a batch for it.

    Attributes:
        spec: its shape.
        weights: float32, drawn at random.
        embedding: width of the joint space.
        pixels: `[b 1 h w c]`.
        prompts: of every layer `[l p w]`.
        target: a direction for each sample `[b d]`.
    """

    spec: VisualSpec
    weights: Any
    embedding: int
    pixels: np.ndarray
    prompts: np.ndarray
    target: np.ndarray


def tower(name: str, rows: int, prompts: int = 8) -> Tower:
    """Returns one of `SIZES` or the built-in encoder's, with random weights.

    The built-in encoder's blocks stand behind patches of pixels, as many as it has
    without them: its stem is a part of decoding, and PyTorch's CLIP has none.
    """
    if name == "builtin":
        whole = pretrained.load(str(build.BUILTIN_ENCODER)).spec
        spec = whole.reader("visual")
        assert isinstance(spec, VisualSpec)
        spec = dataclasses.replace(spec, stem=None, patch_size=spec.stride)
    else:
        whole = SIZES[name]
        spec = whole.reader("visual")
        assert isinstance(spec, VisualSpec)
    embedding = whole.embedding
    weights = visual.init(jax.random.key(0), spec, embedding)
    rng, trunk = np.random.default_rng(0), spec.trunk
    shapes = (
        (rows, 1, *spec.image_size, spec.channels),
        (trunk.layers, prompts, trunk.width),
        (rows, embedding),
    )
    pixels, injected, target = (
        rng.normal(size=shape).astype(np.float32) for shape in shapes
    )
    weights = jax.tree.map(jax.numpy.asarray, weights)
    return Tower(spec, weights, embedding, pixels, 0.02 * injected, target)
