"""Learnt words in front of class names, for each modality.

The text embeddings of classes then depend on what is trained: they are recomputed from
`Classes.tokens` in every step, and the frozen ones of `Classes.text` are not used.
"""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float

from mmcl_jax.fields import Sharing
from mmcl_jax.methods.base import Method, Pass, modalities_now
from mmcl_jax.methods.sharing import SHARED
from mmcl_jax.models import encoder
from mmcl_jax.models.model import Model
from mmcl_jax.types import Batch, Capacity, Context, Key, Memory, Params, PyTree

# the key of the context in params
CLASS_CONTEXT = "class_context"


def init_context(model: Model, length: int, slots: int) -> Float[Array, "s p w"]:
    """Returns contexts that leave the words in front of names as they are."""
    return jnp.zeros((slots, length, model.spec.text.trunk.width))


def with_names(
    model: Model, vectors: Float[Array, "s p w"], context: Context
) -> Context:
    """Returns `context` with the class texts that learnt vectors give.

    Args:
        model: The frozen encoder.
        vectors: Context of each modality, or one of all; see `encoder.embed_names`.
        context: Context with the tokens of the class names.
    """
    classes = context.classes
    assert classes.tokens is not None
    slot = classes.modality if len(vectors) > 1 else jnp.zeros_like(classes.modality)
    text = encoder.embed_names(
        model.spec, context.frozen, classes.tokens, vectors[slot]
    )
    return context._replace(classes=classes._replace(text=text))


def with_class_context(
    method: Method, model: Model, length: int, sharing: Sharing
) -> Method:
    """Returns `method` with words in front of class names that it tunes as well.

    A modality's context is trained while a task of that modality is, as its adapter.
    Params gain the entry `CLASS_CONTEXT`; no other wrapper or penalty knows of it.

    Args:
        method: Method that compares features with class texts.
        model: The frozen encoder.
        length: Number of learnt vectors of a context.
        sharing: Whether all modalities share one, see `methods.sharing`.

    References:
        Zhou et al., Learning to Prompt for Vision-Language Models (CoOp), 2022.
    """

    def init(key: Key, room: Capacity) -> tuple[Params, Memory]:
        params, memory = method.init(key, room)
        slots = 1 if sharing == SHARED else len(model.modalities)
        return params | {CLASS_CONTEXT: init_context(model, length, slots)}, memory

    def inside(function: Callable) -> Callable:
        """Calls `function` with the method's own parameters and the learnt texts."""

        def called(params: Params, context: Context, *args):
            named = with_names(model, params[CLASS_CONTEXT], context)
            return function(_own(params), named, *args)

        return called

    def around(function: Callable) -> Callable:
        """As `inside`, for a function that returns parameters and memory."""

        def called(params: Params, context: Context, key: Key) -> tuple[Params, Memory]:
            changed, memory = inside(function)(params, context, key)
            return changed | {CLASS_CONTEXT: params[CLASS_CONTEXT]}, memory

        return called

    def trainable(params: Params, context: Context) -> PyTree:
        now = modalities_now(model, context.classes)
        now = now.any(keepdims=True) if sharing == SHARED else now
        mask = now.astype(jnp.float32)[:, None, None]
        return method.trainable(_own(params), context) | {CLASS_CONTEXT: mask}

    def constrain(updates: PyTree, params: Params, context: Context) -> PyTree:
        # the wrapped method does not know the context, whose updates pass unchanged
        constrained = method.constrain(_own(updates), _own(params), context)
        return constrained | {CLASS_CONTEXT: updates[CLASS_CONTEXT]}

    def after_step(params: Params, context: Context, batch: Batch) -> Memory:
        assert method.after_step is not None
        return method.after_step(_own(params), context, batch)

    def inject(params: Params, context: Context, batch: Batch) -> tuple[Pass, ...]:
        return method.inject(_own(params), context, batch)

    return method._replace(
        init=init,
        inject=inject,
        loss=inside(method.loss),
        predict=inside(method.predict),
        trainable=trainable,
        prepare=inside(method.prepare),
        begin_task=around(method.begin_task),
        observe=inside(method.observe),
        end_task=around(method.end_task),
        constrain=constrain,
        after_step=after_step if method.after_step else None,
        hint_matters=inside(method.hint_matters) if method.hint_matters else None,
    )


def _own(params: Params) -> Params:
    """Returns the parameters of the wrapped method."""
    return {name: leaf for name, leaf in params.items() if name != CLASS_CONTEXT}
