"""Frozen features and a closed-form head: the linear rival that cannot forget."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mmcl_jax import ridge as statistics
from mmcl_jax.methods.base import Method, aligned, scores_from_logits
from mmcl_jax.models import Model
from mmcl_jax.options import NonNegative
from mmcl_jax.types import Batch, Context, Key, Memory, Params, Prediction


@dataclasses.dataclass(frozen=True)
class RidgeOptions:
    """Options of the ridge head.

    Attributes:
        regularization: of the normal equations, relative to their mean diagonal.
    """

    regularization: NonNegative = 1e-3


def ridge(model: Model, options: RidgeOptions) -> Method:
    """Returns one-hot ridge regression on un-prompted features and a constant.

    The Gram matrix and the class sums are all that is remembered, so the head after
    any order of tasks is the one fitted to all data at once.

    References:
        McDonnell et al., RanPAC: Random Projections and Pre-trained Models for
        Continual Learning, 2023 (without the random projection).
    """
    width = model.spec.embedding + 1

    def init(key: Key, model: Model) -> tuple[Params, Memory]:
        del key
        return {}, {
            "statistics": statistics.init(width, model.num_classes),
            "head": jnp.zeros((width, model.num_classes)),
        }

    def with_constant(batch: Batch) -> Float[Array, "b width"]:
        return jnp.concatenate([batch.query, jnp.ones_like(batch.query[:, :1])], 1)

    def prepare(params: Params, context: Context, batch: Batch, key: Key) -> Memory:
        del params, key
        targets = jax.nn.one_hot(batch.label, model.num_classes)
        updated = statistics.update(
            context.memory["statistics"], with_constant(batch), targets, batch.weight
        )
        return context.memory | {"statistics": updated}

    def end_task(params: Params, context: Context, key: Key) -> tuple[Params, Memory]:
        del key
        solved = context.memory["statistics"]
        scale = jnp.trace(solved.gram) / width
        head = statistics.solve(solved, options.regularization * scale)
        return params, context.memory | {"head": head}

    def predict(params: Params, context: Context, batch: Batch) -> Prediction:
        del params
        logits = with_constant(batch) @ context.memory["head"]
        return Prediction(
            logits, scores_from_logits(logits, context.classes, len(model.modalities))
        )

    frozen = aligned(model, init, lambda p, context, batch: batch.query, "task")
    return frozen._replace(
        prepare=prepare,
        end_task=end_task,
        predict=predict,
        trains=False,
        needs_inputs=False,
    )
