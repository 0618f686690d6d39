"""A softmax head on frozen features, trained on one task after another."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mmcl_jax.methods.base import (
    Common,
    Features,
    LabelSpace,
    Method,
    label_space,
)
from mmcl_jax.methods.heads import head_method
from mmcl_jax.models.model import Model
from mmcl_jax.ops import losses
from mmcl_jax.types import Batch, Capacity, Context, Key, Memory, Metrics, Params


def init_head(key: Key, model: Model, room: Capacity) -> Params:
    """Returns a head over all class slots; each column is drawn by its own key."""

    def column(slot: Array) -> Array:
        own = jax.random.fold_in(key, slot)
        return 0.01 * jax.random.normal(own, (model.spec.embedding,))

    return {
        "weight": jax.vmap(column, out_axes=1)(jnp.arange(room.classes)),
        "bias": jnp.zeros(room.classes),
    }


def head_logits(
    model: Model, head: Params, features: Float[Array, "b d"]
) -> Float[Array, "b C"]:
    """Returns `s z W + b`; with the class texts for W this is the zero-shot head."""
    return model.logit_scale * features @ head["weight"] + head["bias"]


Loss = Callable[
    [Params, Context, Batch, Features, Key], tuple[Float[Array, ""], Metrics]
]


def head_loss(
    logits: Callable[[Params, Context, Batch, Features], Float[Array, "b C"]],
    train_label_space: LabelSpace,
) -> Loss:
    """Returns the loss of a method: cross-entropy of `logits` over the label space."""

    def loss(
        params: Params, context: Context, batch: Batch, features: Features, key: Key
    ) -> tuple[Float[Array, ""], Metrics]:
        del key
        allowed = label_space(context.classes, batch.hint, train_label_space)
        value = losses.cross_entropy(
            logits(params, context, batch, features),
            batch.label,
            batch.weight,
            allowed,
        )
        return value, {"cross_entropy": value}

    return loss


def make(model: Model, options: None, common: Common) -> Method:
    """Returns a linear classifier of queries that is trained by gradient descent.

    References:
        G. Alain, Y. Bengio, "Understanding intermediate layers using linear classifier
        probes", 2016.
    """
    del options

    def init(key: Key, room: Capacity) -> tuple[Params, Memory]:
        return init_head(key, model, room), {}

    def logits(
        params: Params, context: Context, batch: Batch, features: Features
    ) -> Float[Array, "b C"]:
        del context, features
        return head_logits(model, params, batch.query)

    loss = head_loss(logits, common.label_space)
    return head_method(model, common.sharing, init, logits, loss=loss)
