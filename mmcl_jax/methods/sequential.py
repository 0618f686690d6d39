"""Adapters that are tuned on task after task: what forgets."""

from collections.abc import Callable

from jaxtyping import Array, Float

from mmcl_jax.fields import Sharing
from mmcl_jax.methods.adapted import adapted_features, init_groups
from mmcl_jax.methods.base import LabelSpace, Method, Penalty, aligned
from mmcl_jax.methods.sharing import group_weights, routed
from mmcl_jax.methods.stage_slots import trainable_groups
from mmcl_jax.models import Model
from mmcl_jax.models.adapters import Adapter
from mmcl_jax.types import Batch, Context, Params

Embed = Callable[[Params, Context, Batch], Float[Array, "b d"]]


def embedder(model: Model, adapter: Adapter, sharing: Sharing) -> Embed:
    """Returns the unit features under one adapter a group."""
    return lambda params, context, batch: adapted_features(
        model,
        adapter,
        params,
        group_weights(model, sharing, context, batch),
        context,
        batch,
    )


def sequential(
    model: Model,
    adapter: Adapter,
    sharing: Sharing,
    train_label_space: LabelSpace,
    penalty: Penalty | None = None,
) -> Method:
    """Returns sequential tuning of one adapter a group.

    Modalities of different towers cannot share, since the widths differ. On the
    joined stream this is the joint upper bound. `methods.combine` has the wrappers that
    make rivals of it; `penalty` is of their features.
    """
    method = aligned(
        model,
        init=lambda key, model: (init_groups(key, model, adapter, sharing), {}),
        embed=embedder(model, adapter, sharing),
        train_label_space=train_label_space,
        penalty=penalty,
    )
    # weight decay, too, leaves the groups of other modalities alone
    method = method._replace(
        trainable=lambda params, context: trainable_groups(
            model, sharing, context, params
        )
    )
    return routed(method, model, sharing)
