"""DIKI: a residual prefix for each stage, weighted by the familiarity of a sample."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mmcl_jax.fields import Count, Share
from mmcl_jax.methods import pool, stage_slots
from mmcl_jax.methods.base import Common, Features, Method, Pass, aligned
from mmcl_jax.methods.sharing import routed
from mmcl_jax.models.adapters import residual_prefix
from mmcl_jax.models.model import Model
from mmcl_jax.ops import gaussians
from mmcl_jax.types import (
    Batch,
    Capacity,
    Context,
    Key,
    Memory,
    Params,
    Prediction,
    PyTree,
)


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of DIKI; length and layers are the paper's.

    Attributes:
        length: Number of keys and values of a block.
        layers: Number of blocks with a residual prefix, from the first.
        shrinkage: Shrinkage of a stage's covariance towards a multiple of the identity.
        within_stage: Whether the classes of the stage that a sample is assigned to win;
            else all classes compete.
    """

    length: Count = 8
    layers: Count = 8
    shrinkage: Share = 0.01
    within_stage: bool = True


def make(model: Model, options: Options, common: Common) -> Method:
    """Returns DIKI.

    In the first blocks, attention to a stage's keys and values, with `P_v` zero at the
    start, is added to the frozen attention: `Attn(q, K, V) + w Attn(q, P_k, P_v)`. Each
    stage has a Gaussian of its frozen queries, with density p. Training has w = 1; a
    prediction takes the stage of the largest density and

        w = sigmoid(log p / d - 1)

    of the sample, so that samples which no stage resembles get the frozen encoder. It
    answers within the classes of the stage.

    Deviation: the covariance is shrunk, where the published code adds 1e-7 to its
    diagonal, which leaves it almost singular with fewer samples than dimensions. Each
    sample has its own stage, and the classes of that one: the code's vote over the
    batch is left out, and it answers within the classes of the test task, which it is
    told. So are prompts for the class texts left out, whose w would be that of a batch:
    class texts are embedded once, frozen.

    References:
        Tang et al., Mind the Interference: Retaining Pre-trained Knowledge in
        Parameter Efficient Continual Learning of Vision-Language Models, ECCV 2024.
    """
    adapter = residual_prefix(options.length, options.layers)
    width = model.spec.embedding

    def init(key: Key, room: Capacity) -> tuple[Params, Memory]:
        return stage_slots.init_slots(key, model, adapter, room.stages), {
            "met": stage_slots.init(model, room.stages),
            # statistics of the stage that begins, until its density is solved
            "queries": gaussians.init(1, 1, width),
            "densities": gaussians.no_densities(room.stages, width),
            "classes": jnp.zeros((room.stages, room.classes), bool),
            "jitter": jnp.zeros(()),
        }

    def route(
        context: Context, batch: Batch
    ) -> tuple[Int[Array, " b"], Float[Array, " b"]]:
        """Returns the stage of each sample and the weight of its residual."""
        if context.train:
            return stage_slots.own(context, batch), jnp.ones_like(batch.weight)
        memory = context.memory
        density = gaussians.log_density(memory["densities"], batch.query)
        usable = stage_slots.visible(
            model, common.sharing, memory["met"], context, batch
        )
        stage, density = pool.most_likely(density, usable)
        return stage, pool.residual_weight(density, width)

    def inject(params: Params, context: Context, batch: Batch) -> tuple[Pass, ...]:
        stage, residual = route(context, batch)
        stack = params[model.tower_of(batch.modality)]
        stages = len(context.memory["met"])
        injection = adapter.blend(stack, jax.nn.one_hot(stage, stages))
        (prefix,) = injection.prefixes
        weighted = prefix._replace(residual=residual)
        return (Pass(injection._replace(prefixes=(weighted,))),)

    def trainable(params: Params, context: Context) -> PyTree:
        return stage_slots.trainable_slots(model, context, params)

    def prepare(params: Params, context: Context, batch: Batch, key: Key) -> Memory:
        del params, key
        updated = gaussians.update(
            context.memory["queries"],
            batch.query,
            jnp.zeros_like(batch.label),
            batch.weight,
            0,
        )
        return context.memory | {"queries": updated}

    def begin_task(params: Params, context: Context, key: Key) -> tuple[Params, Memory]:
        del key
        memory = context.memory
        own, jitter = gaussians.densities(memory["queries"], 0, options.shrinkage)
        return params, memory | {
            "met": stage_slots.meet(model, memory["met"], context),
            "queries": jax.tree.map(jnp.zeros_like, memory["queries"]),
            "densities": jax.tree.map(
                lambda known, new: known.at[context.task].set(new[0]),
                memory["densities"],
                own,
            ),
            "classes": memory["classes"].at[context.task].set(context.classes.of_task),
            "jitter": jitter,
        }

    plain = aligned(model, init, common.label_space, inject)

    def predict(
        params: Params, context: Context, batch: Batch, features: Features
    ) -> Prediction:
        prediction = plain.predict(params, context, batch, features)
        if not options.within_stage:
            return prediction
        (stage, _), classes = route(context, batch), context.memory["classes"]
        return stage_slots.within(prediction, stage, classes, context.classes)

    method = plain._replace(
        trainable=trainable, prepare=prepare, begin_task=begin_task, predict=predict
    )
    return routed(method, model, common.sharing)
