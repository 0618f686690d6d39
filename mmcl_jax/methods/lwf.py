"""Learning without forgetting: what the adapters said of old classes is kept."""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mmcl_jax.fields import NonNegative, Positive, Sharing
from mmcl_jax.methods.base import LabelSpace, Method, text_logits
from mmcl_jax.methods.sequential import embedder, sequential
from mmcl_jax.methods.wrappers import with_anchor
from mmcl_jax.models import Model
from mmcl_jax.models.adapters import Adapter
from mmcl_jax.ops import losses
from mmcl_jax.types import Batch, Context, Metrics


@dataclasses.dataclass(frozen=True)
class LwfOptions:
    """Options of learning without forgetting.

    Attributes:
        weight: of the distillation.
        temperature: divisor of the logits that are distilled.
        form: `kl`, or `cross_entropy`, which adds the teacher's entropy to the value.
    """

    weight: NonNegative = 1.0
    temperature: Positive = 2.0
    form: Literal["kl", "cross_entropy"] = "kl"


def lwf(
    model: Model,
    adapter: Adapter,
    options: LwfOptions,
    sharing: Sharing,
    train_label_space: LabelSpace,
) -> Method:
    """Returns sequential tuning with distillation from the adapters before the task.

    `loss = CE + weight T² KL(p_before || p)` over the classes of earlier tasks, on the
    samples of this one.

    References:
        Z. Li, D. Hoiem, "Learning without Forgetting", ECCV 2016.
    """
    embed = embedder(model, adapter, sharing)

    def distil(
        features: Float[Array, "b d"], context: Context, batch: Batch
    ) -> tuple[Float[Array, ""], Metrics]:
        classes, scale = context.classes, model.logit_scale
        old = classes.seen & ~classes.of_task
        # the first task has no teacher, and is spared the second forward
        before = jax.lax.cond(
            old.any(),
            lambda: embed(context.memory["before"], context, batch),
            lambda: jnp.zeros_like(features),
        )
        value = losses.distillation(
            text_logits(before, classes, scale),
            text_logits(features, classes, scale),
            options.temperature,
            old,
            batch.weight,
            options.form,
        )
        return options.weight * value, {"distillation": value}

    return with_anchor(sequential(model, adapter, sharing, train_label_space, distil))
