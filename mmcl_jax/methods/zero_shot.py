"""The frozen encoder alone: cosines of un-prompted features and class texts."""

from mmcl_jax.methods.base import Method, aligned
from mmcl_jax.models import Model


def zero_shot(model: Model) -> Method:
    """Returns the method that trains and remembers nothing.

    References:
        Radford et al., Learning Transferable Visual Models From Natural Language
        Supervision, 2021.
    """
    method = aligned(
        model,
        init=lambda key, model: ({}, {}),
        embed=lambda params, context, batch: batch.query,
        train_label_space="task",
    )
    return method._replace(trains=False, needs_inputs=False)
