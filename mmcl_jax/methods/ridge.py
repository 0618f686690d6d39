"""Frozen features and a closed-form head: the linear baseline that cannot forget."""

import dataclasses

import jax.numpy as jnp
from jaxtyping import Array, Float

from mmcl_jax.fields import NonNegative
from mmcl_jax.methods.base import Common, Features, Method
from mmcl_jax.methods.heads import closed_form
from mmcl_jax.models.model import Model
from mmcl_jax.types import Batch, Memory


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of the ridge head.

    Attributes:
        regularization: Ridge of the normal equations, relative to their mean diagonal.
    """

    regularization: NonNegative = 1e-3


def make(model: Model, options: Options, common: Common) -> Method:
    """Returns one-hot ridge regression on un-prompted features, with an intercept.

    References:
        McDonnell et al., RanPAC: Random Projections and Pre-trained Models for
        Continual Learning, 2023 (without the random projection).
    """

    def with_constant(
        memory: Memory, batch: Batch, given: Features
    ) -> Float[Array, "b width"]:
        return jnp.concatenate([batch.query, jnp.ones_like(batch.query[:, :1])], 1)

    width = model.spec.embedding + 1
    return closed_form(
        model, common.sharing, width, with_constant, options.regularization
    )
