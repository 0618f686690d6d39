"""COMM+: the parts of COMM that improved its results, improved further.

Statistics of frozen features never drift, so nothing that is trained inside the tower
has to be remembered. The parts of COMM became:

- across modalities: the router's probability of a modality, as a factor;
- within a modality: a discriminant of its classes with its own covariance, whose
  shrinkage follows from the statistics;
- re-alignment: that discriminant on two views of a sample: the final embedding, and the
  means of the tokens in the blocks before, which are more informative where the
  encoder's pre-training was far from the stream.
"""

import dataclasses

import jax.numpy as jnp

from mmcl_jax.fields import Count, Share
from mmcl_jax.methods import readout
from mmcl_jax.methods.base import (
    Common,
    Features,
    Method,
    aligned,
    frozen_query,
    modalities_now,
)
from mmcl_jax.methods.sharing import PER_MODALITY_GIVEN, routed, router_scores
from mmcl_jax.models.model import Model
from mmcl_jax.ops import discriminant, gaussians
from mmcl_jax.types import Batch, Capacity, Context, Key, Memory, Params, Prediction


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of COMM+.

    Attributes:
        blocks: Number of blocks in the second view, the last ones before the final.
        layer_share: Weight of the log-probabilities from the blocks' means; the rest is
            that of the final embedding. 0: the final embedding alone.
    """

    blocks: Count = 4
    layer_share: Share = 0.75


def make(model: Model, options: Options, common: Common) -> Method:
    """Returns hierarchical discriminant analysis of frozen features in two views.

        log p(c | x) = log p(m | q) + (1 - a) log p_m(c | q) + a log p_m(c | h),

    renormalised within the modality `m` of class `c`, with `q` the frozen query, `h`
    the layer features, and `p_m` the discriminant of the classes of `m` under the
    covariance of `m`. See `readout.read`.
    """
    del common
    widths = readout.layer_widths(model, options.blocks)
    m, d, width = len(widths), model.spec.embedding, int(widths.max())

    def init(key: Key, room: Capacity) -> tuple[Params, Memory]:
        del key
        return {}, {
            "layers": gaussians.init(room.classes, m, width),
            "of_queries": discriminant.init(room.classes, m, d),
            "of_layers": discriminant.init(room.classes, m, width),
        }

    def observe(
        params: Params, context: Context, batch: Batch, features: Features, key: Key
    ) -> Memory:
        del params, key
        updated = gaussians.update(
            context.memory["layers"],
            readout.padded(model, features.layers, options.blocks),
            batch.label,
            batch.weight,
            context.classes.modality,
        )
        return context.memory | {"layers": updated}

    def end_task(params: Params, context: Context, key: Key) -> tuple[Params, Memory]:
        del key
        memory, classes = context.memory, context.classes
        renewed = modalities_now(model, classes)
        return params, memory | {
            "of_queries": discriminant.fit(
                memory["router"]["queries"],
                classes.modality,
                jnp.full(m, float(d)),
                renewed,
                memory["of_queries"],
            ),
            "of_layers": discriminant.fit(
                memory["layers"],
                classes.modality,
                jnp.asarray(widths),
                renewed,
                memory["of_layers"],
            ),
        }

    def predict(
        params: Params, context: Context, batch: Batch, features: Features
    ) -> Prediction:
        del params
        memory = context.memory
        scores = router_scores(model, context, batch.query)
        share = jnp.full(m, options.layer_share)
        layers = readout.padded(model, features.layers, options.blocks)
        views = (
            readout.View(
                1 - share,
                batch.query,
                memory["router"]["queries"],
                memory["of_queries"],
            ),
            readout.View(share, layers, memory["layers"], memory["of_layers"]),
        )
        return Prediction(readout.read(model, context, batch, scores, views), scores)

    method = aligned(model, init, "task", embed=frozen_query)._replace(
        observe=observe,
        end_task=end_task,
        predict=predict,
        layer_blocks=options.blocks,
        needs_inputs=False,
        trains=False,
        observes=True,
    )
    # the hint raises the probability of a modality even where the router agrees
    return routed(method, model, PER_MODALITY_GIVEN)._replace(hint_matters=None)
