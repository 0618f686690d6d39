"""CMCL-DNS: linear maps of frozen features that keep the similarities of old pairs."""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from mmcl_jax.fields import NonNegative, Sharing
from mmcl_jax.methods.base import Common, Features, Method, aligned
from mmcl_jax.methods.sharing import SHARED, group_weights, num_groups, routed
from mmcl_jax.models.model import Model
from mmcl_jax.ops import projection
from mmcl_jax.types import (
    Batch,
    Capacity,
    Classes,
    Context,
    Key,
    Memory,
    Metrics,
    Params,
    PyTree,
)


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of CMCL-DNS.

    Attributes:
        project: What is projected: the optimizer's `update`, of the shift too, so that
            old pairs keep their similarities; or the gradient of the matrix alone
            (`gradient_then_adam`), as in the published code, where Adam and weight
            decay then undo it.
        input_threshold: Eigenvalue of the second moment above which a direction of the
            old queries is protected. Queries have unit norm, so all eigenvalues sum to
            1, and fewer than `1 / input_threshold` directions are.
        partner_threshold: The same threshold for class texts; 0: all directions.
    """

    project: Literal["update", "gradient_then_adam"] = "update"
    input_threshold: NonNegative = 0.1
    partner_threshold: NonNegative = 0.0


def make(model: Model, options: Options, common: Common) -> Method:
    """Returns one map `A q + b` per group, aligned to the class texts.

    With P the span of a group's old queries and P' that of their class texts, the
    matrix moves by `G - P' G P` and the shift by `g - P' g`, so that `u · (A q + b)`
    stays as it is for an old query q and an old text u.

    Deviation: the partners of a sample are class texts, which no map moves, and not
    features of a second modality; the loss is over classes and at the encoder's scale;
    each group counts its own samples, where the published code has one counter. The
    threshold 0.1 is the published one, but for features that were not normalised, whose
    moments are larger: there it protects more directions.

    References:
        X. Liu et al., "Continual Multimodal Contrastive Learning", NeurIPS 2025.
    """
    width, sharing = model.spec.embedding, common.sharing
    towers = tuple(dict.fromkeys(model.towers))

    def per_group(shape: tuple[int, ...]) -> PyTree:
        return {
            tower: jnp.zeros((num_groups(model, tower, sharing), *shape))
            for tower in towers
        }

    def init(key: Key, room: Capacity) -> tuple[Params, Memory]:
        del key
        square = (width, width)
        params = {
            "matrix": jax.tree.map(lambda x: x + jnp.eye(width), per_group(square)),
            "shift": per_group((width,)),
        }
        return params, {
            "moment": per_group(square),
            "count": jnp.zeros(room.classes),
            "inputs": per_group(square),
            "partners": per_group(square),
        }

    def embed(
        params: Params, context: Context, batch: Batch, features: Features
    ) -> Float[Array, "b d"]:
        del features
        tower = model.tower_of(batch.modality)
        weights = group_weights(model, sharing, context, batch)
        mapped = jnp.einsum("goi,bi->bgo", params["matrix"][tower], batch.query)
        return jnp.einsum("bg,bgo->bo", weights, mapped + params["shift"][tower])

    plain = aligned(model, init, common.label_space, embed=embed)

    def loss(
        params: Params, context: Context, batch: Batch, features: Features, key: Key
    ) -> tuple[Float[Array, ""], Metrics]:
        if options.project == "gradient_then_adam":
            fixed = jax.lax.stop_gradient(params["matrix"])
            # its value is zero, and its gradient the projected one
            moved = jax.tree.map(jnp.subtract, params["matrix"], fixed)
            moved = _outside(moved, context.memory)
            params = params | {"matrix": jax.tree.map(jnp.add, fixed, moved)}
        return plain.loss(params, context, batch, features, key)

    def constrain(updates: PyTree, params: Params, context: Context) -> PyTree:
        del params
        if options.project != "update":
            return updates
        shift = jax.tree.map(
            lambda g, partners: g - jnp.einsum("goi,gi->go", partners, g),
            updates["shift"],
            context.memory["partners"],
        )
        return {"matrix": _outside(updates["matrix"], context.memory), "shift": shift}

    def prepare(params: Params, context: Context, batch: Batch, key: Key) -> Memory:
        del params, key
        memory, tower = context.memory, model.tower_of(batch.modality)
        own = model.modalities.index(batch.modality)
        group = 0 if sharing == SHARED else model.members(tower).index(own)
        weighted = batch.query * batch.weight[:, None]
        added = jnp.matmul(weighted.T, batch.query, precision="highest")
        moment = memory["moment"][tower].at[group].add(added)
        member = jax.nn.one_hot(batch.label, len(memory["count"]))
        return memory | {
            "moment": memory["moment"] | {tower: moment},
            "count": memory["count"] + batch.weight @ member,
        }

    def end_task(params: Params, context: Context, key: Key) -> tuple[Params, Memory]:
        del key
        memory, inputs, partners = context.memory, {}, {}
        for tower in towers:
            of = _group_classes(model, tower, sharing, context.classes)
            share = of * memory["count"]
            number = jnp.maximum(share.sum(-1), 1)[:, None, None]
            text = context.classes.text
            texts = jnp.einsum("gc,cd,ce->gde", share, text, text, precision="highest")
            inputs[tower] = memory["moment"][tower] / number
            partners[tower] = texts / number
        thresholds = {
            "inputs": dict.fromkeys(towers, options.input_threshold),
            "partners": dict.fromkeys(towers, options.partner_threshold),
        }
        moments = {"inputs": inputs, "partners": partners}
        return params, memory | projection.spans(moments, thresholds)

    method = plain._replace(
        loss=loss,
        prepare=prepare,
        end_task=end_task,
        constrain=constrain,
        needs_inputs=False,
    )
    return routed(method, model, sharing)


def _outside(matrices: PyTree, memory: Memory) -> PyTree:
    return jax.tree.map(
        jax.vmap(projection.outside), matrices, memory["partners"], memory["inputs"]
    )


def _group_classes(
    model: Model, tower: str, sharing: Sharing, classes: Classes
) -> Bool[Array, "g C"]:
    members = np.asarray(model.members(tower))
    of = classes.modality == members[:, None]
    return of.any(0, keepdims=True) if sharing == SHARED else of
