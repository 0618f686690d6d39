"""S-Prompts: an independent adapter for each stage, chosen by the nearest centre."""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from mmcl_jax.fields import Count
from mmcl_jax.methods import pool, stage_slots
from mmcl_jax.methods.adapted import adapted_pass
from mmcl_jax.methods.base import Common, Features, Method, Pass, aligned
from mmcl_jax.methods.sharing import routed
from mmcl_jax.models.model import Model
from mmcl_jax.ops import kmeans, reservoir
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
    """Options of S-Prompts.

    Attributes:
        centres: Number of k-means centres of a stage's frozen queries.
        sampled_queries: Largest number of a stage's queries, drawn uniformly, that are
            stored until k-means has run at its start.
        distance: Distance to the centres: `l2` in the paper, `l1` (the sum of absolute
            differences) in the published code.
        within_stage: Whether the classes of the stage that a sample is assigned to win,
            as in the published code; else all classes compete.
    """

    centres: Count = 5
    sampled_queries: Count = 1024
    distance: Literal["l2", "l1"] = "l2"
    within_stage: bool = True


def make(model: Model, options: Options, common: Common) -> Method:
    """Returns S-Prompts with any kind of adapter.

    A stage trains its own adapter alone, so only the choice of an adapter can get
    worse: a prediction takes the adapter of the stage that has the k-means centre of
    frozen queries nearest to the sample's query, and answers within its classes.

    Deviation: S-liPrompts also learns a context for the class texts of each stage, and
    S-iPrompts a linear head. Here the class texts are the head, embedded once, frozen,
    so that logits of all stages can be compared.

    References:
        Wang et al., S-Prompts Learning with Pre-trained Transformers: An Occam's Razor
        for Domain Incremental Learning, NeurIPS 2022.
    """
    width = model.spec.embedding

    def nothing() -> reservoir.Reservoir:
        query = jax.ShapeDtypeStruct((width,), jnp.float32)
        return reservoir.init(options.sampled_queries, query)

    def init(key: Key, room: Capacity) -> tuple[Params, Memory]:
        return stage_slots.init_slots(key, model, common.adapter, room.stages), {
            "met": stage_slots.init(model, room.stages),
            "queries": nothing(),
            "centres": jnp.zeros((room.stages, options.centres, width)),
            "classes": jnp.zeros((room.stages, room.classes), bool),
        }

    def nearest(context: Context, batch: Batch) -> Int[Array, " b"]:
        """Returns the stage of each sample."""
        if context.train:
            return stage_slots.own(context, batch)
        memory = context.memory
        usable = stage_slots.visible(
            model, common.sharing, memory["met"], context, batch
        )
        order = {"l1": 1, "l2": 2}[options.distance]
        return pool.nearest(batch.query, memory["centres"], usable, order)

    def inject(params: Params, context: Context, batch: Batch) -> tuple[Pass, ...]:
        stage, stages = nearest(context, batch), len(context.memory["met"])
        weights = jax.nn.one_hot(stage, stages)
        return (adapted_pass(model, common.adapter, params, weights, batch),)

    def trainable(params: Params, context: Context) -> PyTree:
        return stage_slots.trainable_slots(model, context, params)

    def prepare(params: Params, context: Context, batch: Batch, key: Key) -> Memory:
        del params
        queries = reservoir.add(
            context.memory["queries"], batch.query, batch.weight, batch.id, key
        )
        return context.memory | {"queries": queries}

    def begin_task(params: Params, context: Context, key: Key) -> tuple[Params, Memory]:
        memory, queries = context.memory, context.memory["queries"]
        # empty slots hold zeros, which must not attract a centre
        used = queries.priority >= 0
        centres = kmeans.fit(key, queries.rows, used, options.centres)
        return params, memory | {
            "met": stage_slots.meet(model, memory["met"], context),
            "queries": nothing(),
            "centres": memory["centres"].at[context.task].set(centres),
            "classes": memory["classes"].at[context.task].set(context.classes.of_task),
        }

    plain = aligned(model, init, common.label_space, inject)

    def predict(
        params: Params, context: Context, batch: Batch, features: Features
    ) -> Prediction:
        prediction = plain.predict(params, context, batch, features)
        if not options.within_stage:
            return prediction
        stage, classes = nearest(context, batch), context.memory["classes"]
        return stage_slots.within(prediction, stage, classes, context.classes)

    method = plain._replace(
        trainable=trainable, prepare=prepare, begin_task=begin_task, predict=predict
    )
    return routed(method, model, common.sharing)
