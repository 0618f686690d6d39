"""APER: class means of frozen features and of features tuned in the first session."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from mmcl_jax.methods.base import Common, Features, Method
from mmcl_jax.methods.first_session import with_first_session
from mmcl_jax.methods.heads import head_method
from mmcl_jax.methods.ncm import with_class_sums
from mmcl_jax.methods.sequential import sequential
from mmcl_jax.models.model import Model
from mmcl_jax.ops.losses import unit_norm
from mmcl_jax.types import Batch, Capacity, Context, Key, Memory, Params


def make(model: Model, options: None, common: Common) -> Method:
    """Returns scaled cosines of features and class means, both of two parts.

    The parts are the query and the embedding under an adapter that was tuned on the
    first task, side by side. Without the second part it is `ncm`.

    Deviation: each modality with an adapter of its own has a first session; the tuned
    head is the class texts, by the optimizer of all methods; both parts have unit norm.

    References:
        D.-W. Zhou et al., "Revisiting Class-Incremental Learning with Pre-Trained
        Models: Generalizability and Adaptivity are All You Need" (ADAM, later APER),
        IJCV 2024.
    """
    del options
    width = 2 * model.spec.embedding

    def both(batch: Batch, features: Features) -> Float[Array, "b width"]:
        return jnp.concatenate([batch.query, features.embeddings[0]], axis=1)

    def init(key: Key, room: Capacity) -> tuple[Params, Memory]:
        del key
        return {}, {"sums": jnp.zeros((room.classes, width))}

    def observe(
        params: Params, context: Context, batch: Batch, features: Features, key: Key
    ) -> Memory:
        del params, key
        sums = with_class_sums(context.memory["sums"], both(batch, features), batch)
        return context.memory | {"sums": sums}

    def logits(
        params: Params, context: Context, batch: Batch, features: Features
    ) -> Float[Array, "b C"]:
        del params
        means = unit_norm(context.memory["sums"])
        return model.logit_scale * unit_norm(both(batch, features)) @ means.T

    head = head_method(
        model, common.sharing, init, logits, observe=observe, observes=True
    )
    tuned = sequential(model, common)
    return with_first_session(head, tuned, model, common.sharing)
