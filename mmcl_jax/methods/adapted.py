"""Adapters in a frozen tower: the machinery of every prompt-based method.

Params hold one stack of adapters a tower, `{tower: adapter [s ...]}`, because towers
may differ in width; a slot `s` of the stack is one modality of that tower, or the one
slot that all of them share.
"""

from collections.abc import Callable

import jax
from jaxtyping import Array, Float, Int

from mmcl_jax.fields import Sharing
from mmcl_jax.methods import pool
from mmcl_jax.methods.base import LabelSpace, Method, aligned, alignment
from mmcl_jax.methods.sharing import num_groups
from mmcl_jax.models import Model
from mmcl_jax.models.adapters import Adapter
from mmcl_jax.types import Batch, Context, Key, Memory, Metrics, Params, PyTree


def init_groups(
    key: Key, model: Model, adapter: Adapter, sharing: Sharing, slots_of_group: int = 1
) -> Params:
    """Returns a stack of adapters for each tower that the stream needs.

    Args:
        key: slots are drawn independently.
        model: which towers there are, and their shapes.
        adapter: the kind of adapter.
        sharing: who shares a group, see `methods.sharing`.
        slots_of_group: adapters of a group; its slots stand side by side.
    """
    params = {}
    for i, tower in enumerate(dict.fromkeys(model.towers)):
        slots = num_groups(model, tower, sharing) * slots_of_group
        keys = jax.random.split(jax.random.fold_in(key, i), slots)
        spec = model.spec.tower(tower)
        params[tower] = jax.vmap(lambda k, spec=spec: adapter.init(k, spec))(keys)
    return params


def adapted_features(
    model: Model,
    adapter: Adapter,
    stacks: PyTree,
    weights: Float[Array, "b s"],
    context: Context,
    batch: Batch,
) -> Float[Array, "b d"]:
    """Returns unit features of the tower with its slots blended per sample.

    Args:
        model: the frozen encoder.
        adapter: the kind of adapter in `stacks`.
        stacks: one stack of adapters a tower.
        weights: of each slot of the stack of the batch's tower.
        context: holds the frozen weights.
        batch: samples of one modality.
    """
    stack = stacks[model.tower_of(batch.modality)]
    injection = adapter.blend(stack, weights)
    return model.embed(context.frozen, batch.modality, batch.inputs, injection)


def key_pulled(
    model: Model,
    init: Callable[[Key, Model], tuple[Params, Memory]],
    choose: Callable[..., tuple[Float[Array, "b s"], Int[Array, "b k"]]],
    features: Callable[..., Float[Array, "b d"]],
    key_pull: float,
    train_label_space: LabelSpace,
) -> Method:
    """Returns the aligned method of prompts that are chosen by keys.

    `loss = CE - key_pull mean_b sum_(chosen k) cos(q_b, key_k)`.

    Args:
        model: the frozen encoder.
        init: of the method.
        choose: `(params, context, batch)` -> cosines with all keys, chosen slots.
        features: `(params, context, batch, chosen)` -> unit features.
        key_pull: weight of the second term.
        train_label_space: of the first.
    """

    def embed(params: Params, context: Context, batch: Batch) -> Float[Array, "b d"]:
        return features(params, context, batch, choose(params, context, batch)[1])

    def loss(
        params: Params, context: Context, batch: Batch, key: Key
    ) -> tuple[Float[Array, ""], Metrics]:
        del key
        scores, chosen = choose(params, context, batch)
        z = features(params, context, batch, chosen)
        value, metrics = alignment(model, z, context, batch, train_label_space)
        distance = pool.key_distance(scores, chosen, batch.weight)
        return value + key_pull * distance, metrics | {"key_distance": distance}

    return aligned(model, init, embed, train_label_space)._replace(loss=loss)
