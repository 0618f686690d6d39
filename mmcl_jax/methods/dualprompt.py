"""DualPrompt: general prefixes in the first blocks, then an expert of each stage."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mmcl_jax.fields import Count, NonNegative, NonNegativeInt
from mmcl_jax.methods import pool, stage_slots
from mmcl_jax.methods.adapted import key_pulled
from mmcl_jax.methods.base import Common, Method
from mmcl_jax.methods.sharing import (
    draw_slots,
    group_weights,
    init_groups,
    routed,
    trainable_groups,
)
from mmcl_jax.models.adapters import Adapter, prefix
from mmcl_jax.models.injection import Injection, Prefix
from mmcl_jax.models.model import Model
from mmcl_jax.models.specs import TowerSpec
from mmcl_jax.ops import rngs
from mmcl_jax.types import Batch, Capacity, Context, Key, Memory, Params, PyTree


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of DualPrompt; the defaults are the paper's for CIFAR-100.

    Attributes:
        general_length: Number of keys and values of the general prefix of a block.
        general_layers: Number of blocks with it, from the first; at most all but one.
        expert_length: Number of keys and values of an expert's prefix of a block; 20
            for ImageNet-R in the paper.
        expert_layers: Number of blocks with it, after those of the general prefix.
        key_pull: Weight of the cosine of queries and their expert's key in the loss.
        reshape_bug: Whether the experts' prefixes are distributed over a batch as in
            PyTorch ports, which reshape (2, batch) to (batch, 2) without a transpose:
            a sample gets keys or values of two others. Published numbers of the ports
            depend on it; a prediction then depends on the rest of the batch.
    """

    general_length: Count = 5
    general_layers: NonNegativeInt = 2
    expert_length: Count = 5
    expert_layers: Count = 3
    key_pull: NonNegative = 1.0
    reshape_bug: bool = False


def make(model: Model, options: Options, common: Common) -> Method:
    """Returns DualPrompt with one general prefix per group and one expert per stage.

    A stage trains its own expert; a prediction takes, among the experts of the stages
    that the sample may use, the one whose key has the largest cosine with the frozen
    query. An expert starts as a copy of the previous one of its group.

        loss = CE(s z · u_c) - key_pull cos(q, key_stage)

    Deviation: a tower with fewer blocks than configured keeps at least one for the
    experts. The head is the class texts, embedded once, frozen; only samples have
    prompts.

    References:
        Wang et al., DualPrompt: Complementary Prompting for Rehearsal-free Continual
        Learning, ECCV 2022.
    """
    general, expert = _adapters(options)
    blend, sharing = general.blend, common.sharing

    def init(key: Key, room: Capacity) -> tuple[Params, Memory]:
        keys = jax.random.split(key, 3)
        experts = stage_slots.init_slots(keys[1], model, expert, room.stages)

        def draw_key(key: Key) -> Array:
            return 0.02 * jax.random.normal(key, (model.spec.embedding,))

        expert_keys = {
            tower: draw_slots(rngs.named(keys[2], tower), room.stages, draw_key)
            for tower in experts
        }
        params = {
            "general": init_groups(keys[0], model, general, sharing),
            "experts": experts,
            "expert_keys": expert_keys,
        }
        return params, {"met": stage_slots.init(model, room.stages)}

    def choose(
        params: Params, context: Context, batch: Batch
    ) -> tuple[Float[Array, "b t"], Int[Array, "b 1"]]:
        keys = params["expert_keys"][model.tower_of(batch.modality)]
        scores = pool.cosines(batch.query, keys)
        # in training the stage is known, and its key does not win yet
        if context.train:
            return scores, stage_slots.own(context, batch)[:, None]
        usable = stage_slots.visible(
            model, sharing, context.memory["met"], context, batch
        )
        return scores, pool.top_k(scores, usable, 1)

    def injection(
        params: Params, context: Context, batch: Batch, chosen: Int[Array, "b 1"]
    ) -> Injection:
        tower = model.tower_of(batch.modality)
        groups = group_weights(model, sharing, context, batch)
        always = blend(params["general"][tower], groups).prefixes
        weights = jax.nn.one_hot(chosen[:, 0], len(context.memory["met"]))
        (own,) = blend(params["experts"][tower], weights).prefixes
        if options.reshape_bug:
            own = reshaped_without_transpose(own)
        return Injection(prefixes=(*always, own))

    def trainable(params: Params, context: Context) -> PyTree:
        shared = trainable_groups(model, sharing, context, params["general"])
        of_stage = {
            name: stage_slots.trainable_slots(model, context, params[name])
            for name in ("experts", "expert_keys")
        }
        return of_stage | {"general": shared}

    def begin_task(params: Params, context: Context, key: Key) -> tuple[Params, Memory]:
        del key
        met = context.memory["met"]
        experts = stage_slots.copy_previous(
            model, params["experts"], sharing, met, context
        )
        met = stage_slots.meet(model, met, context)
        return params | {"experts": experts}, context.memory | {"met": met}

    method = key_pulled(
        model, init, choose, injection, options.key_pull, common.label_space
    )
    method = method._replace(trainable=trainable, begin_task=begin_task)
    return routed(method, model, sharing)


def reshaped_without_transpose(prefix: Prefix) -> Prefix:
    """Returns keys and values `(2, b)` read as `(b, 2)`, see `Options`.

    Of four samples, 0 gets the keys of 0 and 1, 1 those of 2 and 3, and 2 and 3 get
    values alone.
    """
    both = jnp.stack([prefix.keys, prefix.values])
    both = both.reshape(both.shape[1], 2, *both.shape[2:])
    return Prefix(both[:, 0], both[:, 1])


def _adapters(options: Options) -> tuple[Adapter, Adapter]:
    """Returns the general prefix and the expert's, cut to the depth of a tower."""

    def depth(spec: TowerSpec) -> int:
        return min(options.general_layers, spec.adapted_layers - 1)

    def init_general(key: Key, spec: TowerSpec) -> PyTree:
        return prefix(options.general_length, depth(spec)).init(key, spec)

    def init_expert(key: Key, spec: TowerSpec) -> PyTree:
        layers = min(options.expert_layers, spec.adapted_layers - depth(spec))
        return prefix(options.expert_length, layers).init(key, spec)

    blend = prefix(options.general_length, options.general_layers).blend
    return Adapter(init_general, blend), Adapter(init_expert, blend)
