"""The frozen encoder alone: cosines of un-prompted features and class texts."""

from mmcl_jax.methods.base import Common, Method, aligned, frozen_query
from mmcl_jax.models.model import Model


def make(model: Model, options: None, common: Common) -> Method:
    """Returns the method that trains and remembers nothing.

    References:
        Radford et al., Learning Transferable Visual Models From Natural Language
        Supervision, 2021.
    """
    del options, common
    method = aligned(model, lambda key, room: ({}, {}), "task", embed=frozen_query)
    return method._replace(trains=False, needs_inputs=False)
