"""The frozen encoder alone: cosines of un-prompted features and class texts."""

from mmcl_jax.methods.base import Common, Method, text_logits
from mmcl_jax.methods.heads import head_method
from mmcl_jax.models.model import Model


def make(model: Model, options: None, common: Common) -> Method:
    """Returns the method that trains nothing, and remembers no more than its router.

    References:
        Radford et al., Learning Transferable Visual Models From Natural Language
        Supervision, 2021.
    """
    del options
    return head_method(
        model,
        common.sharing,
        lambda key, room: ({}, {}),
        lambda params, context, batch, features: text_logits(
            batch.query, context.classes, model.logit_scale
        ),
    )
