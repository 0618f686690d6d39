"""The nearest class mean of frozen features."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mmcl_jax.methods.base import Common, Features, Method
from mmcl_jax.methods.heads import head_method
from mmcl_jax.models.model import Model
from mmcl_jax.ops.losses import unit_norm
from mmcl_jax.types import Batch, Capacity, Context, Key, Memory, Params


def make(model: Model, options: None, common: Common) -> Method:
    """Returns scaled cosines of queries and class means.

    A class's sum has the direction of its mean, so only the sums are remembered.

    References:
        D.-W. Zhou et al., "Revisiting Class-Incremental Learning with Pre-Trained
        Models: Generalizability and Adaptivity are All You Need" (SimpleCIL), 2023.
    """
    del options

    def init(key: Key, room: Capacity) -> tuple[Params, Memory]:
        del key
        return {}, {"sums": jnp.zeros((room.classes, model.spec.embedding))}

    def prepare(params: Params, context: Context, batch: Batch, key: Key) -> Memory:
        del params, key
        sums = with_class_sums(context.memory["sums"], batch.query, batch)
        return context.memory | {"sums": sums}

    def logits(
        params: Params, context: Context, batch: Batch, features: Features
    ) -> Float[Array, "b C"]:
        del params, features
        means = unit_norm(context.memory["sums"])
        return model.logit_scale * batch.query @ means.T

    return head_method(model, common.sharing, init, logits, prepare=prepare)


def with_class_sums(
    sums: Float[Array, "C d"], features: Float[Array, "b d"], batch: Batch
) -> Float[Array, "C d"]:
    """Returns the sum of the features of each class after one more batch."""
    member = jax.nn.one_hot(batch.label, len(sums)) * batch.weight[:, None]
    return sums + jnp.matmul(member.T, features, precision="highest")
