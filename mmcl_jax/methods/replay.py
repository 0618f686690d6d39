"""Rehearsal of samples that are stored within a budget of bytes."""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mmcl_jax.methods.base import Features, Method, forward
from mmcl_jax.models.model import Model
from mmcl_jax.ops import losses, reservoir, trees
from mmcl_jax.types import (
    Batch,
    Capacity,
    Context,
    Key,
    Memory,
    Metrics,
    Params,
    PyTree,
)

# 2 MiB for five modalities
DEFAULT_BYTES = 2 * 2**20 // 5

# `(params, context, remembered samples, their stored logits or None, key) -> scalar`
Term = Callable[[Params, Context, Batch, Array | None, Key], Float[Array, ""]]
# `(loss of the batch, each term on a draw of its own) -> loss`
Mix = Callable[[Array, Mapping[str, Array]], Float[Array, ""]]


def with_replay(
    method: Method,
    model: Model,
    modality_bytes: int,
    terms: Mapping[str, Term],
    mix: Mix,
    stores_logits: bool = False,
) -> Method:
    """Adds terms of remembered samples to the loss, each on its own draw.

    There is one reservoir for each shape of inputs, with equal bytes for each modality
    of that shape and room for one sample at least. Where logits are stored, a sample
    takes more bytes the more class slots there are, so that a reservoir keeps fewer
    samples when these grow. A draw is as large as the batch, and
    from one reservoir, chosen by its share of all samples met, stored or not: a
    sentence takes much less room than a clip, and would otherwise dominate rehearsal.
    Reservoirs are filled after a task's training, with inputs, queries and logits in
    half precision.

    Args:
        method: Method that is wrapped.
        model: Static facts, such as the shapes of inputs.
        modality_bytes: Bytes for each modality; those of equal shapes share theirs.
        terms: Terms of the loss by the name under which each is logged.
        mix: Function that combines the losses; unused before anything is stored.
        stores_logits: Whether the logits that `method` predicts are stored; those of
            classes not seen at the time are masked by `losses.mask_logits`.
    """
    by_shape = _modalities_by_shape(model)
    shapes = {name: _row_shapes(model, name) for name in by_shape}

    def init(key: Key, room: Capacity) -> tuple[Params, Memory]:
        params, memory = method.init(key, room)
        buffers = {}
        for name, row in shapes.items():
            if stores_logits:
                logits = jax.ShapeDtypeStruct((room.classes,), jnp.float16)
                row = row | {"logits": logits}
            alike = sum(
                _shape(model, m) == _shape(model, name) for m in model.modalities
            )
            slots = alike * modality_bytes // reservoir.row_bytes(row)
            buffers[name] = _empty(max(1, slots), row)
        offered = {name: jnp.zeros(()) for name in shapes}
        return params, memory | {"buffers": buffers, "offered": offered}

    def rehearse(
        term: Term, params: Params, context: Context, rows: int, key: Key
    ) -> Float[Array, ""]:
        buffers = context.memory["buffers"]
        which, within, inside = jax.random.split(key, 3)
        offered = jnp.stack([context.memory["offered"][name] for name in buffers])
        chosen = jax.random.categorical(which, jnp.log(offered))

        def of(name: str) -> Callable[[Params], tuple[Array, Params]]:
            def value(params: Params) -> Array:
                drawn, weight = reservoir.draw(buffers[name], within, rows)
                batch = _as_batch(drawn, weight, name, model)
                return term(params, context, batch, drawn.get("logits"), inside)

            return jax.value_and_grad(value)

        # Only the chosen reservoir's samples pass through the tower. Each branch takes
        # its own gradient: residuals for a gradient outside would be kept for them all.
        at = jax.lax.stop_gradient(params)
        value, gradient = jax.lax.switch(chosen, [of(name) for name in buffers], at)
        return trees.tangent(value, gradient, params)

    def loss(
        params: Params, context: Context, batch: Batch, features: Features, key: Key
    ) -> tuple[Float[Array, ""], Metrics]:
        value, metrics = method.loss(params, context, batch, features, key)
        offered = sum(context.memory["offered"].values())
        # a batch of padding alone must leave the parameters unchanged
        there = (offered > 0) & jnp.any(batch.weight > 0)
        replayed = {
            name: jnp.where(
                there,
                rehearse(
                    term,
                    params,
                    context,
                    batch.label.shape[0],
                    jax.random.fold_in(key, i),
                ),
                0.0,
            )
            for i, (name, term) in enumerate(terms.items())
        }
        mixed = jnp.where(there, mix(value, replayed), value)
        return mixed, metrics | replayed

    def observe(
        params: Params, context: Context, batch: Batch, features: Features, key: Key
    ) -> Memory:
        memory = context.memory
        if method.observes:
            memory = method.observe(params, context, batch, features, key)
        own = _shape(model, batch.modality)
        name = next(n for n in by_shape if _shape(model, n) == own)
        rows = {
            "inputs": batch.inputs,
            "query": batch.query,
            "label": batch.label,
            "modality": batch.hint,
        }
        if stores_logits:
            logits = method.predict(params, context, batch, features).logits
            rows["logits"] = losses.mask_logits(
                logits.astype(jnp.float16), context.classes.seen
            )
        buffers, offered = memory["buffers"], memory["offered"]
        added = reservoir.add(buffers[name], rows, batch.weight, batch.id, key)
        met = offered[name] + jnp.sum(batch.weight > 0)
        return memory | {
            "buffers": buffers | {name: added},
            "offered": offered | {name: met},
        }

    return method._replace(
        init=init,
        loss=loss,
        # remembered samples are of every modality
        trainable=lambda params, context: jax.tree.map(lambda _: jnp.ones(()), params),
        observe=observe,
        observes=True,
    )


def label_term(model: Model, method: Method) -> Term:
    """Returns the loss of `method` on remembered samples and their labels."""

    def term(
        params: Params, context: Context, batch: Batch, stored: Array | None, key: Key
    ) -> Float[Array, ""]:
        del stored
        features = forward(method, model, params, context, batch)
        return method.loss(params, context, batch, features, key)[0]

    return term


def _shape(model: Model, modality: str) -> PyTree:
    return model.input_shapes[model.modalities.index(modality)]


def _modalities_by_shape(model: Model) -> tuple[str, ...]:
    """Returns the first modality of each shape of inputs."""
    first: list[str] = []
    for name in model.modalities:
        if all(_shape(model, name) != _shape(model, other) for other in first):
            first.append(name)
    return tuple(first)


def _empty(slots: int, row: PyTree) -> reservoir.Reservoir:
    """Returns a reservoir in which no class has a stored logit."""
    made = reservoir.init(slots, row)
    if "logits" not in row:
        return made
    masked = losses.mask_logits(
        made.rows["logits"], jnp.zeros(row["logits"].shape, bool)
    )
    return made._replace(rows=made.rows | {"logits": masked})


def _row_shapes(model: Model, modality: str) -> PyTree:
    def stored(x: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        # token ids fit, since no supported vocabulary has more than 65536 entries
        whole = jnp.issubdtype(x.dtype, jnp.integer)
        return jax.ShapeDtypeStruct(x.shape, jnp.uint16 if whole else jnp.float16)

    index = jax.ShapeDtypeStruct((), jnp.int32)
    return {
        "inputs": jax.tree.map(stored, _shape(model, modality)),
        "query": jax.ShapeDtypeStruct((model.spec.embedding,), jnp.float16),
        "label": index,
        "modality": index,
    }


def _as_batch(drawn: PyTree, weight: Array, modality: str, model: Model) -> Batch:
    """Returns drawn rows as a batch; `modality` stands for all of its shape."""
    return Batch(
        inputs=jax.tree.map(
            lambda x, shape: x.astype(shape.dtype),
            drawn["inputs"],
            _shape(model, modality),
        ),
        query=drawn["query"].astype(jnp.float32),
        label=drawn["label"],
        weight=weight,
        id=jnp.full_like(drawn["label"], -1),
        hint=drawn["modality"],
        modality=modality,
    )
