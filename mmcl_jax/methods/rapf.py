"""RAPF: a linear map of frozen features towards class texts, fused after each stage."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mmcl_jax.fields import NonNegative, Share
from mmcl_jax.methods.base import (
    Common,
    Features,
    Method,
    text_logits,
)
from mmcl_jax.methods.heads import columns, head_method, head_of, num_heads
from mmcl_jax.models.model import Model
from mmcl_jax.ops import gaussians, losses, trees
from mmcl_jax.ops.gaussians import Gaussians
from mmcl_jax.types import (
    Batch,
    Capacity,
    Classes,
    Context,
    Key,
    Memory,
    Metrics,
    Params,
    PyTree,
)

# what is fused at every stage does not survive the shortened products of accelerators
_matmul = functools.partial(jnp.matmul, precision="highest")
# by which a draw must be nearer to its own class text than to a neighbour's
_MARGIN = 0.1


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of RAPF; the defaults are those of the published code for CIFAR-100.

    Attributes:
        draws: Draws from old classes for each sample of a batch.
        threshold: Distance of two class texts below which an old class and a new one
            are neighbours.
        least_new: Least share of the new map in each entry that is fused.
        shrinkage: Shrinkage of the covariances of classes.
    """

    draws: NonNegative = 0.4
    threshold: NonNegative = 0.55
    least_new: Share = 0.6
    shrinkage: Share = 0.0


def make(model: Model, options: Options, common: Common) -> Method:
    """Returns RAPF.

    One linear map A for each head takes frozen features q to `z = unit(q A)`, and the
    logits are cosines of z with the class texts. The loss of a batch is the
    cross-entropy over all seen classes of the head, a mean over the batch and draws
    from the Gaussians of old classes, and a term that keeps draws x of an old class i
    from each new neighbour j: the mean over such pairs of
    `relu(0.1 - z(x) u_i + z(x) u_j)`. After a stage the map is fused with the one
    before, see `fused`.

    Deviation: A starts as the identity instead of at random, so that training begins at
    the zero-shot answers; its nearly equal singular values leave the basis of the first
    fusions to what the stage before has changed. The optimizer is that of all methods.
    Features have unit norm, nothing is added to their covariances unless it is needed
    to factorise them, and `shrinkage` is that towards a multiple of the identity.
    A batch has a fixed number of draws from old classes, and as many from old classes
    with new neighbours, where the published code draws from two classes in turn and
    from each pair of neighbours. Classes of the stage are not drawn, also where they
    were met before. `train.label_space` is not read.

    References:
        L. Huang et al., "Class-Incremental Learning with CLIP: Adaptive Representation
        Adjustment and Parameter Fusion", ECCV 2024.
    """
    sharing, width = common.sharing, model.spec.embedding

    def init(key: Key, room: Capacity) -> tuple[Params, Memory]:
        del key
        maps = jnp.tile(jnp.eye(width), (num_heads(model, sharing), 1, 1))
        return {"map": maps}, {
            "before": trees.copy(maps),
            "features": gaussians.init(room.classes, room.classes, width),
            "neighbours": jnp.zeros(room.classes, bool),
            "met": jnp.zeros(len(maps), bool),
        }

    def logits(
        params: Params, context: Context, batch: Batch, features: Features
    ) -> Float[Array, "b C"]:
        del features
        values = jnp.zeros((batch.query.shape[0], len(context.classes.seen)))
        for head, mapped in enumerate(params["map"]):
            z = losses.unit_norm(batch.query @ mapped)
            own = text_logits(z, context.classes, model.logit_scale)
            values = jnp.where(columns(sharing, context.classes, head), own, values)
        return values

    def loss(
        params: Params, context: Context, batch: Batch, features: Features, key: Key
    ) -> tuple[Float[Array, ""], Metrics]:
        del features
        classes, memory = context.classes, context.memory
        own = head_of(model, sharing, batch)
        mine = classes.seen & columns(sharing, classes, own)
        old = mine & ~classes.of_task & (memory["features"].count > 0)
        number = max(1, round(options.draws * len(batch.label)))
        near_key, key = jax.random.split(key)

        stats: Gaussians = memory["features"]

        def mapped(features: Float[Array, "n d"]) -> Float[Array, "n d"]:
            return losses.unit_norm(features @ params["map"][own])

        def entropy(z: Array, label: Array, weight: Array) -> Float[Array, ""]:
            logits = text_logits(z, classes, model.logit_scale)
            return losses.cross_entropy(logits, label, weight, mine)

        value = entropy(mapped(batch.query), batch.label, batch.weight)
        # a batch of padding moves nothing
        there = (batch.weight > 0).any()
        x, label, weight = drawn(key, stats, old & there, number, options.shrinkage)
        share = jnp.where(weight.any(), options.draws / (1 + options.draws), 0)
        value = (1 - share) * value + share * entropy(mapped(x), label, weight)

        near = old & there & memory["neighbours"]
        x, label, weight = drawn(near_key, stats, near, number, options.shrinkage)
        new = mine & classes.of_task
        separation = hinge(
            mapped(x), label, weight, classes.text, new, options.threshold
        )
        return value + separation, {"cross_entropy": value, "separation": separation}

    def of_stage(classes: Classes) -> Bool[Array, " h"]:
        return jax.vmap(
            lambda head: (columns(sharing, classes, head) & classes.of_task).any()
        )(jnp.arange(num_heads(model, sharing)))

    def trainable(params: Params, context: Context) -> PyTree:
        del params
        now = of_stage(context.classes)
        return {"map": now[:, None, None].astype(jnp.float32)}

    def prepare(params: Params, context: Context, batch: Batch, key: Key) -> Memory:
        del params, key
        updated = gaussians.update(
            context.memory["features"],
            batch.query,
            batch.label,
            batch.weight,
            jnp.arange(len(context.classes.seen)),
        )
        return context.memory | {"features": updated}

    def begin_task(params: Params, context: Context, key: Key) -> tuple[Params, Memory]:
        del key
        classes = context.classes

        def has_new(part: tuple[Array, Array]) -> Bool[Array, ""]:
            text, modality = part
            near = _near(text[None], classes.text, options.threshold)[0]
            of_head = columns(sharing, classes, modality)
            return (near & of_head & classes.of_task).any()

        found = jax.lax.map(has_new, (classes.text, classes.modality))
        before = trees.copy(params["map"])
        return params, context.memory | {"before": before, "neighbours": found}

    def end_task(params: Params, context: Context, key: Key) -> tuple[Params, Memory]:
        del key
        memory, now = context.memory, of_stage(context.classes)

        def fuse(part: tuple[Array, Array, Array]) -> Array:
            again, before, after = part
            return jax.lax.cond(
                again, lambda: fused(before, after, options.least_new), lambda: after
            )

        parts = memory["met"] & now, memory["before"], params["map"]
        return {"map": jax.lax.map(fuse, parts)}, memory | {"met": memory["met"] | now}

    return head_method(
        model,
        sharing,
        init,
        logits,
        loss=loss,
        trainable=trainable,
        prepare=prepare,
        begin_task=begin_task,
        end_task=end_task,
    )


def drawn(
    key: Key,
    stats: Gaussians,
    of: Bool[Array, " C"],
    number: int,
    shrinkage: float,
) -> tuple[Float[Array, "n d"], Int[Array, " n"], Float[Array, " n"]]:
    """Returns draws from the Gaussians of classes chosen uniformly, with their classes.

    Their weights are 1, or 0 if there is no class to draw from.

    Args:
        key: Random key.
        stats: Statistics with a covariance of each class.
        of: Classes that are drawn from [C].
        number: Number of draws n.
        shrinkage: Shrinkage of the covariances.
    """
    choose, noise = jax.random.split(key)
    # by rank, so that it does not depend on the number of class slots
    total = of.sum()
    rank = jnp.floor(jax.random.uniform(choose, (number,)) * total)
    label = jnp.searchsorted(
        jnp.cumsum(of), jnp.minimum(rank, total - 1).astype(jnp.int32), side="right"
    )
    label = jnp.minimum(label, len(of) - 1).astype(jnp.int32)
    mean = stats.mean[label]

    def spread(own: Array, normal: Float[Array, " d"]) -> Float[Array, " d"]:
        alone = Gaussians(*(x[own][None] for x in stats))
        # anew for the few classes drawn, since factors of all would have to be stored
        covariance = gaussians.covariance(alone, shrinkage)
        return gaussians.cholesky_with_jitter(covariance)[0] @ normal

    x = mean + jax.vmap(spread)(label, jax.random.normal(noise, mean.shape))
    return x, label, jnp.full(number, of.any(), jnp.float32)


def hinge(
    z: Float[Array, "n d"],
    label: Int[Array, " n"],
    weight: Float[Array, " n"],
    text: Float[Array, "C d"],
    new: Bool[Array, " C"],
    threshold: float,
) -> Float[Array, ""]:
    """Returns the mean over draws and new neighbours j of `relu(0.1 - z u_i + z u_j)`.

    Args:
        z: Mapped draws of unit norm.
        label: Old class i of each draw.
        weight: Weight of each draw.
        text: Texts u of all classes.
        new: Which classes are new.
        threshold: Distance of class texts below which they are neighbours.
    """
    own = text[label]
    pairs = _near(own, text, threshold) & new
    gap = z @ text.T - jnp.sum(z * own, axis=-1, keepdims=True)
    weights = jnp.where(pairs, weight[:, None], 0)
    return losses.weighted_mean(
        jax.nn.relu(_MARGIN + gap).ravel(), weights.ravel().astype(z.dtype)
    )


def _near(
    own: Float[Array, "n d"], text: Float[Array, "C d"], threshold: float
) -> Bool[Array, "n C"]:
    """Returns which unit vectors are nearer than `threshold`, but not the same.

    Classes of one name have one text, from which nothing can be told apart.
    """
    square = 2 - 2 * own @ text.T  # |u - v|^2
    return (square < threshold**2) & (square > 1e-6)


def fused(
    before: Float[Array, "d d"], after: Float[Array, "d d"], least_new: float
) -> Float[Array, "d d"]:
    """Returns a map between the one before a stage and the one after it.

    With `before^T = U S V^T`, both are written in the basis U; an entry of the new one
    has the share `min(1, b + |difference| / max |difference|)`, so that what moved
    little keeps more of what it was.

    Args:
        before: Map before the stage, for features in rows.
        after: Map after the stage.
        least_new: Least share b of the new map.

    References:
        Huang et al., RAPF, 2024: decomposed parameter fusion, as in its code.
    """
    basis, _, _ = jnp.linalg.svd(before.T)
    old, new = _matmul(basis.T, before.T), _matmul(basis.T, after.T)
    moved = jnp.abs(new - old)
    largest = moved.max()
    share = jnp.minimum(moved / jnp.where(largest > 0, largest, 1) + least_new, 1)
    return _matmul(basis, share * new + (1 - share) * old).T
