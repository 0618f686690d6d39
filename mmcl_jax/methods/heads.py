"""Linear heads on frozen queries, one for all modalities or one for each.

A column of a head belongs to a class, and a class to a modality. So heads per modality
have no more columns than one head; they differ in the samples that a column is fitted
to. Scores of two modalities' heads need not be comparable: which modality a sample is
of is chosen by the router, see `evaluation.label_spaces`.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import cho_solve
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
from mmcl_jax.ops import gaussians
from mmcl_jax.ops import least_squares as statistics
from mmcl_jax.ops.gaussians import Gaussians
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

# `(memory, batch, features) -> inputs of a linear head`
HeadFeatures = Callable[[Memory, Batch, Features], Float[Array, "b width"]]
HeadLogits = Callable[[Params, Context, Batch, Features], Float[Array, "b C"]]
# that a ridge is chosen from, those of RanPAC's published code
_CANDIDATES = 10.0 ** np.arange(-8, 9)
# one of so many samples of a stage is held out to choose by
_HELD_OUT = 5


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
    logits: HeadLogits,
    **functions: Any,
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
        values = logits(params, context, batch, features)
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
    regularization: float | None,
    init_features: Callable[[Key], Memory] = lambda key: {},
    layer_blocks: int = 0,
    adapted: bool = False,
) -> Method:
    """Returns one-hot ridge regression on fixed features of the frozen encoder.

    Only the Gram matrix of each head and the class sums are remembered, so the heads
    after any order of tasks are those fitted to all data at once.

    Args:
        model: The encoder's static facts.
        sharing: Whether modalities share a head.
        width: Width of the features.
        features: Function that returns the inputs of the head.
        regularization: Ridge of the normal equations, relative to their mean diagonal.
            None: chosen anew in each stage, of the powers of ten from 1e-8 to 1e8, by
            the squared error on every fifth of the stage's samples of a fit to the
            others; one for all heads that the stage has samples of.
        init_features: Function that returns the part of the memory `features` reads.
        layer_blocks: Number of last blocks whose features `features` reads; 0: it reads
            none.
        adapted: Whether `features` reads the embedding of a pass through the tower, for
            which the caller provides, see `first_session`.

    References:
        M. D. McDonnell et al., "RanPAC: Random Projections and Pre-trained Models for
        Continual Learning", NeurIPS 2023, section 4.1: how the ridge is chosen.
    """
    chooses = regularization is None

    def init(key: Key, room: Capacity) -> tuple[Params, Memory]:
        empty = statistics.init(width, room.classes)
        to_choose = {"fitted": empty, "held_out": empty, "ridge": jnp.ones(())}
        return {}, init_features(key) | (to_choose if chooses else {}) | {
            "gram": jnp.zeros((num_heads(model, sharing), width, width)),
            "cross": jnp.zeros((width, room.classes)),
            "head": jnp.zeros((width, room.classes)),
            "stale": jnp.zeros(num_heads(model, sharing), bool),
            "jitter": jnp.zeros(num_heads(model, sharing)),
        }

    def accumulate(
        params: Params, context: Context, batch: Batch, given: Features, key: Key
    ) -> Memory:
        del params, key
        memory, own = context.memory, head_of(model, sharing, batch)
        x = features(memory, batch, given)
        y = jax.nn.one_hot(batch.label, memory["cross"].shape[1])
        # Gram matrices are per head, but a column of `cross` is that of a class; the
        # solve needs no count
        updated = statistics.update(
            statistics.Ridge(memory["gram"][own], memory["cross"], jnp.zeros(())),
            *(x, y, batch.weight),
        )
        met = jnp.any(batch.weight > 0)
        parted = _parted(memory, x, y, batch.weight) if chooses else {}
        return (
            memory
            | parted
            | {
                "gram": memory["gram"].at[own].set(updated.gram),
                "cross": updated.cross,
                "stale": memory["stale"].at[own].set(memory["stale"][own] | met),
            }
        )

    def end_task(params: Params, context: Context, key: Key) -> tuple[Params, Memory]:
        del key
        memory = context.memory
        if chooses:
            memory = memory | _chosen(memory)

        def solve(gram: Array, mine: Array) -> tuple[Array, Array]:
            cross = jnp.where(mine, memory["cross"], 0)
            sums = statistics.Ridge(gram, cross, jnp.zeros(()))
            if regularization is None:
                return statistics.solve(sums, memory["ridge"])
            return statistics.solve(sums, regularization * jnp.trace(gram) / width)

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
        lambda params, context, batch, given: (
            features(context.memory, batch, given) @ context.memory["head"]
        ),
        end_task=end_task,
        **_passes(accumulate, layer_blocks, adapted),
    )


def _parted(
    memory: Memory,
    x: Float[Array, "b width"],
    y: Float[Array, "b C"],
    weight: Float[Array, " b"],
) -> Memory:
    """Returns the statistics of a stage's fitted and held-out samples after a batch."""
    before = memory["fitted"].count + memory["held_out"].count
    held = (before + jnp.cumsum(weight > 0)) % _HELD_OUT == 0
    return {
        name: statistics.update(memory[name], x, y, jnp.where(held == part, weight, 0))
        for name, part in (("fitted", False), ("held_out", True))
    }


def _chosen(memory: Memory) -> Memory:
    """Returns the ridge that a stage's samples choose, and statistics of none."""
    parts = {name: memory[name] for name in ("fitted", "held_out")}
    candidates = jnp.asarray(_CANDIDATES, jnp.float32)
    ridge = statistics.chosen(parts["fitted"], parts["held_out"], candidates)
    # too few samples to hold any out
    ridge = jnp.where(parts["held_out"].count > 0, ridge, memory["ridge"])
    return jax.tree.map(jnp.zeros_like, parts) | {"ridge": ridge}


def _passes(
    accumulate: Callable[..., Memory], layer_blocks: int = 0, adapted: bool = False
) -> dict[str, Any]:
    """Returns the fields of a method that accumulates in one pass over a task."""
    if layer_blocks or adapted:
        return {
            "observe": accumulate,
            "observes": True,
            "layer_blocks": layer_blocks,
        }
    return {
        "prepare": lambda params, context, batch, key: accumulate(
            params, context, batch, Features(), key
        )
    }


def random_features(
    model: Model, width: int, draw: Callable[[Key, tuple[int, int]], Array]
) -> tuple[Callable[[Key], Memory], HeadFeatures]:
    """Returns the draw of a fixed matrix W, and the features `relu(z W)`.

    `z` is the embedding of a pass through the tower if there is one, else the query.
    """

    def init(key: Key) -> Memory:
        return {"projection": draw(key, (model.spec.embedding, width))}

    def features(
        memory: Memory, batch: Batch, given: Features
    ) -> Float[Array, "b width"]:
        z = given.embeddings[0] if given.embeddings else batch.query
        return jax.nn.relu(z @ memory["projection"])

    return init, features


# `(statistics, features, labels, weights, group) -> statistics`
Update = Callable[..., Gaussians]


def discriminant(
    model: Model,
    sharing: Sharing,
    width: int,
    features: HeadFeatures,
    update: Update,
    regularized: Callable[[Float[Array, "d d"]], Float[Array, "d d"]],
    init_features: Callable[[Key], Memory] = lambda key: {},
) -> Method:
    """Returns linear discriminant analysis of fixed features of the frozen queries.

    With the means `mu_c` and the precision `P` of a head, `x P mu_c - mu_c P mu_c / 2`;
    0 for a class without samples.

    Args:
        model: The encoder's static facts.
        sharing: Whether modalities share a head, and so a covariance.
        width: Width of the features.
        features: Function that returns the inputs of the head.
        update: Function that adds a batch to the Gaussians of one head, as
            `gaussians.update` does.
        regularized: Function of the scatter over the number of samples that returns the
            covariance.
        init_features: Function that returns the part of the memory `features` reads.
    """

    def init(key: Key, room: Capacity) -> tuple[Params, Memory]:
        heads = num_heads(model, sharing)
        return {}, init_features(key) | {
            "gaussians": gaussians.init(room.classes, heads, width),
            "head": jnp.zeros((width, room.classes)),
            "bias": jnp.zeros(room.classes),
            "jitter": jnp.zeros(heads),
        }

    def accumulate(
        params: Params, context: Context, batch: Batch, given: Features, key: Key
    ) -> Memory:
        del params, key
        memory, own = context.memory, head_of(model, sharing, batch)
        stats: Gaussians = memory["gaussians"]
        mine = columns(sharing, context.classes, own)
        # a head is a stream of its own: it counts its own samples alone
        alone = Gaussians(
            jnp.where(mine, stats.count, 0), stats.mean, stats.scatter[own : own + 1]
        )
        x = features(memory, batch, given)
        updated = update(alone, x, batch.label, batch.weight, 0)
        return memory | {
            "gaussians": Gaussians(
                jnp.where(mine, updated.count, stats.count),
                updated.mean,
                stats.scatter.at[own].set(updated.scatter[0]),
            )
        }

    def end_task(params: Params, context: Context, key: Key) -> tuple[Params, Memory]:
        del key
        memory = context.memory
        stats: Gaussians = memory["gaussians"]

        def renew(head: Array, part: tuple) -> tuple[Array, Array]:
            scatter, i = part
            mine = columns(sharing, context.classes, i)
            number = jnp.where(mine, stats.count, 0).sum()
            mean_scatter = scatter / jnp.maximum(number, 1)
            covariance = regularized((mean_scatter + mean_scatter.T) / 2)
            identity = jnp.eye(width)
            covariance = jnp.where(number > 0, covariance, identity)
            factor, jitter = gaussians.cholesky_with_jitter(covariance)
            white = cho_solve((factor, True), stats.mean.T)
            return jnp.where(mine, white, head), jitter

        parts = stats.scatter, jnp.arange(len(stats.scatter))
        head, jitter = jax.lax.scan(renew, memory["head"], parts)
        bias = -0.5 * jnp.sum(head * stats.mean.T, axis=0)
        return params, memory | {"head": head, "bias": bias, "jitter": jitter}

    return head_method(
        model,
        sharing,
        init,
        lambda params, context, batch, given: (
            features(context.memory, batch, given) @ context.memory["head"]
            + context.memory["bias"]
        ),
        end_task=end_task,
        **_passes(accumulate),
    )
