"""The modality that a sample belongs to, and the blend of prompts that results.

A router scores the frozen, un-prompted feature of a sample (its query): a linear
discriminant over all classes, reduced to one score per modality. As queries never
drift, the router needs neither gradients nor replay, and is independent of the order of
tasks.
"""

import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_solve
from jaxtyping import Array, Bool, Float, Int

from mmcl_jax.ops.gaussians import Gaussians, cholesky_with_jitter, covariance
from mmcl_jax.ops.losses import MASKED, Scalar, mask_logits, weighted_mean
from mmcl_jax.types import PyTree

# enough to bring the bounds closer than float32 can tell apart
_BISECTIONS = 50


def modalities_of(
    classes: Bool[Array, " C"], class_modality: Int[Array, " C"], num_modalities: int
) -> Bool[Array, " m"]:
    """Returns the modalities that have at least one of the given classes.

    Args:
        classes: Mask over class slots [C].
        class_modality: Modality of each slot [C].
        num_modalities: Number m of modalities.
    """
    return jnp.any(_member(classes, class_modality, num_modalities), axis=0)


def balanced_prior(
    classes: Bool[Array, " C"], class_modality: Int[Array, " C"], num_modalities: int
) -> Float[Array, " C"]:
    """Returns class weights that give every modality the same weight.

    `prior_c = 1 / (number of modalities * number of classes of c's modality)`, counted
    among `classes`.

    Args:
        classes: Mask over class slots [C].
        class_modality: Modality of each slot [C].
        num_modalities: Number m of modalities.

    Returns:
        Weights [C] of sum 1, 0 outside `classes`; all 0 when there is no class.

    >>> balanced_prior(jnp.array([True, True, True]), jnp.array([0, 0, 1]), 2).tolist()
    [0.25, 0.25, 0.5]
    """
    member = _member(classes, class_modality, num_modalities)
    size = jnp.maximum(jnp.sum(member, axis=0), 1)
    number = jnp.maximum(jnp.sum(jnp.any(member, axis=0)), 1)
    share = 1 / (size * number).astype(jnp.result_type(float))
    return jnp.sum(jnp.where(member, share[None, :], 0), axis=-1)


def linear_discriminant(
    mean: Float[Array, "C d"],
    covariance: Float[Array, "d d"],
    prior: Float[Array, " C"],
) -> tuple[Float[Array, "C d"], Float[Array, " C"], Float[Array, ""]]:
    """Returns the discriminant `logits = x A^T + b` of classes with one covariance.

    With m the mean of the class means under `prior`, `A_c = S^-1 (mean_c - m)` and
    `b_c = -(mean_c - m)^T S^-1 (mean_c + m) / 2 + log prior_c`.

    Deviation: the textbook has m = 0. A common m adds the same number to all logits of
    a sample, which the softmax ignores. It keeps A, and with it the rounding errors of
    float32, small where all classes share a large mean (the cone of one modality).

    Args:
        mean: Class means [C, d].
        covariance: Shared within-class covariance S [d, d].
        prior: Class probabilities [C] up to a factor; 0 = takes no part.

    Returns:
        A [C, d] and b [C], 0 and `losses.MASKED` where the prior is 0; and the jitter,
        see `gaussians.cholesky_with_jitter`.

    >>> mean, prior = jnp.array([[0.0, 0], [2, 0]]), jnp.full(2, 0.5)
    >>> A, b, _ = linear_discriminant(mean, jnp.eye(2), prior)
    >>> probability = jax.nn.softmax(jnp.array([2.0, 0]) @ A.T + b)
    >>> round(float(probability[1]), 4)
    0.8808

    References:
        T. Hastie, R. Tibshirani, J. Friedman, "The Elements of Statistical Learning",
        2009, equation (4.10).
    """
    used = prior > 0
    prior = jnp.where(used, prior, 0).astype(mean.dtype)
    mean = jnp.where(used[:, None], mean, 0)
    total = jnp.sum(prior)
    centre = jnp.matmul(prior, mean, precision="highest")
    centre = (centre / jnp.where(total > 0, total, 1))[None, :]
    offset = jnp.where(used[:, None], mean - centre, 0)
    factor, jitter = cholesky_with_jitter(covariance)
    direction = cho_solve((factor, True), offset.T).T
    bias = -0.5 * jnp.sum(direction * (mean + centre), axis=-1)
    # no logarithm of 0: unused classes get the finite MASKED below
    bias = bias + jnp.log(jnp.where(used, prior, 1))
    return direction, jnp.where(used, bias, MASKED), jitter


def discriminant(
    stats: Gaussians,
    class_seen: Bool[Array, " C"],
    priors: Float[Array, " C"],
    shrinkage: Scalar,
) -> tuple[Float[Array, "C d"], Float[Array, " C"], Float[Array, ""]]:
    """Returns the `linear_discriminant` of stored statistics, covariance pooled.

    Args:
        stats: Statistics of queries.
        class_seen: Classes that may win [C]; those without samples are left out too.
        priors: Class probabilities [C] up to a factor, such as `balanced_prior`.
        shrinkage: Shrinkage of the covariance, between 0 and 1.

    Returns:
        A [C, d] and b [C], with `logits = query A^T + b`; and the jitter.
    """
    prior = jnp.where(class_seen & (stats.count > 0), priors, 0)
    return linear_discriminant(stats.mean, covariance(stats, shrinkage), prior)


def modality_scores(
    query: Float[Array, "b d"],
    A: Float[Array, "C d"],
    b: Float[Array, " C"],
    class_modality: Int[Array, " C"],
    class_seen: Bool[Array, " C"],
    num_modalities: int,
) -> Float[Array, "b m"]:
    """Returns the score of each modality: log-sum-exp of its classes' logits.

    This is the Bayes rule for the modality: it sums the class probabilities.

    Args:
        query: Frozen features [b, d].
        A: Class directions [C, d] of `discriminant`.
        b: Class offsets [C].
        class_modality: Modality of each class [C].
        class_seen: Classes that take part [C].
        num_modalities: Number m of modalities.

    Returns:
        Scores [b, m] in log space; `losses.MASKED` for modalities without a class.
    """
    logits = jnp.matmul(query.astype(A.dtype), A.T, precision="highest") + b[None, :]
    member = _member(class_seen, class_modality, num_modalities)
    members = jnp.where(member.T[None, :, :], logits[:, None, :], MASKED)
    scores = jax.nn.logsumexp(members, axis=-1)
    return mask_logits(scores, jnp.any(member, axis=0))


def relevance(
    scores: Float[Array, "b m"],
    seen_modalities: Bool[Array, "... m"],
    temperature: Scalar,
) -> Float[Array, "b m"]:
    """Returns blend weights `softmax(scores / temperature)` over seen modalities.

    Args:
        scores: Scores [b, m] of the router.
        seen_modalities: Mask [m] or [b, m].
        temperature: Divisor of the scores; large = uniform, small = one-hot.

    Returns:
        Weights [b, m] of sum 1; exactly 0 where unseen, all 0 if none was seen.

    >>> seen = jnp.array([True, True, False])
    >>> relevance(jnp.array([[1.0, 1.0, 9.0]]), seen, 1.0).tolist()
    [[0.5, 0.5, 0.0]]
    """
    seen_modalities = jnp.broadcast_to(seen_modalities, scores.shape)
    # Masked after the division: a large temperature must not lift the mask.
    logits = mask_logits(scores / temperature, seen_modalities)
    return jnp.where(seen_modalities, jax.nn.softmax(logits, axis=-1), 0)


def residual_relevance(
    scores: Float[Array, "b m"],
    own_modality: Int[Array, " b"],
    seen_modalities: Bool[Array, "... m"],
    temperature: Scalar,
    share: Scalar,
) -> Float[Array, "b m"]:
    """Returns blend weights of 1 for the own prompt and `share` for the others.

    With these weights `blend` gives `P_own + share * sum_(n != own) w_n P_n`, where w
    is the softmax over the other seen modalities, so that they take part even where the
    router is certain.

    Args:
        scores: Scores [b, m] of the router.
        own_modality: Modality [b] whose prompt has weight 1: the given one, or that of
            the best score.
        seen_modalities: Mask [m] or [b, m].
        temperature: Divisor of the scores.
        share: Total weight of the others.

    Returns:
        Weights [b, m].
    """
    own = own_modality[:, None] == jnp.arange(scores.shape[-1])[None, :]
    seen = jnp.broadcast_to(seen_modalities, scores.shape)
    others = relevance(scores, seen & ~own, temperature)
    return own.astype(scores.dtype) + share * others


def calibrate_temperature(
    scores: Float[Array, "b m"],
    own_modality: Int[Array, " b"],
    seen_modalities: Bool[Array, "... m"],
    weight: Float[Array, " b"],
    target: Scalar = 0.7,
    low: Scalar = 1e-2,
    high: Scalar = 1e2,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Finds the temperature at which the own modality has mean weight `target`.

    Modalities are so easy to tell apart that a plain softmax is one-hot and nothing is
    shared. The mean own weight falls with the temperature as long as the own modality
    mostly has the best score; it is bisected on a logarithmic scale.

    The bounds are relative to the mean range (largest minus smallest) of a sample's
    scores over the seen modalities: scores of whitened features grow with the width
    and with 1 / shrinkage, to hundreds and more, where an absolute bound would clamp.

    Args:
        scores: Scores [b, m] of the router.
        own_modality: True modality [b].
        seen_modalities: Mask [m] or [b, m].
        weight: Weight of each row, at least 0, [b].
        target: Wanted mean weight of the own modality.
        low: Lower bound in units of the mean range.
        high: Upper bound in units of the mean range.

    Returns:
        The temperature for `relevance`, and the mean own weight it achieves. If the
        target cannot be reached the temperature is a bound: `high` if even that leaves
        too much (one modality: always 1), `low` if the router errs too often.
    """
    used = weight > 0
    scores = jnp.where(used[:, None], scores, 0)
    own = own_modality[:, None] == jnp.arange(scores.shape[-1])[None, :]
    # A modality of classes without samples is seen, but has no score to measure.
    seen = jnp.broadcast_to(seen_modalities, scores.shape) & (scores > MASKED / 2)
    spread = jnp.max(scores, axis=-1, where=seen, initial=MASKED) - jnp.min(
        scores, axis=-1, where=seen, initial=-MASKED
    )
    scale = weighted_mean(spread, weight)
    scale = jnp.where(scale > 0, scale, 1)

    def own_weight(log_temperature):
        weights = relevance(scores, seen_modalities, jnp.exp(log_temperature))
        return weighted_mean(jnp.sum(jnp.where(own, weights, 0), axis=-1), weight)

    def halve(_, bounds):
        below, above = bounds
        middle = (below + above) / 2
        too_much = own_weight(middle) > target
        return jnp.where(too_much, middle, below), jnp.where(too_much, above, middle)

    bounds = jnp.log(scale * low), jnp.log(scale * high)
    below, above = jax.lax.fori_loop(0, _BISECTIONS, halve, bounds)
    log_temperature = (below + above) / 2
    return jnp.exp(log_temperature), own_weight(log_temperature)


def blend(weights: Float[Array, "b m"], prompts: PyTree) -> PyTree:
    """Returns `P_b = sum_m weights_bm prompts_m`, the prompt of each sample.

    Args:
        weights: Blend weights [b, m].
        prompts: Pytree of arrays [m, ...], blended leaf by leaf.

    Returns:
        The same pytree of arrays [b, ...]; a one-hot row returns that prompt exactly.
    """

    def of_leaf(leaf):
        rows = weights.astype(leaf.dtype)
        return jnp.tensordot(rows, leaf, axes=1, precision="highest")

    return jax.tree.map(of_leaf, prompts)


def _member(classes, class_modality, num_modalities):
    return classes[:, None] & jax.nn.one_hot(class_modality, num_modalities, dtype=bool)
