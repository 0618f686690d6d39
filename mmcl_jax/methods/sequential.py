"""Adapters that are tuned on task after task: what forgets."""

from mmcl_jax.methods.base import LabelSpace, Method, aligned
from mmcl_jax.methods.prompted import adapted_features, init_groups
from mmcl_jax.methods.sharing import group_weights, routed
from mmcl_jax.models import Model
from mmcl_jax.models.adapters import Adapter
from mmcl_jax.options import Sharing


def sequential(
    model: Model, adapter: Adapter, sharing: Sharing, train_label_space: LabelSpace
) -> Method:
    """Returns sequential tuning of one adapter a group.

    Modalities of different towers cannot share, since the widths differ. On the
    joined stream this is the joint upper bound.
    """
    method = aligned(
        model,
        init=lambda key, model: (init_groups(key, model, adapter, sharing), {}),
        embed=lambda params, context, batch: adapted_features(
            model,
            adapter,
            params,
            group_weights(model, sharing, context, batch),
            context,
            batch,
        ),
        train_label_space=train_label_space,
    )
    return routed(method, model, sharing)
