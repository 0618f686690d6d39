"""One slot per stage: which one is trained, and which ones a sample may use.

Sharing decides the second: with a group per modality, a sample may use the stages that
had its group's modality; else all stages that had a modality of its tower.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from mmcl_jax.fields import Sharing
from mmcl_jax.methods.base import modalities_now, scores_from_logits
from mmcl_jax.methods.sharing import (
    SHARED,
    along_slots,
    by_group,
    group_weights,
    init_groups,
)
from mmcl_jax.models.adapters import Adapter
from mmcl_jax.models.model import Model
from mmcl_jax.types import (
    Batch,
    Classes,
    Context,
    Key,
    Params,
    Prediction,
    PyTree,
)

Met = Bool[Array, "t m"]


def init_slots(
    key: Key, model: Model, adapter: Adapter, stages: int, slots_of_stage: int = 1
) -> Params:
    """Returns a stack of adapters for each tower; slots of a stage are adjacent."""
    return init_groups(key, model, adapter, SHARED, stages * slots_of_stage)


def init(model: Model, stages: int) -> Met:
    """Returns the table of modalities that each stage had, empty before the first."""
    return jnp.zeros((stages, len(model.modalities)), bool)


def meet(model: Model, met: Met, context: Context) -> Met:
    """Returns `met` with the modalities of the current stage."""
    return met.at[context.task].set(modalities_now(model, context.classes))


def of_tower_now(
    model: Model, tower: str, context: Context, stages: int
) -> Bool[Array, " t"]:
    """Returns a mask of the current stage, empty if it does not use the tower."""
    used = modalities_now(model, context.classes)[np.asarray(model.members(tower))]
    return (jnp.arange(stages) == context.task) & used.any()


def visible(
    model: Model, sharing: Sharing, met: Met, context: Context, batch: Batch
) -> Bool[Array, "b t"]:
    """Returns a mask of the stages whose slots each sample may use."""
    groups = group_weights(model, sharing, context, batch)
    of_group = by_group(model, model.tower_of(batch.modality), sharing, met)
    return groups @ of_group.T.astype(groups.dtype) > 0


def within(
    prediction: Prediction,
    chosen: Int[Array, " b"],
    classes: Bool[Array, "t C"],
    known: Classes,
) -> Prediction:
    """Returns a prediction in which classes of the chosen stage win.

    The logits of the others are lowered by just enough, and keep their order, so that
    the best answer in a label space without classes of the stage stays the best.

    Args:
        prediction: Prediction over all classes.
        chosen: Stage of each sample [b].
        classes: Which classes each stage had [t, C].
        known: Class slots of the stream.
    """
    logits, limits = prediction.logits, jnp.finfo(prediction.logits.dtype)
    highest = jnp.where(known.seen, logits, limits.min).max(-1, keepdims=True)
    lowest = jnp.where(known.seen, logits, limits.max).min(-1, keepdims=True)
    # one more than the range, so that equal logits fall below as well
    lowered = logits - (highest - lowest + 1)
    logits = jnp.where(classes[chosen], logits, lowered)
    number = prediction.modality.shape[-1]
    return Prediction(logits, scores_from_logits(logits, known, number))


def own(context: Context, batch: Batch) -> Int[Array, " b"]:
    """Returns the index of the current stage for each sample."""
    return jnp.broadcast_to(context.task, batch.label.shape)


def previous(
    model: Model, tower: str, sharing: Sharing, met: Met, context: Context
) -> Bool[Array, " t"]:
    """Returns a mask of earlier stages that share a group of the tower with it."""
    now = by_group(model, tower, sharing, modalities_now(model, context.classes))
    related = (by_group(model, tower, sharing, met) & now).any(-1)
    return related & (jnp.arange(len(met)) < context.task)


def copy_previous(
    model: Model, stacks: PyTree, sharing: Sharing, met: Met, context: Context
) -> PyTree:
    """Returns stacks in which the stage's slot starts as a copy of the last `previous`.

    Without a previous stage, the slot stays as it was drawn.
    """

    def of_tower(tower: str) -> PyTree:
        earlier = previous(model, tower, sharing, met, context)
        last = jnp.where(earlier, jnp.arange(len(met)), -1).max()
        # a traced choice: without a previous stage the slot is copied onto itself
        source = jnp.where(last < 0, context.task, last)
        return jax.tree.map(lambda x: x.at[context.task].set(x[source]), stacks[tower])

    return {tower: of_tower(tower) for tower in stacks}


def trainable_slots(
    model: Model, context: Context, stacks: PyTree, slots_of_stage: int = 1
) -> PyTree:
    """Returns 1 for the stage's slots of stacks `{tower: leaves [s ...]}`, else 0.

    A tower that none of the stage's modalities uses stays as it is.
    """

    def of_tower(tower: str) -> PyTree:
        stages = len(jax.tree.leaves(stacks[tower])[0]) // slots_of_stage
        own = of_tower_now(model, tower, context, stages).astype(jnp.float32)
        return along_slots(stacks[tower], jnp.repeat(own, slots_of_stage))

    return {tower: of_tower(tower) for tower in stacks}
