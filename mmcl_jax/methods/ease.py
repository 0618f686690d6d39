"""EASE: an adapter for each stage, and class means in the sub-spaces of all of them."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mmcl_jax.fields import NonNegative
from mmcl_jax.methods import stage_slots
from mmcl_jax.methods.base import (
    Common,
    Features,
    Method,
    Pass,
    aligned,
    scores_from_logits,
)
from mmcl_jax.methods.sharing import routed
from mmcl_jax.models.model import Model
from mmcl_jax.ops import losses
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
    """Options of EASE; the default is the paper's.

    Attributes:
        other_weight: Weight α of the sub-spaces of other stages together, where that of
            a class's own stage is 1.
    """

    other_weight: NonNegative = 0.1


def make(model: Model, options: Options, common: Common) -> Method:
    """Returns EASE.

    Each stage tunes an adapter of its own, which spans a sub-space: what the tower
    makes of samples under that adapter. The classes of a stage have means in its
    sub-space and in those of earlier stages; means in later ones are made of those of
    later classes, see `completed`. The logits are cosines with these means, see
    `reweighted`. A sample passes through the tower once for each sub-space, those of
    the stages that had its group; the cost of a run counts these passes as one.

    Deviation: adapters are tuned towards the class texts in place of a cosine head that
    is thrown away, by the optimizer of all methods. A class that was never learnt, or
    in another group alone, is never the answer.

    References:
        D.-W. Zhou et al., "Expandable Subspace Ensemble for Pre-Trained Model-Based
        Class-Incremental Learning", CVPR 2024.
    """
    width = model.spec.embedding

    def init(key: Key, room: Capacity) -> tuple[Params, Memory]:
        stacks = stage_slots.init_slots(key, model, common.adapter, room.stages)
        means = (room.stages, room.classes, width)
        return stacks, {
            "met": stage_slots.init(model, room.stages),
            "stage": jnp.zeros(room.classes, jnp.int32),
            "sums": jnp.zeros(means),
            "counts": jnp.zeros(means[:2]),
            "means": jnp.zeros(means),
        }

    def inject(params: Params, context: Context, batch: Batch) -> tuple[Pass, ...]:
        # elsewhere a sample goes through all sub-spaces, one after another
        if context.phase != "train":
            return ()
        stack = params[model.tower_of(batch.modality)]
        own = stage_slots.own(context, batch)
        weights = jax.nn.one_hot(own, len(context.memory["met"]))
        return (Pass(common.adapter.blend(stack, weights)),)

    def embed(
        params: Params, context: Context, batch: Batch
    ) -> tuple[Float[Array, "t b d"], Bool[Array, "b t"]]:
        """Returns embeddings in the sub-spaces that each sample may use, else 0."""
        usable = stage_slots.visible(
            model, common.sharing, context.memory["met"], context, batch
        )

        def under(part: tuple[PyTree, Bool[Array, " b"]]) -> Float[Array, "b d"]:
            adapter, mine = part
            stack = jax.tree.map(lambda x: x[None], adapter)
            injection = common.adapter.blend(stack, jnp.ones((len(mine), 1)))
            given = context.frozen, batch.modality, batch.inputs, injection
            found = jax.lax.cond(
                mine.any(),
                lambda: model.embed(*given),
                lambda: jnp.zeros((len(mine), width)),
            )
            return jnp.where(mine[:, None], found, 0)

        # a loop, so that the tower is compiled once for any number of stages
        stack = params[model.tower_of(batch.modality)]
        return jax.lax.map(under, (stack, usable.T)), usable

    def trainable(params: Params, context: Context) -> PyTree:
        return stage_slots.trainable_slots(model, context, params)

    def begin_task(params: Params, context: Context, key: Key) -> tuple[Params, Memory]:
        del key
        memory = context.memory
        new = context.classes.of_task & (memory["counts"].sum(0) == 0)
        return params, memory | {
            "met": stage_slots.meet(model, memory["met"], context),
            "stage": jnp.where(new, context.task, memory["stage"]),
        }

    def observe(
        params: Params, context: Context, batch: Batch, features: Features, key: Key
    ) -> Memory:
        del features, key
        memory = context.memory
        embeddings, usable = embed(params, context, batch)
        member = jax.nn.one_hot(batch.label, memory["counts"].shape[1])
        member = member * batch.weight[:, None]
        sums = jnp.einsum("bc,tbd->tcd", member, embeddings, precision="highest")
        return memory | {
            "sums": memory["sums"] + sums,
            "counts": memory["counts"] + usable.T.astype(member.dtype) @ member,
        }

    def end_task(params: Params, context: Context, key: Key) -> tuple[Params, Memory]:
        del key
        memory = context.memory
        counts = memory["counts"]
        means = memory["sums"] / jnp.maximum(counts, 1)[:, :, None]
        full = completed(means, counts > 0, memory["stage"])
        return params, memory | {"means": full}

    def predict(
        params: Params, context: Context, batch: Batch, features: Features
    ) -> Prediction:
        del features
        memory, stage = context.memory, context.memory["stage"]
        embeddings, usable = embed(params, context, batch)
        means = losses.unit_norm(memory["means"])
        cosines = jnp.einsum("tbd,tcd->tbc", embeddings, means)
        logits = reweighted(cosines, stage, usable, options.other_weight)
        known = usable[:, stage] & (memory["counts"].sum(0) > 0)
        logits = losses.mask_logits(model.logit_scale * logits, known)
        number = len(model.modalities)
        return Prediction(logits, scores_from_logits(logits, context.classes, number))

    method = aligned(model, init, common.label_space, inject)._replace(
        trainable=trainable,
        begin_task=begin_task,
        observe=observe,
        end_task=end_task,
        predict=predict,
        observes=True,
        drives_tower=True,
    )
    return routed(method, model, common.sharing)


def completed(
    means: Float[Array, "t C d"], there: Bool[Array, "t C"], stage: Int[Array, " C"]
) -> Float[Array, "t C d"]:
    """Returns class means in all sub-spaces, those that are missing made of others.

    In sub-space k, the mean of a class i of stage s without samples there is

        P_i^k = sum_j softmax_j(cos(P_i^s, P_j^s)) P_j^k

    over the classes j with samples in both; 0 if there are none.

    Args:
        means: Means in each sub-space [t, C, d].
        there: Which of them are of samples [t, C].
        stage: Stage of each class [C].

    References:
        Zhou et al., EASE, 2024: prototype complement, in the form of its code that
        renews all means after each stage.
    """

    def similar(kept: Array, part: tuple[Array, Array]) -> tuple[Array, None]:
        of_stage, index = part
        unit = losses.unit_norm(of_stage)
        return jnp.where(stage[:, None] == index, unit @ unit.T, kept), None

    classes = len(stage)
    cosines, _ = jax.lax.scan(
        similar, jnp.zeros((classes, classes)), (means, jnp.arange(len(means)))
    )

    def fill(part: tuple[Array, Array]) -> Float[Array, "C d"]:
        own, present = part
        both = present & there[stage]
        share = jax.nn.softmax(losses.mask_logits(cosines, both))
        made = jnp.matmul(jnp.where(both, share, 0), own, precision="highest")
        return jnp.where(present[:, None], own, made)

    return jax.lax.map(fill, (means, there))


def reweighted(
    cosines: Float[Array, "t b C"],
    stage: Int[Array, " C"],
    usable: Bool[Array, "b t"],
    other_weight: float,
) -> Float[Array, "b C"]:
    """Returns cosines of a class's own sub-space plus a share of those of others.

    `cos^s + α / (T - 1) sum_(k != s) cos^k`, with T the sub-spaces of the sample.

    Args:
        cosines: Cosines with the class means in each sub-space, 0 in unusable ones.
        stage: Stage s of each class [C].
        usable: Sub-spaces of each sample [b, t].
        other_weight: Weight α.
    """
    own = jnp.take_along_axis(cosines, stage[None, None, :], axis=0)[0]
    number = jnp.maximum(usable.sum(1) - 1, 1)[:, None]
    return own + other_weight / number * (cosines.sum(0) - own)
