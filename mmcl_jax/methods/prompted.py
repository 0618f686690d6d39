"""Adapters in a frozen tower: the machinery of every prompt-based method.

Params hold one stack of adapters a tower, `{tower: adapter [s ...]}`, because towers
may differ in width; a slot `s` of the stack is one modality of that tower, or the one
slot that all of them share.
"""

import jax
from jaxtyping import Array, Float

from mmcl_jax.methods.sharing import num_groups
from mmcl_jax.models import Model
from mmcl_jax.models.adapters import Adapter
from mmcl_jax.options import Sharing
from mmcl_jax.types import Batch, Context, Key, Params, PyTree


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
    return model.embed(context.frozen, batch.inputs, injection)


def count_parameters(tree: PyTree) -> int:
    """Returns the number of scalars in `tree`."""
    return sum(leaf.size for leaf in jax.tree.leaves(tree))
