"""Re-alignment in COMM: three views of a sample, and Gaussians that follow the adapter.

The frozen query and the frozen layer features never drift. Layer features under the
adapter do: when a task moves them, the Gaussians of the earlier classes of its modality
are transported after them.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from mmcl_jax.methods import readout
from mmcl_jax.methods.base import Features
from mmcl_jax.methods.comm.options import Options
from mmcl_jax.models.model import Model
from mmcl_jax.ops import discriminant, gaussians, transport
from mmcl_jax.types import Batch, Capacity, Context, Memory

# weights of the frozen query, the frozen and the adapted layer features
_SHARES = (0.25, 0.5, 0.25)


def init(model: Model, options: Options, room: Capacity) -> Memory:
    """Returns the Gaussians and discriminants of no class."""
    m, d = len(model.modalities), model.spec.embedding
    width = int(readout.layer_widths(model, options.blocks).max())
    moves = {"moves": transport.init(width)} if options.transport else {}
    return moves | {
        "layers": gaussians.init(room.classes, m, width),
        "adapted": gaussians.init(room.classes, m, width),
        # of the task's own samples, until it ends
        "added": gaussians.init(room.classes, 1, width),
        "of_queries": discriminant.init(room.classes, m, d),
        "of_layers": discriminant.init(room.classes, m, width),
        "of_adapted": discriminant.init(room.classes, m, width),
    }


def observe(
    model: Model,
    options: Options,
    context: Context,
    batch: Batch,
    features: Features,
    has_anchor: Bool[Array, ""],
) -> dict[str, Any]:
    """Adds a batch of the task to its Gaussians, and how far its features have moved.

    Args:
        model: Static facts of the encoder.
        options: Switches of COMM.
        context: Context with the memory.
        batch: Samples of the task.
        features: Their features by the adapter in use and, with `transport`, by the
            anchor.
        has_anchor: Whether a task of the modality was learnt before: without, nothing
            has moved.
    """
    memory = context.memory
    frozen = readout.padded(model, features.layers, options.blocks)
    after, *before = (
        readout.padded(model, each, options.blocks) for each in features.adapted_layers
    )
    updated: dict[str, Any] = {
        "layers": gaussians.update(
            memory["layers"],
            frozen,
            batch.label,
            batch.weight,
            context.classes.modality,
        ),
        "added": gaussians.update(memory["added"], after, batch.label, batch.weight, 0),
    }
    if options.transport:
        started = jnp.where(has_anchor, before[0], after)
        updated["moves"] = transport.update(
            memory["moves"], started, after, batch.weight
        )
    return updated


def end_task(
    model: Model, options: Options, context: Context, active: Bool[Array, " m"]
) -> dict[str, Any]:
    """Moves old Gaussians, adds the task's, and solves the discriminants again.

    Args:
        model: Static facts of the encoder.
        options: Switches of COMM.
        context: Context with the memory.
        active: The modality of the task, of which a stage has one.
    """
    memory, modality = context.memory, context.classes.modality
    group = active.argmax()
    adapted, added = memory["adapted"], memory["added"]
    emptied: dict[str, Any] = {"added": jax.tree.map(jnp.zeros_like, added)}
    if options.transport:
        moves = memory["moves"]
        adapted = transport.transported(
            adapted, transport.solve(moves), group, modality == group
        )
        emptied["moves"] = jax.tree.map(jnp.zeros_like, moves)
    adapted = gaussians.merged(adapted, added, group)
    widths = readout.layer_widths(model, options.blocks)
    queries = np.full(len(widths), model.spec.embedding, np.float32)
    fitted = {
        name: discriminant.fit(
            stats, modality, jnp.asarray(width), active, memory[name]
        )
        for name, stats, width in (
            ("of_queries", memory["queries"], queries),
            ("of_layers", memory["layers"], widths),
            ("of_adapted", adapted, widths),
        )
    }
    return fitted | emptied | {"adapted": adapted}


def logits(
    model: Model,
    options: Options,
    context: Context,
    batch: Batch,
    features: Features,
    scores: Float[Array, "b m"],
) -> Float[Array, "b C"]:
    """Returns the logits of three views, see `readout.read`."""
    memory, blocks = context.memory, options.blocks
    shares = jnp.repeat(jnp.array(_SHARES)[:, None], len(model.modalities), axis=1)
    seen = {
        "queries": batch.query,
        "layers": readout.padded(model, features.layers, blocks),
        "adapted": readout.padded(model, features.adapted_layers[0], blocks),
    }
    views = [
        readout.View(share, x, memory[name], memory[f"of_{name}"])
        for share, (name, x) in zip(shares, seen.items(), strict=True)
    ]
    return readout.read(model, context, batch, scores, views)
