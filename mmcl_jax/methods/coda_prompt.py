"""CODA-Prompt: a prefix is a sum of components, weighted by attention to the query."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mmcl_jax.fields import Count, NonNegative
from mmcl_jax.methods import pool, stage_slots
from mmcl_jax.methods.base import Common, Features, Method, Pass, aligned
from mmcl_jax.methods.sharing import routed
from mmcl_jax.models.adapters import Adapter, prefix
from mmcl_jax.models.injection import Injection, Prefix
from mmcl_jax.models.model import Model
from mmcl_jax.models.specs import TowerSpec
from mmcl_jax.ops import losses
from mmcl_jax.types import (
    Batch,
    Capacity,
    Context,
    Key,
    Memory,
    Metrics,
    Params,
    PyTree,
)


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of CODA-Prompt; the defaults are the paper's.

    Attributes:
        components_per_stage: Components of a tower that each stage adds; the paper's
            100 are divided over its 10 tasks, whose number it must know.
        length: Number of keys, and of values, of a component; the paper's 8 counts
            both.
        layers: Number of blocks with a prefix, from the first.
        orthogonality: Weight of the penalty; the published code's default is 0.
    """

    components_per_stage: Count = 10
    length: Count = 4
    layers: Count = 5
    orthogonality: NonNegative = 0.1


def make(model: Model, options: Options, common: Common) -> Method:
    """Returns CODA-Prompt.

    In each of the first blocks, component k has a prefix `p_k`, an attention vector
    `A_k` and a key `K_k`; with the frozen query q, the prefix of a sample is

        p = sum_k cos(q ⊙ A_k, K_k) p_k
        loss = CE(s z · u_c) + orthogonality sum_(X in K, A, p) mean((X Xᵀ - I)²).

    A stage trains its own components, which start orthonormal to the earlier ones of
    its group; the earlier ones take part and stay as they are. A sample uses the
    components of all stages that it may use.

    Deviation: vectors that cannot be orthogonal, because earlier ones span the space,
    start as unit vectors in their drawn direction. The head is the class texts,
    embedded once, frozen; only samples have prompts.

    References:
        Smith et al., CODA-Prompt: COntinual Decomposed Attention-based Prompting for
        Rehearsal-Free Continual Learning, CVPR 2023.
    """
    per_stage = options.components_per_stage
    component = _component(options, model.spec.embedding)
    sharing = common.sharing

    def init(key: Key, room: Capacity) -> tuple[Params, Memory]:
        stacks = stage_slots.init_slots(key, model, component, room.stages, per_stage)
        return stacks, {"met": stage_slots.init(model, room.stages)}

    def usable(context: Context, batch: Batch) -> Bool[Array, "b s"]:
        met = context.memory["met"]
        of_stage = stage_slots.visible(model, sharing, met, context, batch)
        return jnp.repeat(of_stage, per_stage, axis=1)

    def inject(params: Params, context: Context, batch: Batch) -> tuple[Pass, ...]:
        stack = params[model.tower_of(batch.modality)]
        injection = component.blend(
            stack,
            pool.soft_attention(
                batch.query,
                stack["attention"],
                stack["component_keys"],
                usable(context, batch),
            ),
        )
        return (Pass(injection),)

    plain = aligned(model, init, common.label_space, inject)

    def loss(
        params: Params, context: Context, batch: Batch, features: Features, key: Key
    ) -> tuple[Float[Array, ""], Metrics]:
        value, metrics = plain.loss(params, context, batch, features, key)
        if options.orthogonality == 0:
            return value, metrics
        vectors = _vectors(params[model.tower_of(batch.modality)])
        # padding may be of any group
        real = batch.weight[:, None] > 0
        used = (usable(context, batch) & real).any(axis=0)
        penalty = sum(
            jax.vmap(orthogonality_penalty, (1, None))(x, used).sum()
            for x in vectors.values()
        )
        # as a mean over samples, so that a batch of padding has no penalty
        penalty = losses.weighted_mean(
            jnp.broadcast_to(jnp.asarray(penalty), batch.weight.shape), batch.weight
        )
        return value + options.orthogonality * penalty, metrics | {
            "orthogonality": penalty
        }

    def trainable(params: Params, context: Context) -> PyTree:
        return stage_slots.trainable_slots(model, context, params, per_stage)

    def begin_task(params: Params, context: Context, key: Key) -> tuple[Params, Memory]:
        del key
        met = context.memory["met"]
        begun = {}
        for tower, stack in params.items():
            now = stage_slots.of_tower_now(model, tower, context, len(met))
            earlier = stage_slots.previous(model, tower, sharing, met, context)
            old, new = (jnp.repeat(x, per_stage) for x in (earlier, now))
            begun[tower] = _orthonormal_start(stack, old, new)
        met = stage_slots.meet(model, met, context)
        return begun, context.memory | {"met": met}

    method = plain._replace(loss=loss, trainable=trainable, begin_task=begin_task)
    return routed(method, model, sharing)


def orthogonality_penalty(
    rows: Float[Array, "s n"], used: Bool[Array, " s"]
) -> Float[Array, ""]:
    """Returns `mean((X Xᵀ - I)²)` over the used rows X; 0 if there are none.

    >>> rows = jnp.array([[1.0, 0], [1, 1]])
    >>> float(orthogonality_penalty(rows, jnp.array([True, True])))
    0.75
    """
    both = used[:, None] & used[None, :]
    square = jnp.where(both, rows @ rows.T - jnp.eye(len(rows)), 0.0) ** 2
    return square.sum() / jnp.maximum(both.sum(), 1)


def gram_schmidt(
    rows: Float[Array, "s n"], old: Bool[Array, " s"], new: Bool[Array, " s"]
) -> Float[Array, "s n"]:
    """Returns the rows with the new ones orthonormal, and orthogonal to the old ones.

    The old ones may stand at any angle; rows that are neither stay as they are. A new
    row within the span of those before it is scaled to length 1.

    Args:
        rows: Rows, old ones before new ones.
        old: Mask of the rows that new ones become orthogonal to.
        new: Mask of the rows that are changed.
    """

    def add(basis: Array, inputs: tuple[Array, Array]) -> tuple[Array, Array]:
        index, taken = inputs
        unit = losses.unit_norm(rows[index])
        rest = unit
        # twice, since the first pass leaves rounding errors along the basis
        for _ in range(2):
            along = jnp.matmul(basis, rest, precision="highest")
            rest = rest - jnp.matmul(along, basis, precision="highest")
        length = jnp.linalg.norm(rest)
        independent = length > 1e-3
        rest = jnp.where(independent, rest / jnp.maximum(length, 1e-3), 0.0)
        basis = basis.at[index].set(jnp.where(taken, rest, 0.0))
        return basis, jnp.where(independent, rest, unit)

    start = jnp.zeros_like(rows)
    _, orthonormal = jax.lax.scan(add, start, (jnp.arange(len(rows)), old | new))
    return jnp.where(new[:, None], orthonormal, rows)


def _component(options: Options, query_width: int) -> Adapter:
    """Returns a prefix with an attention vector and a key in each of its blocks."""
    plain = prefix(options.length, options.layers)

    def init(key: Key, spec: TowerSpec) -> PyTree:
        keys = jax.random.split(key, 3)
        shape = (min(options.layers, spec.adapted_layers), query_width)
        return plain.init(keys[0], spec) | {
            "attention": jax.random.normal(keys[1], shape),
            "component_keys": jax.random.normal(keys[2], shape),
        }

    def blend(stack: PyTree, weights: Float[Array, "b l s"]) -> Injection:
        keys, values = (
            jnp.einsum("bls,slpw->blpw", weights, stack[name])
            for name in ("keys", "values")
        )
        return Injection(prefixes=(Prefix(keys, values),))

    return Adapter(init, blend)


def _vectors(stack: PyTree) -> dict[str, Float[Array, "s l n"]]:
    """Returns what is to be orthogonal: keys, attention vectors, whole prefixes."""
    both = jnp.concatenate([stack["keys"], stack["values"]], axis=2)
    return {
        "component_keys": stack["component_keys"],
        "attention": stack["attention"],
        "prefix": both.reshape(*both.shape[:2], -1),
    }


def _orthonormal_start(
    stack: PyTree, old: Bool[Array, " s"], new: Bool[Array, " s"]
) -> PyTree:
    orthonormal = {
        name: jax.vmap(gram_schmidt, (1, None, None), 1)(x, old, new)
        for name, x in _vectors(stack).items()
    }
    slots, layers, length, width = stack["keys"].shape
    both = orthonormal.pop("prefix").reshape(slots, layers, 2 * length, width)
    keys, values = jnp.split(both, 2, axis=2)
    return orthonormal | {"keys": keys, "values": values}
