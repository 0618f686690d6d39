"""The relevance function: which modality a frozen query belongs to, in three ways.

`discriminant`: a linear discriminant of all classes from the Gaussians of their
queries, in closed form, independent of the order of tasks. `two_stage`: a linear
classifier of modalities, fitted to draws from the same Gaussians before a task is
trained. `joint`: that classifier, trained in every step of the main training.
"""

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mmcl_jax.ops import gaussians, losses, relevance
from mmcl_jax.ops.gaussians import Gaussians
from mmcl_jax.ops.optim import descend
from mmcl_jax.types import Classes, PyTree

RelevanceKind = Literal["discriminant", "two_stage", "joint"]

_STEPS, _LEARNING_RATE = 300, 1e-2
# bounds the rows, each scored over all classes: else the cost is quadratic in classes
_PSEUDO_QUERIES = 4096


def init(kind: RelevanceKind, num_classes: int, num_modalities: int, dim: int) -> dict:
    """Returns an unfitted router, with a row per class, or per modality."""
    rows = num_classes if kind == "discriminant" else num_modalities
    offset = losses.MASKED if kind == "discriminant" else 0.0
    return {
        "direction": jnp.zeros((rows, dim)),
        "offset": jnp.full(rows, offset, jnp.float32),
    }


def scores(
    kind: RelevanceKind,
    router: PyTree,
    query: Float[Array, "b d"],
    classes: Classes,
    num_modalities: int,
) -> Float[Array, "b m"]:
    """Returns log-space scores; `losses.MASKED` for modalities without a seen class."""
    direction, offset = router["direction"], router["offset"]
    if kind == "discriminant":
        return relevance.modality_scores(
            query, direction, offset, classes.modality, classes.seen, num_modalities
        )
    linear = jnp.matmul(query, direction.T, precision="highest") + offset
    return losses.mask_logits(linear, met(classes, num_modalities))


def met(classes: Classes, num_modalities: int) -> Bool[Array, " m"]:
    """Returns which modalities have a seen class."""
    return relevance.modalities_of(classes.seen, classes.modality, num_modalities)


def fit_discriminant(
    stats: Gaussians, classes: Classes, num_modalities: int, shrinkage: float
) -> dict:
    """Returns the discriminant with equal priors of modalities, and its jitter."""
    prior = relevance.balanced_prior(classes.seen, classes.modality, num_modalities)
    direction, offset, jitter = relevance.discriminant(
        stats, classes.seen, prior, shrinkage
    )
    return {"direction": direction, "offset": offset, "jitter": jitter}


def loss(
    router: PyTree,
    query: Float[Array, "n d"],
    modality: Array,
    weight: Float[Array, " n"],
    classes: Classes,
    num_modalities: int,
) -> Float[Array, ""]:
    """Returns the cross-entropy of modalities, all with the same total weight."""
    own = jax.nn.one_hot(modality, num_modalities) * weight[:, None]
    total = own.sum(0)
    balanced = (own / jnp.where(total > 0, total, 1)).sum(-1)
    logits = scores("two_stage", router, query, classes, num_modalities)
    allowed = met(classes, num_modalities)
    return losses.cross_entropy(logits, modality, balanced, allowed)


def fit_two_stage(
    router: PyTree,
    query: Float[Array, "n d"],
    modality: Array,
    weight: Float[Array, " n"],
    classes: Classes,
    num_modalities: int,
) -> PyTree:
    """Returns `router` after more steps of Adam over all of `query`."""
    return descend(
        lambda at: loss(at, query, modality, weight, classes, num_modalities),
        router,
        _STEPS,
        _LEARNING_RATE,
    )


def pseudo_queries(
    key: Array, stats: Gaussians, classes: Classes, draws: int, shrinkage: float
) -> tuple[Float[Array, "n d"], Array, Float[Array, " n"], Float[Array, ""]]:
    """Returns draws from each class's Gaussian, their modalities and weights.

    The largest jitter of a covariance is returned too. The more classes there are, the
    fewer draws each has: some 4,000 in all, but at least one per class.
    """
    num_classes = len(classes.modality)
    draws = max(1, min(draws, _PSEUDO_QUERIES // num_classes))
    label = jnp.repeat(jnp.arange(num_classes), draws)
    drawn, weight, jitter = gaussians.sample(
        key, stats, label, classes.modality, shrinkage
    )
    return drawn, classes.modality[label], weight, jitter
