"""ZSCL on adapters: distilled from the frozen encoder, and averaged over the steps."""

import dataclasses

import jax.numpy as jnp
from jaxtyping import Array, Float

from mmcl_jax.fields import Count, NonNegative, Positive
from mmcl_jax.methods.base import Common, Features, Method, text_logits
from mmcl_jax.methods.sequential import sequential
from mmcl_jax.methods.wrappers import with_averaging
from mmcl_jax.models.model import Model
from mmcl_jax.ops import losses
from mmcl_jax.types import Batch, Context, Metrics


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of ZSCL.

    Attributes:
        weight: Weight of the distillation in each direction; 0 turns it off.
        temperature: Divisor of the logits that are distilled.
        averaging_interval: Steps between two parameters that enter the running mean;
            None turns it off.
    """

    weight: NonNegative = 1.0
    temperature: Positive = 2.0
    averaging_interval: Count | None = 10


def make(model: Model, options: Options, common: Common) -> Method:
    """Returns sequential tuning with distillation from the frozen encoder.

    With `q` the frozen queries of the batch, `z` its adapted features and `u` the texts
    of the classes of earlier tasks,

        loss = CE + weight (T² KL(softmax s q uᵀ / T || softmax s z uᵀ / T)
                            + T² KL(softmax s u qᵀ / T || softmax s u zᵀ / T)),

    the softmax over texts first, then over the samples of the batch.

    Deviation: the paper tunes all weights and distils on a separate set of pictures and
    captions, in the first task too. Here the reference is the task's own samples and
    the texts of classes seen before, since no such set is known for five modalities,
    and no class to come may be named; those of the task are left to the labels. So the
    first task is not distilled, and what an encoder knows of other things is held less.
    The paper's cross-entropy has another value, and the same gradient.

    References:
        Z. Zheng et al., "Preventing Zero-Shot Transfer Degradation in Continual
        Learning of Vision-Language Models" (ZSCL), ICCV 2023.
    """

    def distil(
        features: Features, context: Context, batch: Batch
    ) -> tuple[Float[Array, ""], Metrics]:
        classes, temperature = context.classes, options.temperature
        old = classes.seen & ~classes.of_task
        teacher, student = (
            text_logits(z, classes, model.logit_scale)
            for z in (batch.query, features.embeddings[0])
        )
        images = losses.distillation(teacher, student, temperature, old, batch.weight)
        texts = losses.distillation(
            teacher.T,
            student.T,
            temperature,
            batch.weight > 0,
            old.astype(jnp.float32),
        )
        value = images + texts
        return options.weight * value, {"distillation": value}

    penalty = distil if options.weight else None
    method = sequential(model, common, penalty)
    if options.averaging_interval is not None:
        method = with_averaging(method, options.averaging_interval)
    return method
