"""Functions of a method by hand, the tower run before them as the learner does.

Each is one compiled program: operation by operation, most of the time would go into
compiling each of them.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax

from mmcl_jax.methods.base import Method, forward
from mmcl_jax.models.model import Model
from mmcl_jax.types import (
    Batch,
    Capacity,
    Context,
    Key,
    Memory,
    Params,
    Phase,
    Prediction,
)


@functools.lru_cache
def compiled(
    function: Callable[..., Any], phase: Phase | None = None
) -> Callable[..., Any]:
    """`function(params, context, ...)` as a program, in a phase or the context's."""

    @functools.partial(jax.jit, static_argnums=0)
    def run(phase: Phase, params: Params, context: Context, *rest: Any) -> Any:
        return function(params, context._replace(phase=phase), *rest)

    def call(params: Params, context: Context, *rest: Any) -> Any:
        return run(phase or context.phase, params, context._replace(phase=None), *rest)

    return call


def init(method: Method, key: Key, capacity: Capacity) -> tuple[Params, Memory]:
    """Initial parameters and memory."""
    return _of_capacity(method.init)(key, capacity)


@functools.lru_cache
def _of_capacity(function: Callable[..., Any]) -> Callable[..., Any]:
    return jax.jit(function, static_argnums=1)


def loss(method: Method, model: Model) -> Callable[..., Any]:
    """`(params, context, batch, key) -> loss, metrics`; gradients reach the tower."""

    def whole(params: Params, context: Context, batch: Batch, key: Key):
        context = context._replace(phase="train")
        features = forward(method, model, params, context, batch)
        return method.loss(params, context, batch, features, key)

    return compiled(whole)


def observe(method: Method, model: Model) -> Callable[..., Memory]:
    """`(params, context, batch, key) -> memory`."""

    def whole(params: Params, context: Context, batch: Batch, key: Key) -> Memory:
        context = context._replace(phase="observe")
        features = forward(method, model, params, context, batch)
        return method.observe(params, context, batch, features, key)

    return compiled(whole)


def predict(
    method: Method, model: Model, phase: Phase = "predict"
) -> Callable[..., Prediction]:
    """`(params, context, batch) -> prediction`, the task known or not."""

    def whole(params: Params, context: Context, batch: Batch) -> Prediction:
        context = context._replace(phase=phase)
        features = forward(method, model, params, context, batch)
        return method.predict(params, context, batch, features)

    return compiled(whole)
