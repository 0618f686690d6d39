"""One adapter a tower, tuned on task after task: what forgets."""

from mmcl_jax.methods.base import Method, aligned
from mmcl_jax.methods.prompted import adapted_features, init_adapters, ones
from mmcl_jax.models import Model
from mmcl_jax.models.adapters import Adapter


def sequential(model: Model, adapter: Adapter, train_label_space: str) -> Method:
    """Returns sequential tuning of one adapter that all modalities share.

    Modalities of different towers cannot share, since the widths differ. On the
    joined stream this is the joint upper bound.
    """
    return aligned(
        model,
        init=lambda key, model: (init_adapters(key, model, adapter, shared=True), {}),
        embed=lambda params, context, batch: adapted_features(
            model, adapter, params, ones(batch), context, batch
        ),
        train_label_space=train_label_space,
    )
