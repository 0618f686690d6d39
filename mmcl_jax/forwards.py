"""A prediction cut at the tower: what it asks the tower, the answers, what follows.

Nearly all of a prediction's time is the tower's. What the tower answers depends on its
frozen weights, on the samples and on what an adapter injects, and on nothing else. So
answers stay as they are while the injections do, whatever else a method has learnt: the
adapter of another modality, a new solve behind the tower. That is decided by the
injections themselves, bit by bit, and never by what a method is called.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, UInt32

from mmcl_jax.methods.base import Method
from mmcl_jax.models import Model
from mmcl_jax.types import Batch, Context, Params, Prediction, PyTree

Answers = tuple[Array, ...]
MakeMethod = Callable[[Model], Method]

# independent sums, each of 32 bits
_SUMS = 4


def digest(tree: PyTree) -> UInt32[Array, " sums"]:
    """Returns 128 bits that differ where two trees of a structure differ in any bit.

    Two trees have the same digest by chance alone, as two files have the same hash.
    Each word is mixed with its place, by the finalizer of MurmurHash3, and the results
    are added modulo 2^32; so the order of the additions does not show.
    """
    total = jnp.zeros(_SUMS, jnp.uint32)
    for i, leaf in enumerate(jax.tree.leaves(tree)):
        bits = jax.lax.bitcast_convert_type(
            leaf.astype(jnp.float32), jnp.uint32
        ).reshape(-1)
        place = jnp.arange(bits.size, dtype=jnp.uint32) * jnp.uint32(0x9E3779B1)
        for k in range(_SUMS):
            salt = jnp.uint32((0x85EBCA6B * (_SUMS * i + k + 1)) % 2**32)
            word = _mixed(_mixed(place + salt) ^ bits)
            total = total.at[k].add(jnp.sum(word, dtype=jnp.uint32))
    return total


def _mixed(x: Array) -> Array:
    x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
    return x ^ (x >> 16)


def ask(
    make_method: MakeMethod,
    model: Model,
    params: Params,
    context: Context,
    batch: Batch,
) -> UInt32[Array, "2 forwards sums"]:
    """Returns a digest of the injection of each forward of a prediction.

    Twice, for two different answers of the tower: where a method's second forward
    depended on the first, the digests would differ, and say that they say nothing.

    Args:
        make_method: builds the method around a model.
        model: the frozen encoder.
        params: of the method.
        context: of the prediction.
        batch: its inputs are not read.
    """

    def asked(answer: float) -> Array:
        digests = [jnp.zeros(_SUMS, jnp.uint32)]  # a stack of none has no shape

        def embed(frozen, modality, inputs, injection) -> Array:
            digests.append(digest(injection))
            return jnp.full((len(batch.label), model.spec.embedding), answer)

        def layer_features(frozen, modality, inputs, blocks) -> Array:
            shapes = model.input_shapes[model.modalities.index(modality)]
            rows = jax.tree.map(
                lambda leaf: jax.ShapeDtypeStruct(
                    (len(batch.label), *leaf.shape), leaf.dtype
                ),
                shapes,
            )
            like = jax.eval_shape(
                lambda frozen, rows: model.layer_features(
                    frozen, modality, rows, blocks
                ),
                frozen,
                rows,
            )
            return jnp.full(like.shape, answer, like.dtype)

        watched = model._replace(embed=embed, layer_features=layer_features)
        make_method(watched).predict(params, context, batch)
        return jnp.stack(digests)

    return jnp.stack([asked(0.0), asked(1.0)])


def answer(
    make_method: MakeMethod,
    model: Model,
    params: Params,
    context: Context,
    batch: Batch,
) -> Answers:
    """Returns what the tower gives in each forward of a prediction, see `ask`."""
    answers: list[Array] = []

    def kept(call: Callable[..., Array]) -> Callable[..., Array]:
        def watched(*args: Any) -> Array:
            answers.append(call(*args))
            return answers[-1]

        return watched

    watched = model._replace(
        embed=kept(model.embed), layer_features=kept(model.layer_features)
    )
    make_method(watched).predict(params, context, batch)
    return tuple(answers)


def conclude(
    make_method: MakeMethod,
    model: Model,
    params: Params,
    context: Context,
    batch: Batch,
    answers: Answers,
) -> Prediction:
    """Returns the prediction that follows from the tower's answers, see `ask`."""
    left = iter(answers)

    def next_answer(*args: Any) -> Array:
        return next(left)

    given = model._replace(embed=next_answer, layer_features=next_answer)
    return make_method(given).predict(params, context, batch)
