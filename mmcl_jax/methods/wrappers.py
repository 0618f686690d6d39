"""Wrappers that build one method from another.

Each keeps the entries of the memory that it finds. Their order matters; from the
inside:

1. `with_penalty` and penalties of features (`base.aligned`) add to the loss of the
   task's samples.
2. `replay.with_replay` adds the loss of remembered samples, which no penalty sees.
3. `with_interpolation` and, around it, `with_averaging`: the outer one acts first on
   the trained parameters and passes on its result, so it is their mean that is
   interpolated. Everything inside observes the parameters that the task leaves; a
   wrapper outside would get the parameters of the last step, with features of those
   that are left.

`with_anchor` may stand anywhere outside what reads the anchor.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mmcl_jax.methods.base import Features, Method, Pass
from mmcl_jax.ops import trees
from mmcl_jax.types import Batch, Capacity, Context, Key, Memory, Metrics, Params


def with_anchor(method: Method) -> Method:
    """Stores the parameters with which the task's training starts, as "before"."""

    def init(key: Key, room: Capacity) -> tuple[Params, Memory]:
        params, memory = method.init(key, room)
        return params, memory | {"before": jax.tree.map(jnp.zeros_like, params)}

    def begin_task(params: Params, context: Context, key: Key) -> tuple[Params, Memory]:
        params, memory = method.begin_task(params, context, key)
        # a copy, since the buffers of params are donated in every step
        return params, memory | {"before": trees.copy(params)}

    return method._replace(init=init, begin_task=begin_task)


def with_penalty(
    method: Method,
    penalty: Callable[[Params, Context], Float[Array, ""]],
    weight: float,
) -> Method:
    """Adds `weight` times a penalty of the parameters to the loss."""

    def loss(
        params: Params, context: Context, batch: Batch, features: Features, key: Key
    ) -> tuple[Float[Array, ""], Metrics]:
        value, metrics = method.loss(params, context, batch, features, key)
        # a batch of padding alone must leave the parameters unchanged
        added = jnp.where(jnp.any(batch.weight > 0), penalty(params, context), 0.0)
        return value + weight * added, metrics | {"penalty": added}

    return method._replace(loss=loss)


def with_averaging(method: Method, interval: int) -> Method:
    """Ends a task with the running mean of the parameters over its steps.

    The mean is of the parameters at the start of the task, after every `interval`
    steps and after the last one; without the last, a task of fewer steps would leave
    its start. Within the task the parameters are trained as if there were no mean.

    References:
        Z. Zheng et al., "Preventing Zero-Shot Transfer Degradation in Continual
        Learning of Vision-Language Models" (ZSCL), ICCV 2023: the weight ensemble.
    """

    def init(key: Key, room: Capacity) -> tuple[Params, Memory]:
        params, memory = method.init(key, room)
        average = jax.tree.map(jnp.zeros_like, params)
        return params, memory | {"average": average, "steps": jnp.zeros((), jnp.int32)}

    def begin_task(params: Params, context: Context, key: Key) -> tuple[Params, Memory]:
        params, memory = method.begin_task(params, context, key)
        steps = jnp.zeros((), jnp.int32)
        return params, memory | {"average": trees.copy(params), "steps": steps}

    def after_step(params: Params, context: Context, batch: Batch) -> Memory:
        memory = context.memory
        if method.after_step is not None:
            memory = method.after_step(params, context, batch)
        steps = memory["steps"] + 1
        mean = trees.running_mean(memory["average"], params, steps // interval)
        average = trees.select(steps % interval == 0, mean, memory["average"])
        return memory | {"average": average, "steps": steps}

    def final(params: Params, context: Context) -> Params:
        average, steps = context.memory["average"], context.memory["steps"]
        # after a last interval that is not full, the last parameters enter, too
        mean = trees.running_mean(average, params, steps // interval + 1)
        return trees.select(steps % interval == 0, average, mean)

    wrapped = method._replace(init=init, begin_task=begin_task, after_step=after_step)
    return _leaving(wrapped, final)


def with_interpolation(method: Method, share: float) -> Method:
    """Ends each task with `(1 - share) before + share after` its training.

    References:
        M. Wortsman et al., "Robust fine-tuning of zero-shot models" (WiSE-FT), CVPR
        2022, here after every task.
    """
    return with_anchor(
        _leaving(
            method,
            lambda params, context: trees.interpolate(
                context.memory["before"], params, share
            ),
        )
    )


def _leaving(method: Method, final: Callable[[Params, Context], Params]) -> Method:
    """Returns `method`, which observes and ends a task with `final` parameters."""

    def inject(params: Params, context: Context, batch: Batch) -> tuple[Pass, ...]:
        if context.phase == "observe":
            params = final(params, context)
        return method.inject(params, context, batch)

    return method._replace(
        inject=inject,
        observe=lambda params, context, batch, features, key: method.observe(
            final(params, context), context, batch, features, key
        ),
        end_task=lambda params, context, key: method.end_task(
            final(params, context), context, key
        ),
    )
