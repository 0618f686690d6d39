"""Functions of a method by hand, the tower run before them as the learner does."""

from collections.abc import Callable
from typing import Any

from mmcl_jax.methods.base import Method, forward
from mmcl_jax.models.model import Model
from mmcl_jax.types import Batch, Context, Key, Memory, Params, Phase, Prediction


def loss(method: Method, model: Model) -> Callable[..., Any]:
    """`(params, context, batch, key) -> loss, metrics`; gradients reach the tower."""

    def whole(params: Params, context: Context, batch: Batch, key: Key):
        context = context._replace(phase="train")
        features = forward(method, model, params, context, batch)
        return method.loss(params, context, batch, features, key)

    return whole


def observe(method: Method, model: Model) -> Callable[..., Memory]:
    """`(params, context, batch, key) -> memory`."""

    def whole(params: Params, context: Context, batch: Batch, key: Key) -> Memory:
        context = context._replace(phase="observe")
        features = forward(method, model, params, context, batch)
        return method.observe(params, context, batch, features, key)

    return whole


def predict(
    method: Method, model: Model, phase: Phase = "predict"
) -> Callable[..., Prediction]:
    """`(params, context, batch) -> prediction`, the task known or not."""

    def whole(params: Params, context: Context, batch: Batch) -> Prediction:
        context = context._replace(phase=phase)
        features = forward(method, model, params, context, batch)
        return method.predict(params, context, batch, features)

    return whole
