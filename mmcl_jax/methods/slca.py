"""Slow learner with classifier alignment, on adapters."""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mmcl_jax.fields import Count, NonNegativeInt, Positive, Share
from mmcl_jax.methods.base import (
    Common,
    Features,
    Method,
    Pass,
    aligned,
    label_space,
)
from mmcl_jax.methods.base import scores_from_logits as scores
from mmcl_jax.methods.linear_probe import head_logits, head_loss, init_head
from mmcl_jax.methods.sequential import grouped_pass
from mmcl_jax.methods.sharing import init_groups, routed
from mmcl_jax.models.model import Model
from mmcl_jax.ops import gaussians, losses, trees
from mmcl_jax.ops.gaussians import Gaussians
from mmcl_jax.ops.optim import descend
from mmcl_jax.types import (
    Batch,
    Capacity,
    Classes,
    Context,
    Key,
    Memory,
    Params,
    Prediction,
    PyTree,
)


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of SLCA.

    Attributes:
        slow_rate: Step size of the adapters relative to that of the head; 0.01 as
            published.
        covariance: Whether each `class` has its own covariance, as published, or all
            classes of a `modality` share one, which takes much less memory.
        shrinkage: Shrinkage of the covariances towards a multiple of the identity.
        samples_per_class: Number of pseudo-features that are drawn for each class.
        alignment_steps: Steps of Adam on all pseudo-features after each task; 0 turns
            the alignment off.
        alignment_rate: Step size of the alignment.
        logit_norm: Temperature of logits that are divided by the mean over tasks of
            their norm; None: they are not divided.
        scale_means: Whether means are scaled by `0.9 + 0.1 (t_c + 1) / (t + 1)`, with
            t_c the task of the class and t the present one, as in the published code
            but not in the paper.
    """

    slow_rate: Share = 0.01
    covariance: Literal["modality", "class"] = "class"
    shrinkage: Share = 0.01
    samples_per_class: Count = 64
    alignment_steps: NonNegativeInt = 100
    alignment_rate: Positive = 1e-2
    logit_norm: Positive | None = 0.1
    scale_means: bool = False


def make(model: Model, options: Options, common: Common) -> Method:
    """Returns a linear head, trained fast, on adapters, trained slowly.

    After each task but the first, the head is trained on draws from the Gaussians that
    the adapted features of each class had at the end of its own task. The next task
    starts from the head as it was before.

    Deviation: adapters are tuned in place of the whole encoder, all methods have the
    same optimizer, and features have unit norm, so pseudo-features are normalised too.
    The head is aligned by 100 steps of Adam on 64 draws of each class, where the
    published code takes five epochs of SGD over 256 draws, anew in each.

    References:
        G. Zhang et al., "SLCA: Slow Learner with Classifier Alignment for Continual
        Learning on a Pre-trained Model", ICCV 2023.
    """
    sharing = common.sharing

    def init(key: Key, room: Capacity) -> tuple[Params, Memory]:
        classes, width = room.classes, model.spec.embedding
        groups = classes if options.covariance == "class" else len(model.modalities)
        params = {
            "adapters": init_groups(key, model, common.adapter, sharing),
            "head": init_head(jax.random.fold_in(key, 1), model, room),
        }
        return params, {
            "unaligned": trees.copy(params["head"]),
            "features": gaussians.init(classes, groups, width),
            "task": jnp.zeros(classes, jnp.int32),
            "jitter": jnp.zeros(()),
        }

    def inject(params: Params, context: Context, batch: Batch) -> tuple[Pass, ...]:
        return (grouped_pass(model, common, params["adapters"], context, batch),)

    def logits(
        params: Params, context: Context, batch: Batch, features: Features
    ) -> Float[Array, "b C"]:
        del context, batch
        return head_logits(model, params["head"], features.embeddings[0])

    def predict(
        params: Params, context: Context, batch: Batch, features: Features
    ) -> Prediction:
        values = logits(params, context, batch, features)
        return Prediction(
            values, scores(values, context.classes, len(model.modalities))
        )

    def constrain(updates: PyTree, params: Params, context: Context) -> PyTree:
        del params, context
        # updates are scaled, since Adam would normalise a scaled gradient away
        slow = jax.tree.map(lambda u: options.slow_rate * u, updates["adapters"])
        return updates | {"adapters": slow}

    def begin_task(params: Params, context: Context, key: Key) -> tuple[Params, Memory]:
        del key
        memory, classes = context.memory, context.classes
        task = jnp.where(classes.of_task, context.task, memory["task"])
        head = trees.select(context.task > 0, memory["unaligned"], params["head"])
        return params | {"head": head}, memory | {"task": task}

    def observe(
        params: Params, context: Context, batch: Batch, features: Features, key: Key
    ) -> Memory:
        del params, key
        updated = gaussians.update(
            context.memory["features"],
            features.embeddings[0],
            batch.label,
            batch.weight,
            _class_group(options, context.classes),
        )
        return context.memory | {"features": updated}

    def end_task(params: Params, context: Context, key: Key) -> tuple[Params, Memory]:
        classes = context.classes
        head, jitter = _align(model, options, params["head"], context, key)
        # after the first task the head needs no alignment with older ones
        old = jnp.any(classes.seen & ~classes.of_task)
        head = trees.select(old, head, params["head"])
        kept = {"unaligned": trees.copy(params["head"]), "jitter": jitter}
        return params | {"head": head}, context.memory | kept

    method = aligned(model, init, "task", inject)._replace(
        loss=head_loss(logits, common.label_space),
        predict=predict,
        constrain=constrain,
        begin_task=begin_task,
        observe=observe,
        end_task=end_task,
        observes=True,
    )
    return routed(method, model, sharing)


def _class_group(options: Options, classes: Classes) -> Int[Array, " C"]:
    if options.covariance == "class":
        return jnp.arange(len(classes.modality))
    return classes.modality


def _align(
    model: Model,
    options: Options,
    head: Params,
    context: Context,
    key: Key,
) -> tuple[Params, Array]:
    """Returns the head after steps of Adam on pseudo-features of all seen classes.

    The largest jitter of their covariances is returned too.
    """
    classes, task = context.classes, context.memory["task"]
    stats: Gaussians = context.memory["features"]
    if options.scale_means:
        scale = 0.9 + 0.1 * (task + 1) / (context.task + 1)
        stats = stats._replace(mean=stats.mean * scale[:, None])
    label = jnp.repeat(jnp.arange(len(classes.seen)), options.samples_per_class)
    group = _class_group(options, classes)
    drawn, weight, jitter = gaussians.sample(
        key, stats, label, group, options.shrinkage
    )
    allowed = label_space(classes, label, "all_seen")

    def loss(head: Params) -> Float[Array, ""]:
        logits = head_logits(model, head, drawn)
        if options.logit_norm is not None:
            norm = mean_norm(logits, classes, task)
            logits = logits / (norm * options.logit_norm)
        return losses.cross_entropy(logits, label, weight, allowed)

    head = descend(loss, head, options.alignment_steps, options.alignment_rate)
    return head, jitter


def mean_norm(
    logits: Float[Array, "n C"],
    classes: Classes,
    task: Int[Array, " C"],
) -> Float[Array, "n 1"]:
    """Returns the mean over seen tasks of the norm of each task's logits."""
    # a column for each class, which stands for its task
    same = (task[:, None] == task) & classes.seen[:, None] & classes.seen
    # the derivative of a root at 0 is infinite
    norms = jnp.sqrt(jnp.square(logits) @ same.astype(logits.dtype) + 1e-12)
    # the classes of a task share the weight 1
    share = classes.seen / jnp.maximum(same.sum(0), 1)
    return (norms @ share)[:, None] / jnp.maximum(share.sum(), 1)
