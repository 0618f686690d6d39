"""The relevance function: which modality a frozen query belongs to.

It is a linear discriminant of all classes from the Gaussians of their queries, in
closed form and independent of the order of tasks.
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mmcl_jax.ops import gaussians, losses, relevance
from mmcl_jax.ops.gaussians import Gaussians
from mmcl_jax.types import Classes, PyTree

# of the covariance of queries
SHRINKAGE = 0.01
# draws from the Gaussian of a class, and in all: each is scored over all classes, so
# that the cost would be quadratic in their number
_DRAWS, _PSEUDO_QUERIES = 32, 4096


def init(num_classes: int, dim: int) -> dict:
    """Returns an unfitted router."""
    return {
        "direction": jnp.zeros((num_classes, dim)),
        "offset": jnp.full(num_classes, losses.MASKED, jnp.float32),
    }


def scores(
    router: PyTree,
    query: Float[Array, "b d"],
    classes: Classes,
    num_modalities: int,
) -> Float[Array, "b m"]:
    """Returns log-space scores; `losses.MASKED` for modalities without a seen class."""
    return relevance.modality_scores(
        query,
        router["direction"],
        router["offset"],
        classes.modality,
        classes.seen,
        num_modalities,
    )


def met(classes: Classes, num_modalities: int) -> Bool[Array, " m"]:
    """Returns which modalities have a seen class."""
    return relevance.modalities_of(classes.seen, classes.modality, num_modalities)


def fit_discriminant(stats: Gaussians, classes: Classes, num_modalities: int) -> dict:
    """Returns the discriminant with equal priors of modalities, and its jitter."""
    prior = relevance.balanced_prior(classes.seen, classes.modality, num_modalities)
    direction, offset, jitter = relevance.discriminant(
        stats, classes.seen, prior, SHRINKAGE
    )
    return {"direction": direction, "offset": offset, "jitter": jitter}


def pseudo_queries(
    key: Array, stats: Gaussians, classes: Classes
) -> tuple[Float[Array, "n d"], Array, Float[Array, " n"], Float[Array, ""]]:
    """Returns draws from each class's Gaussian, their modalities and weights.

    The largest jitter of a covariance is returned too. The more classes there are, the
    fewer draws each has: some 4,000 in all, but at least one per class.
    """
    num_classes = len(classes.modality)
    draws = max(1, min(_DRAWS, _PSEUDO_QUERIES // num_classes))
    label = jnp.repeat(jnp.arange(num_classes), draws)
    drawn, weight, jitter = gaussians.sample(
        key, stats, label, classes.modality, SHRINKAGE
    )
    return drawn, classes.modality[label], weight, jitter
