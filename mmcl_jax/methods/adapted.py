"""Adapters in a frozen tower: the machinery of every prompt-based method.

Params hold one stack of adapters a tower, `{tower: adapter [s ...]}`, because towers
may differ in width; a slot `s` of the stack is one modality of that tower, or the one
slot that all of them share.
"""

from collections.abc import Callable

from jaxtyping import Array, Float, Int

from mmcl_jax.methods import pool
from mmcl_jax.methods.base import Features, LabelSpace, Method, Pass, aligned
from mmcl_jax.models.adapters import Adapter
from mmcl_jax.models.injection import Injection
from mmcl_jax.models.model import Model
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


def adapted_pass(
    model: Model,
    adapter: Adapter,
    stacks: PyTree,
    weights: Float[Array, "b s"],
    batch: Batch,
) -> Pass:
    """Returns the pass through the tower with its slots blended per sample.

    Args:
        model: The frozen encoder.
        adapter: The kind of adapter in `stacks`.
        stacks: One stack of adapters per tower.
        weights: Weights of the slots in the stack of the batch's tower.
        batch: Samples of one modality.
    """
    return Pass(adapter.blend(stacks[model.tower_of(batch.modality)], weights))


def key_pulled(
    model: Model,
    init: Callable[[Key, Capacity], tuple[Params, Memory]],
    choose: Callable[..., tuple[Float[Array, "b s"], Int[Array, "b k"]]],
    injection: Callable[..., Injection],
    key_pull: float,
    train_label_space: LabelSpace,
) -> Method:
    """Returns the aligned method of prompts that are chosen by keys.

    `loss = CE - key_pull mean_b sum_(chosen k) cos(q_b, key_k)`.

    Args:
        model: The frozen encoder.
        init: Field `init` of the method.
        choose: Function `(params, context, batch)` -> cosines with all keys, and the
            chosen slots.
        injection: Function `(params, context, batch, chosen)` -> injection.
        key_pull: Weight of the second term.
        train_label_space: Classes that the cross-entropy is over.
    """

    def inject(params: Params, context: Context, batch: Batch) -> tuple[Pass, ...]:
        _, chosen = choose(params, context, batch)
        return (Pass(injection(params, context, batch, chosen)),)

    plain = aligned(model, init, train_label_space, inject)

    def loss(
        params: Params, context: Context, batch: Batch, features: Features, key: Key
    ) -> tuple[Float[Array, ""], Metrics]:
        value, metrics = plain.loss(params, context, batch, features, key)
        # recomputed: the choice made in `inject` is not part of the features
        scores, chosen = choose(params, context, batch)
        distance = pool.key_distance(scores, chosen, batch.weight)
        return value + key_pull * distance, metrics | {"key_distance": distance}

    return plain._replace(loss=loss)
