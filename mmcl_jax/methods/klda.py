"""KLDA: linear discriminant analysis of random Fourier features."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mmcl_jax.fields import Count, NonNegative, Positive
from mmcl_jax.methods.base import Common, Features, Method
from mmcl_jax.methods.heads import discriminant
from mmcl_jax.models.model import Model
from mmcl_jax.ops import gaussians
from mmcl_jax.types import Batch, Key, Memory


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of KLDA.

    Attributes:
        width: Number of random features; 5,000 in the paper, whose covariance takes
            100 MB for each modality.
        bandwidth: Factor of the squared distance in the kernel; queries have unit norm.
        regularization: Ridge of the covariance, relative to its mean diagonal.
    """

    width: Count = 2000
    bandwidth: Positive = 1.0
    regularization: NonNegative = 1e-4


def make(model: Model, options: Options, common: Common) -> Method:
    """Returns a linear discriminant with the kernel `exp(-bandwidth |q - q'|^2)`.

    Its features are `sqrt(2 / D) cos(q W + b)`, with W normal of the variance
    `2 bandwidth` and b uniform over a period: their products approach the kernel.

    Deviation: 2000 features for the paper's 5,000; one draw of them, where its variant
    KLDA-E averages several; a small ridge in place of a pseudo-inverse.

    References:
        S. Momeni, S. Mazumder, B. Liu, "Continual Learning Using a Kernel-Based Method
        Over Foundation Models", AAAI 2025.
        A. Rahimi, B. Recht, "Random Features for Large-Scale Kernel Machines", 2007.
    """
    width, spread = options.width, (2 * options.bandwidth) ** 0.5

    def init(key: Key) -> Memory:
        of_matrix, of_phase = jax.random.split(key)
        shape = (model.spec.embedding, width)
        return {
            "projection": spread * jax.random.normal(of_matrix, shape),
            "phase": jax.random.uniform(of_phase, (width,), maxval=2 * jnp.pi),
        }

    def regularized(scatter: Float[Array, "d d"]) -> Float[Array, "d d"]:
        scale = jnp.trace(scatter) / width
        return scatter + options.regularization * scale * jnp.eye(width)

    return discriminant(
        model,
        common.sharing,
        width,
        fourier,
        gaussians.update,
        regularized,
        init,
    )


def fourier(memory: Memory, batch: Batch, given: Features) -> Float[Array, "b width"]:
    """Returns random Fourier features of the queries."""
    del given
    phase: Float[Array, " width"] = memory["phase"]
    scale = (2 / len(phase)) ** 0.5
    return scale * jnp.cos(batch.query @ memory["projection"] + phase)
