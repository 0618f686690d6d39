"""Adapters tuned on one task after another, with nothing against forgetting."""

from mmcl_jax.methods.adapted import adapted_pass
from mmcl_jax.methods.base import Common, Method, Pass, Penalty, aligned
from mmcl_jax.methods.class_context import with_class_context
from mmcl_jax.methods.sharing import (
    group_weights,
    init_groups,
    routed,
    trainable_groups,
)
from mmcl_jax.models.model import Model
from mmcl_jax.types import Batch, Context, PyTree

LEARNS_CLASS_CONTEXT = True


def grouped_pass(
    model: Model, common: Common, stacks: PyTree, context: Context, batch: Batch
) -> Pass:
    """Returns the pass in which each sample has the adapter of its group."""
    weights = group_weights(model, common.sharing, context, batch)
    return adapted_pass(model, common.adapter, stacks, weights, batch)


def sequential(model: Model, common: Common, penalty: Penalty | None = None) -> Method:
    """Returns sequential tuning of one adapter per group.

    Modalities of different towers cannot share, since the widths differ. On the
    joined stream this is the joint upper bound. `methods.wrappers` builds other methods
    on it; `penalty` is a term of their loss that reads the tower's outputs.
    """
    method = aligned(
        model,
        lambda key, room: (
            init_groups(key, model, common.adapter, common.sharing),
            {},
        ),
        common.label_space,
        lambda params, context, batch: (
            grouped_pass(model, common, params, context, batch),
        ),
        penalty=penalty,
    )
    # without this mask weight decay would change the groups of other modalities
    method = method._replace(
        trainable=lambda params, context: trainable_groups(
            model, common.sharing, context, params
        )
    )
    return routed(method, model, common.sharing)


def make(model: Model, options: None, common: Common) -> Method:
    """Returns `sequential`, with learnt words in front of class names if configured."""
    del options
    method = sequential(model, common)
    if common.class_context is None:
        return method
    return with_class_context(method, model, common.class_context, common.sharing)
