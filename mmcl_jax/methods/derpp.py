"""Dark experience replay with labels."""

import dataclasses
from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array, Float

from mmcl_jax.fields import Count, NonNegative
from mmcl_jax.methods.base import Common, Method, forward
from mmcl_jax.methods.replay import DEFAULT_BYTES, label_term, with_replay
from mmcl_jax.methods.sequential import sequential
from mmcl_jax.models.model import Model
from mmcl_jax.ops import losses
from mmcl_jax.types import Batch, Context, Key, Params


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of dark experience replay.

    Attributes:
        modality_bytes: Bytes of the remembered samples of each modality.
        logit_weight: Weight α of the distance to the stored logits.
        label_weight: Weight β of the cross-entropy of remembered samples.
        label_space: Classes that this cross-entropy is over: those seen so far in the
            sample's modality (`modality_seen`), or all seen so far.
    """

    modality_bytes: Count = DEFAULT_BYTES
    logit_weight: NonNegative = 0.3
    label_weight: NonNegative = 0.5
    label_space: Literal["modality_seen", "all_seen"] = "all_seen"


def logit_distance(
    logits: Float[Array, "b C"],
    stored: Float[Array, "b C"],
    weight: Float[Array, " b"],
) -> Float[Array, ""]:
    """Returns the mean square of `logits - stored` over classes with stored logits.

    >>> logits, stored = jnp.array([[1.0, 2, 9]]), jnp.array([[0.0, 4, 0]])
    >>> stored = losses.mask_logits(stored, jnp.array([True, True, False]))
    >>> float(logit_distance(logits, stored, jnp.ones(1)))
    2.5
    """
    # masked logits mark classes not seen yet, in half precision its lowest number
    valid = stored > max(losses.MASKED, float(jnp.finfo(stored.dtype).min))
    error = jnp.where(valid, logits - stored.astype(logits.dtype), 0)
    number = jnp.maximum(valid.sum(-1), 1)
    return losses.weighted_mean(jnp.sum(error**2, -1) / number, weight)


def make(model: Model, options: Options, common: Common) -> Method:
    """Returns sequential tuning with stored logits and labels of remembered samples.

    `loss = CE + α MSE(o(x'), o') + β CE(x'', y'')` with separate draws `'` and `''`.

    Deviation: a sample's logits are those after its task, not of the step in which it
    was met, and only of the classes that were seen by then.

    References:
        P. Buzzega et al., "Dark Experience for General Continual Learning: a Strong,
        Simple Baseline", NeurIPS 2020.
    """
    method = sequential(model, common)
    rehearsed = common._replace(label_space=options.label_space)

    def of_logits(
        params: Params,
        context: Context,
        batch: Batch,
        stored: Array | None,
        key: Key,
    ) -> Float[Array, ""]:
        del key
        assert stored is not None
        features = forward(method, model, params, context, batch)
        logits = method.predict(params, context, batch, features).logits
        return logit_distance(logits, stored, batch.weight)

    return with_replay(
        method,
        model,
        options.modality_bytes,
        terms={
            "stored_logits": of_logits,
            "replay": label_term(model, sequential(model, rehearsed)),
        },
        mix=lambda value, replayed: (
            value
            + options.logit_weight * replayed["stored_logits"]
            + options.label_weight * replayed["replay"]
        ),
        stores_logits=True,
    )
