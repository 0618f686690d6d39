"""Online elastic weight consolidation of the adapters."""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from mmcl_jax.fields import NonNegative, Share
from mmcl_jax.methods.base import Common, Features, Method, forward, label_space
from mmcl_jax.methods.sequential import sequential
from mmcl_jax.methods.wrappers import with_anchor, with_penalty
from mmcl_jax.models.model import Model
from mmcl_jax.ops import fisher, losses, trees
from mmcl_jax.types import Batch, Capacity, Context, Key, Memory, Params


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of elastic weight consolidation.

    Attributes:
        weight: Weight λ of the penalty.
        decay: Factor γ of the old Fisher information with each task.
        fisher: Estimate of the Fisher information: `true`, with labels drawn from the
            model; `empirical`, with the given labels; `batch`, the square of each
            batch's mean gradient, as in a widely used library, which is smaller by
            about the size of the batch.
    """

    weight: NonNegative = 100.0
    decay: Share = 1.0
    fisher: Literal["true", "empirical", "batch"] = "true"


def make(model: Model, options: Options, common: Common) -> Method:
    """Returns sequential tuning with a quadratic penalty around the last adapters.

    `loss = CE + λ/2 sum_i F_i (θ_i - θ*_i)²`, with θ* the adapters before the task and
    `F <- γ F + mean over the task's samples of (∂ log p(y | x) / ∂θ)²`.

    References:
        J. Kirkpatrick et al., "Overcoming catastrophic forgetting in neural networks",
        PNAS 2017.
        J. Schwarz et al., "Progress & Compress", ICML 2018: online.
    """
    method = sequential(model, common)

    def init(key: Key, room: Capacity) -> tuple[Params, Memory]:
        params, memory = method.init(key, room)
        return params, memory | {
            "fisher": jax.tree.map(jnp.zeros_like, params),
            "decay": jnp.ones(()),
            "samples": jnp.zeros(()),
        }

    def prepare(params: Params, context: Context, batch: Batch, key: Key) -> Memory:
        memory = method.prepare(params, context, batch, key)
        return memory | {"samples": memory["samples"] + batch.weight.sum()}

    def begin_task(params: Params, context: Context, key: Key) -> tuple[Params, Memory]:
        params, memory = method.begin_task(params, context, key)
        return params, memory | {"decay": jnp.asarray(options.decay, jnp.float32)}

    def labels(
        params: Params, context: Context, batch: Batch, features: Features, key: Key
    ) -> Array:
        if options.fisher != "true":
            return batch.label
        logits = method.predict(params, context, batch, features).logits
        allowed = label_space(context.classes, batch.hint, common.label_space)
        return _draw_labels(losses.mask_logits(logits, allowed), batch.id, key)

    def observe(
        params: Params, context: Context, batch: Batch, features: Features, key: Key
    ) -> Memory:
        memory = context.memory
        drawn = labels(params, context, batch, features, key)
        batch = dataclasses.replace(batch, label=drawn)

        # gradients reach the adapters through the tower, so `features` cannot be reused
        def of_batch(params: Params, batch: Batch) -> Array:
            features = forward(method, model, params, context, batch)
            return method.loss(params, context, batch, features, key)[0]

        def of_row(params: Params, row: Batch) -> Array:
            return of_batch(params, jax.tree.map(lambda x: x[None], row))

        if options.fisher == "batch":
            gradient = jax.grad(of_batch)(params, batch)
            squares = jax.tree.map(
                lambda g: batch.weight.sum() * jnp.square(g), gradient
            )
        else:
            squares = fisher.squared_gradients(of_row, params, batch, batch.weight)
        # the first batch that is not all padding decays the old information, once
        there = jnp.any(batch.weight > 0)
        decay = jnp.where(there, memory["decay"], 1.0)
        samples = jnp.maximum(memory["samples"], 1)
        updated = jax.tree.map(
            lambda old, new: decay * old + new / samples, memory["fisher"], squares
        )
        left = jnp.where(there, 1.0, memory["decay"])
        return memory | {"fisher": updated, "decay": left}

    def end_task(params: Params, context: Context, key: Key) -> tuple[Params, Memory]:
        params, memory = method.end_task(params, context, key)
        return params, memory | {"samples": jnp.zeros(())}

    consolidated = method._replace(
        init=init,
        prepare=prepare,
        begin_task=begin_task,
        observe=observe,
        end_task=end_task,
        observes=True,
    )
    return with_anchor(
        with_penalty(
            consolidated,
            lambda params, context: trees.quadratic_penalty(
                params, context.memory["before"], context.memory["fisher"]
            ),
            options.weight,
        )
    )


def _draw_labels(logits: Array, id: Int[Array, " b"], key: Key) -> Int[Array, " b"]:
    """Draws labels keyed by sample id, whatever the sample's place in the batch."""
    draw = jax.vmap(
        lambda i, row: jax.random.categorical(jax.random.fold_in(key, i), row)
    )
    return draw(id, logits).astype(jnp.int32)
