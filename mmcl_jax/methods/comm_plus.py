"""COMM+: the parts of COMM that improved its results, improved further.

Statistics of frozen features never drift, so nothing that is trained inside the tower
has to be remembered. The parts of COMM became:

- across modalities: the router's probability of a modality, as a factor;
- within a modality: a discriminant of its classes with its own covariance;
- re-alignment: that discriminant on two views of a sample: the final embedding, and the
  means of the tokens in the blocks before, which are more informative where the
  encoder's pre-training was far from the stream.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import cho_solve
from jaxtyping import Array, Bool, Float

from mmcl_jax.fields import Count, Share
from mmcl_jax.methods.base import (
    Common,
    Features,
    Method,
    aligned,
    frozen_query,
    text_logits,
)
from mmcl_jax.methods.sharing import PER_MODALITY_GIVEN, routed, router_scores
from mmcl_jax.models.model import Model
from mmcl_jax.models.specs import layer_blocks
from mmcl_jax.ops import gaussians, losses
from mmcl_jax.ops.gaussians import Gaussians
from mmcl_jax.types import Batch, Capacity, Context, Key, Memory, Params, Prediction


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of COMM+.

    Attributes:
        blocks: Number of blocks in the second view, the last ones before the final.
        layer_share: Weight of the log-probabilities from the blocks' means; the rest is
            that of the final embedding. 0: the final embedding alone.
        shrinkage: Shrinkage of each modality's covariance towards a multiple of the
            identity.
    """

    blocks: Count = 4
    layer_share: Share = 0.5
    shrinkage: Share = 0.05


def make(model: Model, options: Options, common: Common) -> Method:
    """Returns hierarchical discriminant analysis of frozen features in two views.

        log p(c | x) = log p(m | q) + (1 - a) log p_m(c | q) + a log p_m(c | h),

    with `m` the modality of class `c`, `q` the frozen query, `h` the layer features,
    and `p_m` the discriminant of the classes of `m` under the covariance of `m`. A
    given modality counts as certain. A class not seen yet has the probability of its
    text among all classes.
    """
    del common
    num_modalities = len(model.modalities)
    towers = [model.spec.tower(name) for name in dict.fromkeys(model.towers)]
    widths = [layer_blocks(t, options.blocks) * t.width for t in towers]
    # one shape for all towers: features of a narrower one are padded with zeros
    width = max(widths)

    def init(key: Key, room: Capacity) -> tuple[Params, Memory]:
        del key
        d, m = model.spec.embedding, num_modalities
        return {}, {
            "layers": gaussians.init(room.classes, m, width),
            "query_precision": jnp.zeros((m, d, d)),
            "layer_precision": jnp.zeros((m, width, width)),
            "jitter": jnp.zeros(()),
        }

    def padded(features: Features) -> Float[Array, "b width"]:
        assert features.layers is not None
        missing = width - features.layers.shape[1]
        return jnp.pad(features.layers, ((0, 0), (0, missing)))

    def observe(
        params: Params, context: Context, batch: Batch, features: Features, key: Key
    ) -> Memory:
        del params, key
        updated = gaussians.update(
            context.memory["layers"],
            padded(features),
            batch.label,
            batch.weight,
            context.classes.modality,
        )
        return context.memory | {"layers": updated}

    def end_task(params: Params, context: Context, key: Key) -> tuple[Params, Memory]:
        del key
        memory, modality = context.memory, context.classes.modality
        queries = memory["router"]["queries"]
        of_queries, jitter = precisions(queries, options.shrinkage, modality)
        of_layers, other = precisions(memory["layers"], options.shrinkage, modality)
        return params, memory | {
            "query_precision": of_queries,
            "layer_precision": of_layers,
            "jitter": jnp.maximum(jitter, other),
        }

    def predict(
        params: Params, context: Context, batch: Batch, features: Features
    ) -> Prediction:
        del params
        memory, known = context.memory, context.classes
        scores = router_scores(model, context, batch.query)
        given = batch.hint[:, None] == jnp.arange(num_modalities)
        given = given & (scores > losses.MASKED / 2)
        certain = jnp.where(given, 0.0, losses.MASKED)
        modality = jnp.where(
            given.any(-1, keepdims=True), certain, jax.nn.log_softmax(scores)
        )
        views = (
            (1 - options.layer_share, batch.query, "query_precision"),
            (options.layer_share, padded(features), "layer_precision"),
        )
        stats = memory["router"]["queries"], memory["layers"]
        # classes not seen yet keep these logits
        text = text_logits(batch.query, known, model.logit_scale)
        logits = jax.nn.log_softmax(text)
        met = known.seen & (stats[0].count > 0)
        for m in np.asarray(model.members(model.tower_of(batch.modality))):
            own = met & (known.modality == m)
            within = sum(
                share * log_probabilities(x, stat, memory[name][m], own)
                for (share, x, name), stat in zip(views, stats, strict=True)
            )
            logits = jnp.where(own, within + modality[:, m][:, None], logits)
        # classes of other towers cannot be the answer
        strange = met & ~_same_tower(model, batch.modality)[known.modality]
        return Prediction(losses.mask_logits(logits, ~strange), scores)

    method = aligned(model, init, "task", embed=frozen_query)._replace(
        observe=observe,
        end_task=end_task,
        predict=predict,
        layer_blocks=options.blocks,
        trains=False,
        observes=True,
    )
    # the hint raises the probability of a modality even where the router agrees
    return routed(method, model, PER_MODALITY_GIVEN)._replace(hint_matters=None)


def precisions(
    stats: Gaussians, shrinkage: float, class_modality: Array
) -> tuple[Float[Array, "m d d"], Float[Array, ""]]:
    """Returns the inverse of each modality's shrunk within-class covariance.

    Their largest jitter is returned too, see `gaussians.cholesky_with_jitter`.
    """
    identity = jnp.eye(stats.mean.shape[1])

    def inverse(matrix: Float[Array, "d d"]) -> tuple[Array, Array]:
        factor, jitter = gaussians.cholesky_with_jitter(matrix)
        return cho_solve((factor, True), identity), jitter

    matrices = gaussians.group_covariances(stats, shrinkage, class_modality)
    # one after another, which bounds the memory of the wide layer features
    inverses, jitters = jax.lax.map(inverse, matrices)
    return inverses, jitters.max()


def log_probabilities(
    x: Float[Array, "b d"],
    stats: Gaussians,
    precision: Float[Array, "d d"],
    own: Bool[Array, " C"],
) -> Float[Array, "b C"]:
    """Returns `log p(c | x)` among the classes `own`, by a linear discriminant.

    Features are centred on the mean of the classes: a common shift changes no
    probability, but its size would cost digits.
    """
    centre = own @ stats.mean / jnp.maximum(own.sum(), 1)
    offset = jnp.where(own[:, None], stats.mean - centre, 0)
    white = jnp.matmul(offset, precision, precision="highest")
    logits = jnp.matmul(x - centre, white.T, precision="highest")
    logits = logits - 0.5 * jnp.sum(white * offset, -1)
    return jax.nn.log_softmax(losses.mask_logits(logits, own))


def _same_tower(model: Model, modality: str) -> Bool[Array, " m"]:
    return jnp.asarray([tower == model.tower_of(modality) for tower in model.towers])
