"""Deep SLDA: streaming linear discriminant analysis of frozen features."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mmcl_jax.fields import Share
from mmcl_jax.methods.base import Common, Features, Method
from mmcl_jax.methods.heads import discriminant
from mmcl_jax.models.model import Model
from mmcl_jax.ops.gaussians import Gaussians
from mmcl_jax.types import Batch, Memory


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of Deep SLDA.

    Attributes:
        shrinkage: Share of the identity in the covariance.
    """

    shrinkage: Share = 1e-4


def make(model: Model, options: Options, common: Common) -> Method:
    """Returns a linear discriminant whose covariance was updated sample by sample.

    Deviation: queries have unit norm, so the identity counts more than beside the
    larger features of the published code. The first samples are not fitted at once.

    References:
        T. L. Hayes, C. Kanan, "Lifelong Machine Learning with Deep Streaming Linear
        Discriminant Analysis", CVPR Workshops 2020.
    """
    width, share = model.spec.embedding, options.shrinkage

    def queries(
        memory: Memory, batch: Batch, given: Features
    ) -> Float[Array, "b width"]:
        del memory, given
        return batch.query

    return discriminant(
        model,
        common.sharing,
        width,
        queries,
        streamed,
        lambda scatter: (1 - share) * scatter + share * jnp.eye(width),
    )


def streamed(
    stats: Gaussians,
    x: Float[Array, "b d"],
    label: Int[Array, " b"],
    weight: Float[Array, " b"],
    group: int,
) -> Gaussians:
    """Adds samples one after the other, as the published code does.

    With `N` samples before, of all classes, and `v = x - mean_c` the distance from the
    mean that the class had until then, 0 before its first sample:
    `scatter += v v^T N / (N + 1)`. So the first sample of a class counts with its
    distance from the origin, and the scatter over N is not the pooled covariance.

    Args:
        stats: Statistics so far, of one group.
        x: Features [b, d], in the order of arrival.
        label: Class [b].
        weight: Weights [b]: 1, or 0 for rows that change nothing.
        group: Index of the group.
    """
    member = jax.nn.one_hot(label, len(stats.count)) * weight[:, None]

    def matmul(a: Array, b: Array) -> Array:
        return jnp.matmul(a, b, precision="highest")

    # which rows of its class come before a row in this batch
    earlier = jnp.tril(matmul(member, member.T), -1)
    number = stats.count[label] + earlier.sum(1)
    sums = (stats.count[:, None] * stats.mean)[label] + matmul(earlier, x)
    v = x - sums / jnp.maximum(number, 1)[:, None]
    before = stats.count.sum() + jnp.cumsum(weight) - weight
    factor = weight * before / (before + 1)
    scatter = stats.scatter.at[group].add(matmul((factor[:, None] * v).T, v))
    count = stats.count + member.sum(0)
    # the mean stays bitwise as it is where no sample was added
    moved = matmul(member.T, x) - member.sum(0)[:, None] * stats.mean
    mean = stats.mean + moved / jnp.maximum(count, 1)[:, None]
    return Gaussians(count, mean, scatter)
