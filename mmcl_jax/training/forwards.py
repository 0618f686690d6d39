"""A prediction cut at the tower: what the tower answers, and what follows from that.

Nearly all of a prediction's time is the tower's. What the tower answers depends on its
frozen weights, on the samples and on what an adapter injects, and on nothing else. So
answers stay as they are while the injections do, whatever else a method has learnt: the
adapter of another modality, a new solve behind the tower. That is decided by the
injections themselves, bit by bit, and never by what a method is called.

`conclude` makes the prediction from answers, and with it the digests of the injections.
If these are the digests that came with the answers when they were fresh, the answers
are what the tower would give: the first forward's since it is asked the same; and then
the second's, even where its injection depends on the first answer, and so on.
"""

import dataclasses
import functools
import operator
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.extend.core import get_opaque_trace_state
from jaxtyping import Array, UInt32

from mmcl_jax.methods.base import Method
from mmcl_jax.models import Model
from mmcl_jax.models.tower import Injection
from mmcl_jax.types import Batch, Context, Params, Prediction, PyTree

Answers = tuple[Array, ...]
Digests = tuple[UInt32[Array, " sums"], ...]
MakeMethod = Callable[[Model], Method]

# independent sums, each of 32 bits
_SUMS = 4


def digest(tree: PyTree) -> UInt32[Array, " sums"]:
    """Returns 128 bits that differ where two trees of a structure differ in any bit.

    Two trees have the same digest by chance alone, as two files have the same hash.
    Each word is mixed with its place, by the finalizer of MurmurHash3, and the results
    are added modulo 2^32; so the order of the additions does not show.

    Raises:
        TypeError: a leaf is of a type that float32 does not hold.
    """
    total = jnp.zeros(_SUMS, jnp.uint32)
    for i, leaf in enumerate(map(jnp.asarray, jax.tree.leaves(tree))):
        if jnp.promote_types(leaf.dtype, jnp.float32) != jnp.float32 or not (
            jnp.issubdtype(leaf.dtype, jnp.floating)
        ):
            raise TypeError(f"an injection of {leaf.dtype}, not of float32")
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


class _Withheld:
    """Stands where inputs would be; whoever reads it is told that there are none."""

    def __getitem__(self, name: object) -> None:
        raise TypeError("predict reads batch.inputs beside the tower")


def without_inputs(batch: Batch) -> Batch:
    """Returns the batch with inputs that can be handed to a tower and nothing else."""
    return dataclasses.replace(batch, inputs=_Withheld())


def answer(
    make_method: MakeMethod,
    model: Model,
    params: Params,
    context: Context,
    batch: Batch,
) -> Answers:
    """Returns what the tower gives in each forward of a prediction.

    Args:
        make_method: builds the method around a model.
        model: the frozen encoder.
        params: of the method.
        context: of the prediction.
        batch: with its inputs.
    """
    answers: list[Array] = []

    def keep(forward: Callable[[], Array], injection: Injection | None) -> Array:
        del injection
        answers.append(forward())
        return answers[-1]

    watched = _watched(model, context, batch, keep)
    make_method(watched).predict(params, context, batch)
    return tuple(answers)


def conclude(
    make_method: MakeMethod,
    model: Model,
    params: Params,
    context: Context,
    batch: Batch,
    answers: Answers,
) -> tuple[Prediction, Digests]:
    """Returns the prediction that follows from answers, and what was asked for them.

    Args:
        make_method: as of `answer`.
        model: as of `answer`.
        params: as of `answer`.
        context: as of `answer`.
        batch: of `without_inputs`.
        answers: of `answer`.

    Raises:
        TypeError: `predict` reads the inputs beside the tower, changes them or the
            frozen weights in front of it, or injects what has no digest.
    """
    left, digests = list(answers), []

    def give(forward: Callable[[], Array], injection: Injection | None) -> Array:
        del forward
        digests.append(digest(injection))
        if not left:
            raise TypeError("predict changes batch.inputs in front of the tower")
        return left.pop(0)

    watched = _watched(model, context, batch, give)
    prediction = make_method(watched).predict(params, context, batch)
    if left:
        raise TypeError("predict asks the tower another time if it has no inputs")
    return prediction, tuple(digests)


def _watched(
    model: Model,
    context: Context,
    batch: Batch,
    take: Callable[[Callable[[], Array], Injection | None], Array],
) -> Model:
    """Returns the model with forwards that `take` is asked for.

    Those alone that read the samples and the frozen weights as they are: what the tower
    makes of anything else does not depend on the injection alone.

    Raises:
        TypeError: from a forward inside a loop, a branch or another transformation.
    """
    leaves, structure = jax.tree.flatten((context.frozen, batch.inputs))
    outside = get_opaque_trace_state()

    def as_they_are(frozen: PyTree, inputs: PyTree) -> bool:
        found, of = jax.tree.flatten((frozen, inputs))
        if of != structure or not all(map(operator.is_, found, leaves)):
            return False
        if get_opaque_trace_state() != outside:  # an answer could not leave it
            raise TypeError("predict calls the tower inside a transformation of JAX")
        return True

    def embed(
        frozen: PyTree,
        modality: str,
        inputs: PyTree,
        injection: Injection | None = None,
    ) -> Array:
        forward = functools.partial(model.embed, frozen, modality, inputs, injection)
        return take(forward, injection) if as_they_are(frozen, inputs) else forward()

    def layer_features(
        frozen: PyTree, modality: str, inputs: PyTree, blocks: int
    ) -> Array:
        forward = functools.partial(
            model.layer_features, frozen, modality, inputs, blocks
        )
        return take(forward, None) if as_they_are(frozen, inputs) else forward()

    return model._replace(embed=embed, layer_features=layer_features)
