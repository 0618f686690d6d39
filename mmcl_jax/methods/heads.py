"""Linear heads on frozen queries, one for all modalities or one for each.

A column of a head belongs to a class, and a class to a modality. So heads per modality
have no more columns than one head; they differ in the samples that a column is fitted
to. Scores of two modalities' heads need not be comparable: which modality a sample is
of is told by the router, see `evaluation.label_spaces`.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mmcl_jax.fields import Sharing
from mmcl_jax.methods.base import (
    Features,
    Method,
    aligned,
    frozen_query,
    scores_from_logits,
)
from mmcl_jax.methods.sharing import SHARED, routed
from mmcl_jax.models.model import Model
from mmcl_jax.ops import least_squares as statistics
from mmcl_jax.types import (
    Batch,
    Capacity,
    Classes,
    Context,
    Key,
    Memory,
    Params,
    Prediction,
)

# `(memory, batch) -> inputs of a linear head`
HeadFeatures = Callable[[Memory, Batch], Float[Array, "b width"]]


def num_heads(model: Model, sharing: Sharing) -> int:
    """Returns the number of heads."""
    return 1 if sharing == SHARED else len(model.modalities)


def head_of(model: Model, sharing: Sharing, batch: Batch) -> int:
    """Returns the head that learns from the batch."""
    return 0 if sharing == SHARED else model.modalities.index(batch.modality)


def columns(sharing: Sharing, classes: Classes, head: int | Array) -> Bool[Array, " C"]:
    """Returns the classes of a head."""
    everything = jnp.ones_like(classes.seen)
    return everything if sharing == SHARED else classes.modality == head


def head_method(
    model: Model,
    sharing: Sharing,
    init: Callable[[Key, Capacity], tuple[Params, Memory]],
    logits: Callable[[Params, Context, Batch], Float[Array, "b C"]],
    **functions: Callable,
) -> Method:
    """Returns a method on frozen queries that predicts `logits`, with its router.

    Nothing is trained unless `functions` has a `loss`, and no hint is read.

    Args:
        model: The encoder's static facts.
        sharing: Whether modalities share a head.
        init: Field `init` of the method.
        logits: Function that returns the logits of the head or heads over all classes.
        **functions: Other fields of the method.
    """

    def predict(
        params: Params, context: Context, batch: Batch, features: Features
    ) -> Prediction:
        del features
        values = logits(params, context, batch)
        return Prediction(
            values, scores_from_logits(values, context.classes, len(model.modalities))
        )

    frozen = aligned(model, init, "task", embed=frozen_query)
    method = frozen._replace(
        predict=predict, trains="loss" in functions, needs_inputs=False
    )
    method = routed(method._replace(**functions), model, sharing)
    return method._replace(uses_hint=False, hint_matters=None)


def closed_form(
    model: Model,
    sharing: Sharing,
    width: int,
    features: HeadFeatures,
    regularization: float,
    init_features: Callable[[Key], Memory] = lambda key: {},
) -> Method:
    """Returns one-hot ridge regression on fixed features of the frozen queries.

    Only the Gram matrix of each head and the class sums are remembered, so the heads
    after any order of tasks are those fitted to all data at once.

    Args:
        model: The encoder's static facts.
        sharing: Whether modalities share a head.
        width: Width of the features.
        features: Function that returns the inputs of the head.
        regularization: Ridge of the normal equations, relative to their mean diagonal.
        init_features: Function that returns the part of the memory `features` reads.
    """

    def init(key: Key, room: Capacity) -> tuple[Params, Memory]:
        return {}, init_features(key) | {
            "gram": jnp.zeros((num_heads(model, sharing), width, width)),
            "cross": jnp.zeros((width, room.classes)),
            "head": jnp.zeros((width, room.classes)),
            "stale": jnp.zeros(num_heads(model, sharing), bool),
            "jitter": jnp.zeros(num_heads(model, sharing)),
        }

    def prepare(params: Params, context: Context, batch: Batch, key: Key) -> Memory:
        del params, key
        memory, own = context.memory, head_of(model, sharing, batch)
        # Gram matrices are per head, but a column of `cross` is that of a class; the
        # solve needs no count
        updated = statistics.update(
            statistics.Ridge(memory["gram"][own], memory["cross"], jnp.zeros(())),
            features(memory, batch),
            jax.nn.one_hot(batch.label, memory["cross"].shape[1]),
            batch.weight,
        )
        met = jnp.any(batch.weight > 0)
        return memory | {
            "gram": memory["gram"].at[own].set(updated.gram),
            "cross": updated.cross,
            "stale": memory["stale"].at[own].set(memory["stale"][own] | met),
        }

    def end_task(params: Params, context: Context, key: Key) -> tuple[Params, Memory]:
        del key
        memory = context.memory

        def solve(gram: Array, mine: Array) -> tuple[Array, Array]:
            cross = jnp.where(mine, memory["cross"], 0)
            sums = statistics.Ridge(gram, cross, jnp.zeros(()))
            scale = jnp.trace(gram) / width
            return statistics.solve(sums, regularization * scale)

        def renew(head: Array, part: tuple) -> tuple[Array, Array]:
            gram, i, stale, before = part
            mine = columns(sharing, context.classes, i)
            # heads without new samples skip the solve
            solved, jitter = jax.lax.cond(
                stale, lambda: solve(gram, mine), lambda: (head, before)
            )
            return jnp.where(mine, solved, head), jitter

        heads = jnp.arange(len(memory["gram"]))
        parts = memory["gram"], heads, memory["stale"], memory["jitter"]
        head, jitter = jax.lax.scan(renew, memory["head"], parts)
        return params, memory | {
            "head": head,
            "jitter": jitter,
            "stale": jnp.zeros_like(memory["stale"]),
        }

    return head_method(
        model,
        sharing,
        init,
        lambda params, context, batch: (
            features(context.memory, batch) @ context.memory["head"]
        ),
        prepare=prepare,
        end_task=end_task,
    )


def random_features(
    model: Model, width: int
) -> tuple[Callable[[Key], Memory], HeadFeatures]:
    """Returns the draw of a fixed normal W, and the features `relu(q W)`.

    References:
        McDonnell et al., "RanPAC: Random Projections and Pre-trained Models for
        Continual Learning", NeurIPS 2023, section 4.
    """

    def init(key: Key) -> Memory:
        shape = (model.spec.embedding, width)
        return {"projection": jax.random.normal(key, shape)}

    def features(memory: Memory, batch: Batch) -> Float[Array, "b width"]:
        return jax.nn.relu(batch.query @ memory["projection"])

    return init, features
