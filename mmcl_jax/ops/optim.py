"""The optimizer of every method that trains: AdamW, a cosine schedule for each task."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from mmcl_jax.fields import NonNegative, Positive
from mmcl_jax.types import Params, PyTree


@dataclasses.dataclass(frozen=True)
class OptimizerOptions:
    """Options of AdamW.

    Attributes:
        learning_rate: Step size at the start of a task; a cosine takes it to 0.
        weight_decay: Decoupled weight decay.
        clip_norm: Global norm that gradients are clipped to; None turns it off.
    """

    learning_rate: Positive = 3e-3
    weight_decay: NonNegative = 0.0
    clip_norm: Positive | None = 1.0


def make(options: OptimizerOptions) -> optax.GradientTransformation:
    """Returns the optimizer without its learning rate, which `step_size` gives."""
    clip = (
        optax.identity()
        if options.clip_norm is None
        else optax.clip_by_global_norm(options.clip_norm)
    )
    return optax.chain(
        clip, optax.scale_by_adam(), optax.add_decayed_weights(options.weight_decay)
    )


def step_size(
    options: OptimizerOptions, step: Int[Array, ""], steps: Int[Array, ""]
) -> Float[Array, ""]:
    """Returns `η (1 + cos(π step / steps)) / 2` of two traced numbers.

    Tasks differ in their number of steps, and a new task must not recompile.
    """
    progress = step / jnp.maximum(steps, 1)
    return options.learning_rate * 0.5 * (1 + jnp.cos(jnp.pi * progress))


def descend(
    loss: Callable[[PyTree], Float[Array, ""]],
    start: PyTree,
    steps: int,
    learning_rate: float,
) -> PyTree:
    """Returns where `steps` of plain Adam lead from `start`, for small side problems.

    Args:
        loss: Loss of a tree; every step sees all of its data.
        start: Tree of arrays.
        steps: Number of Adam steps, run as one compiled loop.
        learning_rate: Constant step size.
    """
    optimizer = optax.adam(learning_rate)

    def step(state: tuple, _: None) -> tuple[tuple, None]:
        tree, moments = state
        updates, moments = optimizer.update(jax.grad(loss)(tree), moments)
        return (optax.apply_updates(tree, updates), moments), None

    return jax.lax.scan(step, (start, optimizer.init(start)), length=steps)[0][0]


def masked(tree: PyTree, mask: PyTree) -> PyTree:
    """Returns `tree` with zeros where the 0/1 `mask` is 0."""
    # a select, since 0 times a gradient that is not finite is NaN
    return jax.tree.map(lambda x, m: jnp.where(m > 0, x, 0), tree, mask)


def apply(
    params: Params, updates: PyTree, mask: PyTree, size: Float[Array, ""]
) -> Params:
    """Returns the params after a step; where `mask` is 0 they are bitwise the same."""
    # masked gradients are not enough: moments and weight decay still give updates
    return jax.tree.map(
        lambda p, u, m: jnp.where(m > 0, p - size * u, p), params, updates, mask
    )
