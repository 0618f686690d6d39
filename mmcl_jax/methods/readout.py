"""The answer of COMM and COMM+: a modality, then a class, from several views.

A view is a set of features of a sample with the Gaussians of the classes in it. Each
gives the probabilities of the classes of a modality, by a discriminant with the
modality's own covariance; the views are weighted, and the modality's probability is a
factor.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from mmcl_jax.methods.base import text_logits
from mmcl_jax.models.model import Model
from mmcl_jax.models.specs import layer_width
from mmcl_jax.ops import discriminant, losses
from mmcl_jax.ops.discriminant import Discriminants
from mmcl_jax.ops.gaussians import Gaussians
from mmcl_jax.types import Batch, Context


class View(NamedTuple):
    """Features of a batch, and what is known of the classes in them.

    Attributes:
        share: Weight of its log-probabilities, of each modality.
        features: Features of the batch.
        stats: Gaussians of all classes, the covariances by modality.
        discriminants: Their discriminants.
    """

    share: Float[Array, " m"]
    features: Float[Array, "b d"]
    stats: Gaussians
    discriminants: Discriminants


def layer_widths(model: Model, blocks: int) -> Float[np.ndarray, " m"]:
    """Returns the width of the layer features of each modality."""
    towers = (model.spec.tower(name) for name in model.towers)
    return np.array([layer_width(t, blocks) for t in towers], np.float32)


def padded(model: Model, features: Array | None, blocks: int) -> Float[Array, "b d"]:
    """Returns layer features of one width for all towers, zeros at the end."""
    assert features is not None
    missing = int(layer_widths(model, blocks).max()) - features.shape[1]
    return jnp.pad(features, ((0, 0), (0, missing)))


def read(
    model: Model,
    context: Context,
    batch: Batch,
    scores: Float[Array, "b m"],
    views: Sequence[View],
) -> Float[Array, "b C"]:
    """Returns logits over class slots.

        log p(c | x) = log p(m | q) + log p_m(c | x),
        p_m(c | x) ~ prod_v p_m(c | v)^share_v,

    with `m` the modality of class `c`, renormalised within the modality. A given
    modality counts as certain. A class that was never learnt has the probability of its
    text among all classes, under the frozen encoder.

    Args:
        model: Static facts of the encoder.
        context: Context with the class slots.
        batch: Samples of one modality.
        scores: Scores of modalities by the router.
        views: Their shares sum to 1.
    """
    known, modalities = context.classes, jnp.arange(len(model.modalities))
    given = batch.hint[:, None] == modalities
    given = given & (scores > losses.MASKED / 2)
    certain = jnp.where(given, 0.0, losses.MASKED)
    modality = jnp.where(
        given.any(-1, keepdims=True), certain, jax.nn.log_softmax(scores)
    )
    logits = jax.nn.log_softmax(text_logits(batch.query, known, model.logit_scale))
    met = known.seen & (views[0].stats.count > 0)
    members = model.members(model.tower_of(batch.modality))
    for m in members:
        own = met & (known.modality == m)
        within = jnp.zeros_like(logits)
        for view in views:
            found = discriminant.log_probabilities(
                view.features, view.stats, view.discriminants, m, own
            )
            within = within + view.share[m] * found
        within = jax.nn.log_softmax(losses.mask_logits(within, own))
        logits = jnp.where(own, within + modality[:, m][:, None], logits)
    # classes of other towers cannot be the answer
    strange = met & ~_among(members, known.modality)
    return losses.mask_logits(logits, ~strange)


def _among(members: tuple[int, ...], modality: Array) -> Bool[Array, " C"]:
    return (modality[:, None] == jnp.asarray(members)).any(-1)
