"""FeCAM: the nearest class mean under the covariance of each class."""

import dataclasses

import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_solve
from jaxtyping import Array, Float

from mmcl_jax.fields import NonNegative
from mmcl_jax.methods.base import Common, Features, Method
from mmcl_jax.methods.heads import head_method
from mmcl_jax.models.model import Model
from mmcl_jax.ops import gaussians, losses
from mmcl_jax.ops.gaussians import Gaussians
from mmcl_jax.types import Batch, Capacity, Context, Key, Memory, Params


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of FeCAM; the defaults are those of its code for transformers.

    Attributes:
        diagonal: Multiple of the mean variance that is added to every variance.
        off_diagonal: Multiple of the mean covariance that is added to every covariance.
    """

    diagonal: NonNegative = 1.0
    off_diagonal: NonNegative = 0.0


def make(model: Model, options: Options, common: Common) -> Method:
    """Returns negative Mahalanobis distances of queries from class means.

    The covariance of each class is shrunk and scaled to unit variances. So a class has
    a matrix of its own, and its inverse, of 4 d^2 bytes each.

    As in the published code for transformers, whose features have negative entries,
    features are not raised to a power, and the covariance is shrunk once, not twice.

    References:
        D. Goswami et al., "FeCAM: Exploiting the Heterogeneity of Class Distributions
        in Exemplar-Free Continual Learning", NeurIPS 2023.
    """

    def init(key: Key, room: Capacity) -> tuple[Params, Memory]:
        del key
        classes, width = room.classes, model.spec.embedding
        return {}, {
            "gaussians": gaussians.init(classes, classes, width),
            "precision": jnp.zeros((classes, width, width)),
            "jitter": jnp.zeros(classes),
        }

    def prepare(params: Params, context: Context, batch: Batch, key: Key) -> Memory:
        del params, key
        stats: Gaussians = context.memory["gaussians"]
        classes = jnp.arange(len(stats.count))
        updated = gaussians.update(
            stats, batch.query, batch.label, batch.weight, classes
        )
        return context.memory | {"gaussians": updated}

    def end_task(params: Params, context: Context, key: Key) -> tuple[Params, Memory]:
        del key
        memory = context.memory
        stats: Gaussians = memory["gaussians"]
        classes = jnp.arange(len(stats.count))
        covariances = gaussians.group_covariances(stats, 0.0, classes)

        def precision(covariance: Array) -> tuple[Array, Array]:
            matrix = shrunk(covariance, options.diagonal, options.off_diagonal)
            factor, jitter = gaussians.cholesky_with_jitter(correlation(matrix))
            return cho_solve((factor, True), jnp.eye(len(factor))), jitter

        def renewed(part: tuple) -> tuple[Array, Array]:
            covariance, now, before, jitter = part
            # a class without new samples keeps its matrix
            return jax.lax.cond(
                now, lambda: precision(covariance), lambda: (before, jitter)
            )

        now = context.classes.of_task & (stats.count > 0)
        parts = covariances, now, memory["precision"], memory["jitter"]
        inverses, jitters = jax.lax.map(renewed, parts)
        return params, memory | {"precision": inverses, "jitter": jitters}

    def logits(
        params: Params, context: Context, batch: Batch, given: Features
    ) -> Float[Array, "b C"]:
        del params, given
        stats: Gaussians = context.memory["gaussians"]
        distance = distances(batch.query, stats.mean, context.memory["precision"])
        return losses.mask_logits(-distance, stats.count > 0)

    return head_method(
        model, common.sharing, init, logits, prepare=prepare, end_task=end_task
    )


def shrunk(
    covariance: Float[Array, "d d"], diagonal: float, off_diagonal: float
) -> Float[Array, "d d"]:
    """Returns a covariance with multiples of its means added.

    Args:
        covariance: Covariance [d, d].
        diagonal: Multiple of the mean variance, added to every variance.
        off_diagonal: Multiple of the mean covariance, added to every covariance.
    """
    size = len(covariance)
    identity = jnp.eye(size)
    variance = jnp.trace(covariance) / size
    rest = (covariance.sum() - size * variance) / (size * (size - 1))
    added = diagonal * variance * identity
    return covariance + added + off_diagonal * rest * (1 - identity)


def correlation(covariance: Float[Array, "d d"]) -> Float[Array, "d d"]:
    """Returns `S_ij / sqrt(S_ii S_jj)`."""
    deviation = jnp.sqrt(jnp.diagonal(covariance))
    return covariance / (deviation[:, None] * deviation)


def distances(
    x: Float[Array, "b d"], mean: Float[Array, "C d"], precision: Float[Array, "C d d"]
) -> Float[Array, "b C"]:
    """Returns squared Mahalanobis distances of features from class means."""

    def from_class(part: tuple[Array, Array]) -> Float[Array, " b"]:
        centre, own = part
        offset = x - centre
        return jnp.sum(jnp.matmul(offset, own, precision="highest") * offset, -1)

    # class by class, so that no array [b, C, d] is formed
    return jax.lax.map(from_class, (mean, precision)).T
