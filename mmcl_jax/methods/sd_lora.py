"""SD-LoRA: low-rank updates of each stage, with magnitudes that stay trainable."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from mmcl_jax.fields import Count, Positive
from mmcl_jax.methods import stage_slots
from mmcl_jax.methods.adapted import adapted_pass
from mmcl_jax.methods.base import Common, Method, Pass, aligned
from mmcl_jax.methods.sharing import along_slots, routed
from mmcl_jax.models import adapters
from mmcl_jax.models.injection import LowRank
from mmcl_jax.models.model import Model
from mmcl_jax.types import Batch, Capacity, Context, Key, Memory, Params, PyTree


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of SD-LoRA; the defaults are those of the published code.

    Attributes:
        rank: Rank of the update of each stage.
        magnitude: Magnitude of every update when a stage begins.
    """

    rank: Count = 10
    magnitude: Positive = 0.8


def make(model: Model, options: Options, common: Common) -> Method:
    """Returns SD-LoRA.

    In the stages `1 ... t` of a sample's group, a frozen map W becomes

        W + sum_(k < t) a_k D_k U_k / (|D_k| |U_k|) + a_t D_t U_t

    with Frobenius norms. A stage trains its own update and all magnitudes a, which
    start anew; the directions of earlier updates stay. So a sample needs neither the
    identity of its task nor a second pass.

    Deviation: the updates, and their initial values, are those of all low-rank adapters
    here, of the whole qkv map and the MLP's first map instead of queries and values.
    The optimizer, which the magnitudes share, is that of all methods, and the head is
    the class texts. An update becomes a unit direction when the next stage of its group
    begins. Stages of several modalities, which no stream but the joined one has, would
    share a slot.

    References:
        Y. Wu et al., "SD-LoRA: Scalable Decoupled Low-Rank Adaptation for Class
        Incremental Learning", ICLR 2025.
    """
    adapter, sharing = adapters.low_rank(options.rank), common.sharing

    def init(key: Key, room: Capacity) -> tuple[Params, Memory]:
        updates = stage_slots.init_slots(key, model, adapter, room.stages)
        start = jnp.full(room.stages, options.magnitude, jnp.float32)
        params = {"updates": updates, "magnitudes": {name: start for name in updates}}
        return params, {"met": stage_slots.init(model, room.stages)}

    def inject(params: Params, context: Context, batch: Batch) -> tuple[Pass, ...]:
        usable = stage_slots.visible(
            model, sharing, context.memory["met"], context, batch
        )
        tower = model.tower_of(batch.modality)
        weights = usable * params["magnitudes"][tower]
        # what no row uses is left out: answers are kept while what is injected stays
        stack = params["updates"][tower]
        used = along_slots(stack, usable.any(0).astype(jnp.float32))
        stack = jax.tree.map(lambda x, m: jnp.where(m > 0, x, 0), stack, used)
        return (adapted_pass(model, adapter, {tower: stack}, weights, batch),)

    def earlier(tower: str, context: Context) -> Bool[Array, " t"]:
        met = context.memory["met"]
        return stage_slots.previous(model, tower, sharing, met, context)

    def trainable(params: Params, context: Context) -> PyTree:
        def magnitudes(tower: str, values: Array) -> Array:
            own = stage_slots.of_tower_now(model, tower, context, len(values))
            return (own | earlier(tower, context)).astype(jnp.float32)

        return {
            "updates": stage_slots.trainable_slots(model, context, params["updates"]),
            "magnitudes": {
                tower: magnitudes(tower, values)
                for tower, values in params["magnitudes"].items()
            },
        }

    def begin_task(params: Params, context: Context, key: Key) -> tuple[Params, Memory]:
        del key

        def renewed(tower: str) -> tuple[PyTree, Array]:
            done, stack = earlier(tower, context), params["updates"][tower]
            values = params["magnitudes"][tower]
            mask = along_slots(stack, done.astype(jnp.float32))
            unit = {name: direction(update) for name, update in stack.items()}
            updates = jax.tree.map(
                lambda m, new, old: jnp.where(m > 0, new, old), mask, unit, stack
            )
            return updates, jnp.where(done, options.magnitude, values)

        new = {tower: renewed(tower) for tower in params["updates"]}
        params = {
            "updates": {tower: updates for tower, (updates, _) in new.items()},
            "magnitudes": {tower: values for tower, (_, values) in new.items()},
        }
        met = stage_slots.meet(model, context.memory["met"], context)
        return params, context.memory | {"met": met}

    method = aligned(model, init, common.label_space, inject)._replace(
        trainable=trainable, begin_task=begin_task
    )
    return routed(method, model, sharing)


def direction(update: LowRank) -> LowRank:
    """Returns an update whose factors' Frobenius norms have the product 1.

    An update that is zero, or has that product already, stays as it is.

    Args:
        update: Updates of a stack of slots, `[s l fan_in r]` and `[s l r fan_out]`.
    """
    square = jnp.square(update.down).sum((-2, -1)) * jnp.square(update.up).sum((-2, -1))
    norm = jnp.sqrt(jnp.where(square > 0, square, 1))
    return update._replace(up=update.up / norm[..., None, None])
