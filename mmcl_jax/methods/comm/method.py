"""COMM, as we read it: aggregation within and across modalities, and re-alignment.

The paper's text was not available: each uncertain part is an option, described in
`Options`, and nothing here claims the paper's numbers.

The functions stand in the order in which a task calls them; `make` binds the first
argument of each, the `Setup`.

References:
    Jin & Kim, Continual Learning for Multiple Modalities, arXiv 2503.08064, 2025.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from mmcl_jax.methods import router as routers
from mmcl_jax.methods.adapted import adapted_pass
from mmcl_jax.methods.base import (
    Common,
    Features,
    Method,
    Pass,
    alignment,
    modalities_now,
    text_logits,
)
from mmcl_jax.methods.class_context import CLASS_CONTEXT, init_context, with_names
from mmcl_jax.methods.comm import realignment
from mmcl_jax.methods.comm.aggregation import anchored_adapters, by_slot, used_adapters
from mmcl_jax.methods.comm.options import Options
from mmcl_jax.methods.comm.relevance import (
    fit_router,
    relevance_weights,
    scores,
    warm_start,
)
from mmcl_jax.methods.sharing import PER_MODALITY_GIVEN, init_groups
from mmcl_jax.models.model import Model
from mmcl_jax.ops import gaussians, losses
from mmcl_jax.types import (
    Batch,
    Capacity,
    Context,
    Key,
    Memory,
    Metrics,
    Params,
    Prediction,
    PyTree,
)


class Setup(NamedTuple):
    """What is fixed for the whole stream.

    Attributes:
        model: Static facts of the encoder and the stream.
        options: Switches of COMM.
        common: What a run chooses for every method; `sharing` is not read, since each
            modality has its own adapter.
    """

    model: Model
    options: Options
    common: Common

    @property
    def reads_views(self) -> bool:
        """Returns whether learnt classes answer by their Gaussians."""
        return self.options.realignment == "views"

    @property
    def compares_embeddings(self) -> bool:
        """Returns whether self-regularization needs the anchor's embeddings."""
        own = self.options
        return (
            own.self_regularization is not None
            and own.self_regularization_form == "cosine"
        )


def make(model: Model, options: Options, common: Common) -> Method:
    """Returns our reading of COMM.

    For each modality `m` it keeps the trained adapter `Θ_m` and the anchor, the mean of
    its snapshots. While the k-th task of `m` is learnt,

        P̄_m = ((k - 1) anchor_m + Θ_m) / k                          within a modality
        P(x) = sum_m w_m(q(x)) P̄_m                                  across modalities
        loss = CE(s z · u_c) + λ (1 - cos(z, z under anchor_m)),

    where the relevance `w` is a discriminant analysis of the frozen query `q(x)` from
    the Gaussians of all queries so far. After the task, a learnt class answers by its
    Gaussians in three views of a sample: the query, the layer features of the frozen
    tower `h`, and those under the adapter `g`, whose Gaussians follow its drift:

        log p(c | x) = log p(m | q) + (log p_m(c | q) + 2 log p_m(c | h)
                                       + log p_m(c | g)) / 4,

    renormalised within the modality. A class that was never learnt answers by its text
    and the frozen query alone.

    With learnt vectors in front of class names (`common.class_context`), these are a
    part of `Θ_m`, so that `u_c` of a class of `m` follows from `P̄_m`.
    """
    setup = Setup(model, options, common)

    def bound(function):
        return functools.partial(function, setup)

    return Method(
        init=bound(_init),
        prepare=bound(_prepare),
        begin_task=bound(_begin_task),
        inject=bound(_inject),
        loss=bound(_loss),
        trainable=bound(_trainable),
        observe=bound(_observe),
        end_task=bound(_end_task),
        predict=bound(_predict),
        layer_blocks=options.blocks if setup.reads_views else 0,
        observes_layers=setup.reads_views,
        uses_hint=True,
        observes=setup.reads_views,
    )


def _init(setup: Setup, key: Key, room: Capacity) -> tuple[Params, Memory]:
    model, options, common = setup
    m = len(model.modalities)
    adapters = init_groups(key, model, common.adapter, PER_MODALITY_GIVEN)
    if common.class_context is not None:
        adapters[CLASS_CONTEXT] = init_context(model, common.class_context, m)
    classes, width = room.classes, model.spec.embedding
    router = routers.init(classes, width) | {
        "temperature": jnp.ones(()),
        "jitter": jnp.zeros(()),
        "mean_relevance": jnp.eye(m),
    }
    memory = {
        "anchor": jax.tree.map(jnp.zeros_like, adapters),
        "snapshots": jnp.zeros(m, jnp.int32),
        "active": jnp.zeros(m, bool),
        "support": jnp.zeros((m, m), bool),
        "queries": gaussians.init(classes, m, width),
        "router": router,
    }
    if setup.reads_views:
        memory |= realignment.init(model, options, room)
    return {"adapters": adapters}, memory


def _prepare(
    setup: Setup, params: Params, context: Context, batch: Batch, key: Key
) -> Memory:
    """Adds frozen queries to the Gaussians of their classes."""
    del setup, params, key
    updated = gaussians.update(
        context.memory["queries"],
        batch.query,
        batch.label,
        batch.weight,
        context.classes.modality,
    )
    return context.memory | {"queries": updated}


def _begin_task(
    setup: Setup, params: Params, context: Context, key: Key
) -> tuple[Params, Memory]:
    """Starts the adapters of the task's modalities, and fits the router."""
    model, options, _ = setup
    memory, classes = context.memory, context.classes
    active = modalities_now(model, classes)
    if options.warm_start:
        params = warm_start(model, params, context, active)
    known = (memory["snapshots"] > 0) | active
    memory = memory | {
        "active": active,
        "support": jnp.where(active[:, None], known[None, :], memory["support"]),
    }
    context = context._replace(memory=memory)
    router = fit_router(model, options, context, key)
    return params, memory | {"router": router}


def _used(setup: Setup, params: Params, memory: Memory) -> PyTree:
    """Returns `P̄_m` of every modality."""
    return used_adapters(
        setup.model,
        setup.options.aggregation,
        params["adapters"],
        memory,
    )


def _has_anchor(setup: Setup, memory: Memory, batch: Batch) -> Bool[Array, ""]:
    """Returns whether a task of the batch's modality has been learnt."""
    return memory["snapshots"][setup.model.modalities.index(batch.modality)] > 0


def _inject(
    setup: Setup, params: Params, context: Context, batch: Batch
) -> tuple[Pass, ...]:
    """Returns the pass with `P(x)` and, where it is compared, that with the anchors.

    Both have the same weights. The first task of a modality has no anchor, and skips
    the second pass.
    """
    model, options, common = setup
    memory, tower = context.memory, model.tower_of(batch.modality)
    weights = relevance_weights(model, options, context, batch)
    weights = weights[:, np.asarray(model.members(tower))]

    def through(stacks: PyTree) -> Pass:
        return adapted_pass(model, common.adapter, stacks, weights, batch)

    own = through(_used(setup, params, memory))
    compared = {
        "train": setup.compares_embeddings,
        "observe": options.transport,
    }
    if not compared.get(context.phase, False):
        return (own,)
    anchored = through(anchored_adapters(model, params["adapters"], memory))
    return own, anchored._replace(when=_has_anchor(setup, memory, batch))


def _loss(
    setup: Setup,
    params: Params,
    context: Context,
    batch: Batch,
    features: Features,
    key: Key,
) -> tuple[Float[Array, ""], Metrics]:
    del key
    model, options, common = setup
    named = _named(setup, _used(setup, params, context.memory), context)
    value, metrics = alignment(
        model, features.embeddings[0], named, batch, common.label_space
    )
    if options.self_regularization is None:
        return value, metrics
    if setup.compares_embeddings:
        z, reference = features.embeddings
        cosine = losses.cosine_distance(z, reference, batch.weight)
        distance = jnp.where(_has_anchor(setup, context.memory, batch), cosine, 0.0)
    else:
        distance = _parameter_distance(setup, params, context, batch)
    return value + options.self_regularization * distance, metrics | {
        "self_regularization": distance
    }


def _parameter_distance(
    setup: Setup, params: Params, context: Context, batch: Batch
) -> Float[Array, ""]:
    """Returns the squared distance of the adapters in use from the anchors."""
    model, memory = setup.model, context.memory
    anchored = anchored_adapters(model, params["adapters"], memory)
    share = by_slot(model, anchored, memory["active"].astype(jnp.float32))
    moved = jax.tree.map(
        lambda new, old, s: jnp.sum(s * jnp.square(new - old)),
        _used(setup, params, memory),
        anchored,
        share,
    )
    distance = jax.tree.reduce(jnp.add, moved)
    # a batch of padding alone must leave the parameters unchanged
    return jnp.where(jnp.any(batch.weight > 0), distance, 0.0)


def _named(setup: Setup, stacks: PyTree, context: Context) -> Context:
    """Returns the context with the class texts under the learnt words in `stacks`."""
    if setup.common.class_context is None:
        return context
    return with_names(setup.model, stacks[CLASS_CONTEXT], context)


def _trainable(setup: Setup, params: Params, context: Context) -> PyTree:
    active = context.memory["active"].astype(jnp.float32)
    return {"adapters": by_slot(setup.model, params["adapters"], active)}


def _observe(
    setup: Setup,
    params: Params,
    context: Context,
    batch: Batch,
    features: Features,
    key: Key,
) -> Memory:
    """Adds features to their Gaussians, and how far those of the modality moved."""
    del params, key
    model, options, _ = setup
    has_anchor = _has_anchor(setup, context.memory, batch)
    return context.memory | realignment.observe(
        model, options, context, batch, features, has_anchor
    )


def _end_task(
    setup: Setup, params: Params, context: Context, key: Key
) -> tuple[Params, Memory]:
    """Sets the anchors to the adapters in use, and solves the re-alignment."""
    del key
    model, options, _ = setup
    memory = context.memory
    memory = memory | {
        "anchor": _used(setup, params, memory),
        "snapshots": memory["snapshots"] + memory["active"],
        "active": jnp.zeros_like(memory["active"]),
    }
    if setup.reads_views:
        active = context.memory["active"]
        memory |= realignment.end_task(model, options, context, active)
    return params, memory


def _predict(
    setup: Setup, params: Params, context: Context, batch: Batch, features: Features
) -> Prediction:
    model, options, _ = setup
    found = scores(model, context, batch.query)
    if setup.reads_views:
        logits = realignment.logits(model, options, context, batch, features, found)
        return Prediction(logits, found)
    used = _used(setup, params, context.memory)
    classes = _named(setup, used, context).classes
    return Prediction(
        text_logits(features.embeddings[0], classes, model.logit_scale), found
    )
