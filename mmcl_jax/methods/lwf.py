"""Learning without forgetting: the old adapters' answers for old classes are kept."""

import dataclasses
from typing import Literal

from jaxtyping import Array, Bool, Float

from mmcl_jax.fields import NonNegative, Positive
from mmcl_jax.methods.base import Common, Features, Method, Pass, text_logits
from mmcl_jax.methods.sequential import sequential
from mmcl_jax.methods.wrappers import with_anchor
from mmcl_jax.models.model import Model
from mmcl_jax.ops import losses
from mmcl_jax.types import Batch, Classes, Context, Metrics, Params


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of learning without forgetting.

    Attributes:
        weight: Weight of the distillation.
        temperature: Divisor of the logits that are distilled.
        form: Either `kl` or `cross_entropy`, which adds the teacher's entropy to the
            value.
    """

    weight: NonNegative = 1.0
    temperature: Positive = 2.0
    form: Literal["kl", "cross_entropy"] = "kl"


def make(model: Model, options: Options, common: Common) -> Method:
    """Returns sequential tuning with distillation from the adapters before the task.

    `loss = CE + weight T² KL(p_before || p)` over the classes of earlier tasks, on the
    samples of this one.

    References:
        Z. Li, D. Hoiem, "Learning without Forgetting", ECCV 2016.
    """

    def distil(
        features: Features, context: Context, batch: Batch
    ) -> tuple[Float[Array, ""], Metrics]:
        classes, scale = context.classes, model.logit_scale
        student, teacher = features.embeddings
        value = losses.distillation(
            text_logits(teacher, classes, scale),
            text_logits(student, classes, scale),
            options.temperature,
            _old(classes),
            batch.weight,
            options.form,
        )
        return options.weight * value, {"distillation": value}

    method = sequential(model, common, distil)

    def inject(params: Params, context: Context, batch: Batch) -> tuple[Pass, ...]:
        own = method.inject(params, context, batch)
        if context.phase != "train":
            return own
        before = context.memory["before"]
        (teacher,) = method.inject(before, context, batch)
        # the first task has no teacher, and skips the second pass
        return (*own, teacher._replace(when=_old(context.classes).any()))

    return with_anchor(method._replace(inject=inject))


def _old(classes: Classes) -> Bool[Array, " C"]:
    """Returns the classes of earlier tasks."""
    return classes.seen & ~classes.of_task
