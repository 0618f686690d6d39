"""LayUP without its first phase: a ridge head on features of several layers."""

import dataclasses

import jax.numpy as jnp
from jaxtyping import Array, Float

from mmcl_jax.fields import Count, NonNegative
from mmcl_jax.methods import readout
from mmcl_jax.methods.base import Common, Features, Method
from mmcl_jax.methods.heads import closed_form
from mmcl_jax.models.model import Model
from mmcl_jax.types import Batch, Memory


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of LayUP.

    Attributes:
        blocks: Number of blocks whose features are read, the last ones before the
            final.
        regularization: Ridge of the normal equations, relative to their mean diagonal;
            None: chosen in each stage on samples of it that are held out, as published.
    """

    blocks: Count = 5
    regularization: NonNegative | None = None


def make(model: Model, options: Options, common: Common) -> Method:
    """Returns one-hot ridge regression on the last layers and the final embedding.

    The embedding is scaled to entries of unit size, which the features of the blocks
    have.

    Deviation: features of a block are the means of its tokens, in place of its class
    token, which some towers do not have; the encoder is not tuned on the first task,
    which would favour its modality; the ridge is chosen on every fifth sample of a
    stage.

    References:
        K. Ahrens et al., "Read Between the Layers: Leveraging Multi-Layer
        Representations for Rehearsal-Free Continual Learning with Pre-Trained Models",
        TMLR 2024.
    """
    layers = int(readout.layer_widths(model, options.blocks).max())
    size = model.spec.embedding**0.5

    def features(
        memory: Memory, batch: Batch, given: Features
    ) -> Float[Array, "b width"]:
        del memory
        padded = readout.padded(model, given.layers, options.blocks)
        return jnp.concatenate([padded, size * batch.query], axis=1)

    return closed_form(
        model,
        common.sharing,
        layers + model.spec.embedding,
        features,
        options.regularization,
        layer_blocks=options.blocks,
    )
