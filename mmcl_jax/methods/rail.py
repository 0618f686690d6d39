"""RAIL: recursive ridge regression on random features, beside the frozen encoder."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mmcl_jax.fields import Count, Positive, Share
from mmcl_jax.methods.base import Common, Features, Method, text_logits
from mmcl_jax.methods.heads import (
    columns,
    head_method,
    head_of,
    num_heads,
    random_features,
)
from mmcl_jax.models.model import Model
from mmcl_jax.ops import least_squares as statistics
from mmcl_jax.types import Batch, Capacity, Context, Key, Memory, Params


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of RAIL.

    Attributes:
        width: Number of random features.
        regularization: Ridge of the normal equations, fixed before any sample is seen.
        ridge_share: Share of the ridge head in the fusion with the zero-shot
            probabilities, for samples whose zero-shot answer is a class that was seen;
            the others keep the zero-shot answer. None: the head alone.
    """

    width: Count = 2000
    regularization: Positive = 0.1
    ridge_share: Share | None = 0.8


def make(model: Model, options: Options, common: Common) -> Method:
    """Returns recursive least squares on `relu(q W)`, in the primal form.

    W is drawn as the published code draws it, with the variance 1 / 3d, so that
    `regularization` means what it means there. As published, the zero-shot answer of
    the fusion is one of all classes of the stream, including those to come.

    Deviation: 2000 features for the paper's 15,000, whose inverse takes 900 MB for each
    modality. Its dual form, which stores the features of all samples, is left out.

    References:
        Y. Xu et al., "Advancing Cross-domain Discriminability in Continual Learning of
        Vision-Language Models", NeurIPS 2024: the primal form.
    """
    draw, features = random_features(model, options.width, _uniform)

    def init(key: Key, room: Capacity) -> tuple[Params, Memory]:
        inverse, head = statistics.recursive_init(
            options.width, room.classes, options.regularization
        )
        inverses = jnp.tile(inverse, (num_heads(model, common.sharing), 1, 1))
        return {}, draw(key) | {"inverse": inverses, "head": head}

    def prepare(params: Params, context: Context, batch: Batch, key: Key) -> Memory:
        del params, key
        memory, own = context.memory, head_of(model, common.sharing, batch)
        # the update moves every column; those of other heads must stay as they are
        mine = columns(common.sharing, context.classes, own)
        inverse, head = statistics.recursive_update(
            memory["inverse"][own],
            memory["head"],
            features(memory, batch, Features()),
            jax.nn.one_hot(batch.label, memory["head"].shape[1]),
            batch.weight,
        )
        return memory | {
            "inverse": memory["inverse"].at[own].set(inverse),
            "head": jnp.where(mine, head, memory["head"]),
        }

    def logits(
        params: Params, context: Context, batch: Batch, given: Features
    ) -> Float[Array, "b C"]:
        del params
        scores = features(context.memory, batch, given) @ context.memory["head"]
        if options.ridge_share is None:
            return scores
        similar = text_logits(batch.query, context.classes, model.logit_scale)
        zero_shot = jax.nn.softmax(similar)
        return fused(scores, zero_shot, context.classes.seen, options.ridge_share)

    return head_method(model, common.sharing, init, logits, prepare=prepare)


def _uniform(key: Key, shape: tuple[int, int]) -> Float[Array, "d width"]:
    """Returns draws up to +-1 / sqrt(d), as torch draws a linear layer's weights."""
    limit = shape[0] ** -0.5
    return jax.random.uniform(key, shape, minval=-limit, maxval=limit)


def fused(
    scores: Float[Array, "b C"],
    zero_shot: Float[Array, "b C"],
    seen: Bool[Array, " C"],
    share: float,
) -> Float[Array, "b C"]:
    """Returns `share scores + (1 - share) zero_shot`; `zero_shot` for unknown samples.

    Args:
        scores: Scores of the ridge head [b, C], 0 for classes not seen.
        zero_shot: Probabilities [b, C] of the frozen encoder over all classes; a sample
            is unknown if the likeliest one has not been seen.
        seen: Classes seen [C].
        share: Share of the head.
    """
    known = seen[zero_shot.argmax(-1)][:, None]
    return jnp.where(known, share * scores + (1 - share) * zero_shot, zero_shot)
