"""Losses over a batch of weighted rows and masked classes.

Every mean is weighted, rows of weight 0 may hold anything (NaN too), and masked entries
receive a gradient of exactly zero. Inputs of low precision are raised to float32;
float64 stays float64.
"""

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Shaped

Scalar = float | Float[Array, ""]

# Finite in float32 and bfloat16, so that a row with every class masked stays finite.
MASKED = -1e9


def unit_norm(z: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
    """Scales each vector to length 1: `z / max(|z|, 1e-6)`.

    Args:
        z: Vectors [..., d]; a zero vector stays zero and has a finite gradient.

    Returns:
        Vectors [..., d] of the same direction.

    >>> unit_norm(jnp.array([[3.0, 4.0]])).tolist()
    [[0.6000000238418579, 0.800000011920929]]
    """
    square = jnp.sum(z * z, axis=-1, keepdims=True)
    return z * jax.lax.rsqrt(jnp.maximum(square, 1e-12))


def mask_logits(
    logits: Float[Array, "*b C"], allowed: Bool[Array, "... C"]
) -> Float[Array, "*b C"]:
    """Replaces the logits of classes that are not allowed by a finite, low value.

    Args:
        logits: Scores [..., C].
        allowed: Mask of allowed classes, [C] or a shape that broadcasts to `logits`.

    Returns:
        Logits [..., C] of the same dtype: `MASKED`, or the lowest finite number of
        the dtype where that is higher.

    >>> mask_logits(jnp.zeros((1, 2)), jnp.array([True, False])).tolist()
    [[0.0, -1000000000.0]]
    """
    low = max(MASKED, float(jnp.finfo(logits.dtype).min))
    allowed = jnp.broadcast_to(allowed, logits.shape)
    return jnp.where(allowed, logits, jnp.asarray(low, logits.dtype))


def weighted_mean(
    values: Shaped[Array, " b"], weight: Float[Array, " b"]
) -> Float[Array, ""]:
    """Weighted mean `sum_b weight_b values_b / sum_b weight_b`.

    Rows of weight 0 add nothing and receive gradient 0. A value that is itself
    computed from NaN must be replaced before it is passed: zero times the NaN of an
    earlier derivative is NaN.

    Args:
        values: One value a row, [b]; integers and booleans become numbers.
        weight: Weight of each row, at least 0, [b].

    Returns:
        The mean, or 0 when no row has a weight.

    >>> float(weighted_mean(jnp.array([1.0, jnp.nan, 4.0]), jnp.array([2.0, 0, 1])))
    2.0
    """
    used = weight > 0
    if not jnp.issubdtype(values.dtype, jnp.floating):
        values = values.astype(weight.dtype)
    weight = jnp.where(used, weight, 0).astype(values.dtype)
    total = jnp.sum(weight)
    summed = jnp.sum(jnp.where(used, values, 0) * weight)
    return summed / jnp.where(total > 0, total, 1)


def cross_entropy(
    logits: Float[Array, "b C"],
    label: Int[Array, " b"],
    weight: Float[Array, " b"],
    allowed: Bool[Array, "... C"],
) -> Float[Array, ""]:
    """Weighted mean of the cross entropy among the allowed classes.

    It is `-log p[label]` with `p = softmax` of `logits` over the allowed classes.

    A row whose own label is not allowed cannot be right and is ignored. So is a row
    with every class masked, or with a label outside 0..C-1.

    Args:
        logits: Scores [b, C].
        label: Class index [b].
        weight: Weight of each row, at least 0, [b].
        allowed: Classes of the softmax, [C] or [b, C].

    Returns:
        The loss, 0 when no row counts.

    >>> every = jnp.ones(4, bool)
    >>> loss = cross_entropy(jnp.zeros((1, 4)), jnp.array([2]), jnp.ones(1), every)
    >>> round(float(loss), 6)  # ln 4
    1.386294
    """
    allowed = jnp.broadcast_to(allowed, logits.shape)
    target = (label[:, None] == jnp.arange(logits.shape[-1])[None, :]) & allowed
    weight = jnp.where(jnp.any(target, axis=-1), weight, 0)
    # The first `where` keeps NaN out of the forward pass; without it the derivative
    # of the second one, in `weighted_mean`, would be 0 * NaN.
    log_probability = _log_softmax(logits, weight, allowed)
    own = jnp.sum(jnp.where(target, log_probability, 0), axis=-1)
    return weighted_mean(-own, weight)


def cosine_distance(
    z: Float[Array, "b d"],
    z_reference: Float[Array, "b d"],
    weight: Float[Array, " b"],
) -> Float[Array, ""]:
    """Weighted mean of `1 - cos(z, z_reference)`, with the reference held fixed.

    Args:
        z: Features [b, d], need not be of unit norm.
        z_reference: Features [b, d] that no gradient flows into.
        weight: Weight of each row, at least 0, [b].

    Returns:
        A loss between 0 and 2.

    >>> z, reference = jnp.array([[2.0, 0.0]]), jnp.array([[0.0, 3.0]])
    >>> float(cosine_distance(z, reference, jnp.ones(1)))
    1.0
    """
    z = unit_norm(_rows(z, weight))
    z_reference = unit_norm(_rows(jax.lax.stop_gradient(z_reference), weight))
    return weighted_mean(1 - jnp.sum(z * z_reference, axis=-1), weight)


def distillation(
    teacher_logits: Float[Array, "b C"],
    student_logits: Float[Array, "b C"],
    temperature: Scalar,
    allowed: Bool[Array, "... C"],
    weight: Float[Array, " b"],
    form: Literal["kl", "cross_entropy"] = "kl",
) -> Float[Array, ""]:
    """Weighted mean of `T^2 KL(p || q)` between softened teacher and student.

    `p = softmax(teacher_logits / T)`, `q = softmax(student_logits / T)`, both over the
    allowed classes, `T = temperature`. The gradient with respect to a student logit
    is `T (q - p)`, so that it keeps its order of magnitude when T changes.

    Args:
        teacher_logits: Scores [b, C]; no gradient flows into them.
        student_logits: Scores [b, C].
        temperature: Divisor of both logits.
        allowed: Classes of the softmax, [C] or [b, C].
        weight: Weight of each row, at least 0, [b].
        form: Either `kl` or `cross_entropy`, which adds the teacher's entropy: the
            gradient is the same, but the loss of a perfect student is not 0.

    Returns:
        The loss, 0 when no row counts.

    >>> teacher, student = jnp.array([[2.0, 0, 0]]), jnp.array([[0.0, 2, 0]])
    >>> loss = distillation(teacher, student, 2.0, jnp.ones(3, bool), jnp.ones(1))
    >>> round(float(loss), 4)
    1.4567

    References:
        G. Hinton, O. Vinyals, J. Dean, "Distilling the Knowledge in a Neural
        Network", 2015, section 2.
        Z. Li, D. Hoiem, "Learning without Forgetting", ECCV 2016.
        Z. Zheng et al., "Preventing Zero-Shot Transfer Degradation in Continual
        Learning of Vision-Language Models" (ZSCL), ICCV 2023: the cross-entropy form.
    """
    allowed = jnp.broadcast_to(allowed, student_logits.shape)
    teacher_logits = jax.lax.stop_gradient(teacher_logits)
    log_p = _log_softmax(teacher_logits, weight, allowed, temperature)
    log_q = _log_softmax(student_logits, weight, allowed, temperature)
    surprise = (log_p - log_q) if form == "kl" else -log_q
    # The exponential of a masked entry is exactly 0, but its surprise may be huge.
    terms = jnp.where(allowed, jnp.exp(log_p) * surprise, 0)
    square = jnp.asarray(temperature, terms.dtype) ** 2
    return weighted_mean(square * jnp.sum(terms, axis=-1), weight)


def _log_softmax(
    logits: Float[Array, "b C"],
    weight: Float[Array, " b"],
    allowed: Bool[Array, "b C"],
    temperature: Scalar = 1.0,
) -> Float[Array, "b C"]:
    logits = _rows(logits, weight)
    logits = logits / jnp.asarray(temperature, logits.dtype)
    return jax.nn.log_softmax(mask_logits(logits, allowed), axis=-1)


def _rows(x: Float[Array, "b n"], weight: Float[Array, " b"]) -> Float[Array, "b n"]:
    """Returns rows with zeros where the weight is 0, in float32 at least."""
    dtype = jnp.float32 if jnp.finfo(x.dtype).bits < 32 else x.dtype
    return jnp.where((weight > 0)[:, None], x, 0).astype(dtype)
