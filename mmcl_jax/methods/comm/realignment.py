"""Re-alignment in COMM: its Gaussians, and the solve from them."""

import functools
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array

from mmcl_jax.methods.comm.options import Options
from mmcl_jax.models.model import Model
from mmcl_jax.ops import gaussians, realignment, relevance
from mmcl_jax.ops.gaussians import Gaussians
from mmcl_jax.types import Capacity, Context, Key, Memory


def num_groups(model: Model, options: Options, room: Capacity) -> int:
    """Returns the number of Gaussians."""
    return {
        "class": room.classes,
        "task": room.stages,
        "modality": len(model.modalities),
    }[options.granularity]


def covariance_group(options: Options, group: Array) -> Array:
    """Returns the index of each class's covariance `[C]`, 0 for all if it is tied."""
    return jnp.zeros_like(group) if options.covariance == "tied" else group


def group_of(options: Options, memory: Memory, context: Context) -> Array:
    """Returns the index of the Gaussian that each class belongs to `[C]`."""
    classes = context.classes
    return {
        "class": jnp.arange(len(classes.modality)),
        "task": memory["stage"],
        "modality": classes.modality,
    }[options.granularity]


def realigned(
    model: Model, options: Options, context: Context, key: Key
) -> dict[str, Any]:
    """Returns the re-alignment or the shifts solved from the Gaussians."""
    memory, classes = context.memory, context.classes
    kind, strength = options.realignment, options.realignment_regularization
    if kind == "off":
        return {}
    group = group_of(options, memory, context)
    stats = memory["features"]
    if options.granularity != "class":
        stats = gaussians.coarsen(stats, group)
    # classes in the table may still have no samples: their mean says nothing
    seen = classes.seen & (stats.count > 0)
    if kind == "mean_shift":
        shift = realignment.mean_shifts(
            stats.mean, classes.text, seen, classes.modality, len(model.modalities)
        )
        return {"shift": shift}
    if kind == "gradient":
        return {"realignment": _by_gradient(model, options, stats, group, context, key)}
    # a modality with many classes must not dominate the solve
    prior = relevance.balanced_prior(seen, classes.modality, len(model.modalities))
    covariance = _structure(options)(gaussians.covariance(stats, options.shrinkage))
    if kind == "regression":
        solved = realignment.regression(
            stats.mean, covariance, classes.text, prior, strength, model.logit_scale
        )
    else:
        solved = realignment.discriminant(
            stats.mean,
            covariance,
            classes.text,
            prior,
            strength,
            options.realignment_residual,
        )
    return {"realignment": solved}


def _structure(options: Options):
    if options.covariance in ("full", "tied"):
        return lambda matrix: matrix
    return functools.partial(
        gaussians.structured, form=options.covariance, rank=options.covariance_rank
    )


def _by_gradient(
    model: Model,
    options: Options,
    stats: Gaussians,
    group: Array,
    context: Context,
    key: Key,
) -> realignment.Realignment:
    label = jnp.repeat(jnp.arange(len(group)), options.pseudo_samples)
    drawn, weight, jitter = gaussians.sample(
        key,
        stats,
        label,
        covariance_group(options, group),
        options.shrinkage,
        structure=_structure(options),
    )
    solved = realignment.gradient(
        drawn,
        label,
        weight,
        context.classes.text,
        context.classes.seen,
        options.realignment_regularization,
        model.logit_scale,
    )
    return solved._replace(jitter=jitter)
