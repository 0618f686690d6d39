"""Closed-form re-alignment of features with the text embeddings of the classes.

After a task, features of different modalities and tasks lie in different places around
the text embeddings of their classes. A matrix W, solved from stored Gaussian statistics
without any gradient step, moves them: `z' = z W`. A class that was never trained still
has a logit, through its text embedding.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax.scipy.linalg import cho_solve
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from mmcl_jax.ops.gaussians import cholesky_with_jitter
from mmcl_jax.ops.losses import Scalar, cross_entropy, unit_norm
from mmcl_jax.ops.optim import descend
from mmcl_jax.ops.relevance import linear_discriminant


class Realignment(NamedTuple):
    """How logits are computed from a feature; see `apply`.

    Attributes:
        matrix: Matrix W, which acts on row vectors.
        bias: Bias added to the logits.
        residual: Part of each class's direction that W cannot express; 0 where off.
        scale: Factor of the products with the text embeddings.
        cosine: Whether moved features are scaled to unit norm.
        jitter: Largest number added to the diagonal of a matrix to solve it.
    """

    matrix: Float[Array, "d d"]
    bias: Float[Array, " C"]
    residual: Float[Array, "d C"]
    scale: Float[Array, ""]
    cosine: Bool[Array, ""]
    jitter: Float[Array, ""]


def identity(
    num_classes: int, dim: int, scale: Scalar = 100.0, dtype: DTypeLike = jnp.float32
) -> Realignment:
    """Returns the re-alignment that changes nothing, with logits `scale` times cosines.

    Args:
        num_classes: Class slots C.
        dim: Width d of the features.
        scale: The encoder's logit scale; a factor, not a temperature.
        dtype: Data type of the arrays.

    Returns:
        A `Realignment` of the same structure as any other.
    """
    return Realignment(
        matrix=jnp.eye(dim, dtype=dtype),
        bias=jnp.zeros(num_classes, dtype),
        residual=jnp.zeros((dim, num_classes), dtype),
        scale=jnp.asarray(scale, dtype),
        cosine=jnp.asarray(True),
        jitter=jnp.zeros((), dtype),
    )


def apply(
    realignment: Realignment, z: Float[Array, "b d"], text: Float[Array, "C d"]
) -> Float[Array, "b C"]:
    """Returns logits `scale * z' U^T + z residual + bias` with `z' = z W`.

    With `cosine` set, z' is scaled to unit norm first, so that the logits are `scale`
    times a cosine. Otherwise (`discriminant`) they are log odds, with scale 1.

    Args:
        realignment: Result of `identity`, `regression`, `discriminant` or `gradient`.
        z: Unit-norm features [b, d].
        text: Unit-norm text embeddings U [C, d].

    Returns:
        Unmasked logits [b, C].

    >>> off = identity(num_classes=2, dim=2)
    >>> apply(off, jnp.array([[0.0, 1.0]]), jnp.eye(2)).tolist()
    [[0.0, 100.0]]
    """
    z = z.astype(realignment.matrix.dtype)
    moved = _matmul(z, realignment.matrix)
    # `cosine` is an array, so that one compiled program serves every kind
    moved = jnp.where(realignment.cosine, unit_norm(moved), moved)
    logits = realignment.scale * _matmul(moved, text.astype(z.dtype).T)
    return logits + _matmul(z, realignment.residual) + realignment.bias[None, :]


def gradient(
    features: Float[Array, "n d"],
    label: Int[Array, " n"],
    weight: Float[Array, " n"],
    text: Float[Array, "C d"],
    allowed: Bool[Array, " C"],
    regularization: Scalar = 1e-2,
    scale: Scalar = 100.0,
    steps: int = 100,
    learning_rate: float = 1e-3,
) -> Realignment:
    """Minimises `CE(scale z' u) + r |W - I|^2` with z' = z W, scaled to unit norm.

    Adam from W = I, every step over all features: the iterative alternative to the
    closed forms, as SLCA aligns classifiers on draws from stored Gaussians.

    Args:
        features: Draws [n, d].
        label: Class of each draw [n].
        weight: Weight of each draw, at least 0, [n].
        text: Text embeddings [C, d].
        allowed: Classes of the softmax [C].
        regularization: Weight r of the distance from the identity.
        scale: The encoder's logit scale.
        steps: Number of Adam steps.
        learning_rate: Step size of Adam.

    References:
        G. Zhang et al., "SLCA: Slow Learner with Classifier Alignment", ICCV 2023.
    """
    num_classes, dim = text.shape
    start = identity(num_classes, dim, scale)

    def loss(matrix):
        logits = apply(start._replace(matrix=matrix), features, text)
        distance = jnp.sum(jnp.square(matrix - start.matrix))
        fit = cross_entropy(logits, label, weight, allowed)
        return fit + regularization * distance

    return start._replace(matrix=descend(loss, start.matrix, steps, learning_rate))


def mean_shifts(
    mean: Float[Array, "C d"],
    text: Float[Array, "C d"],
    used: Bool[Array, " C"],
    class_modality: Int[Array, " C"],
    num_modalities: int,
) -> Float[Array, "m d"]:
    """Returns the shift of each modality's features onto the texts of its classes.

    It is the mean of `text_c - mean_c` over the used classes of a modality: the
    modality gap, as a vector. 0 for a modality without a class.

    References:
        V. W. Liang et al., "Mind the Gap: Understanding the Modality Gap in Multi-modal
        Contrastive Representation Learning", NeurIPS 2022.
    """
    member = (class_modality[:, None] == jnp.arange(num_modalities)) & used[:, None]
    share = member / jnp.maximum(jnp.sum(member, axis=0), 1)
    gap = jnp.where(used[:, None], text - mean, 0)
    return _matmul(share.T.astype(mean.dtype), gap)


def regression(
    mean: Float[Array, "C d"],
    covariance: Float[Array, "d d"],
    text: Float[Array, "C d"],
    prior: Float[Array, " C"],
    regularization: Scalar = 1e-2,
    scale: Scalar = 100.0,
) -> Realignment:
    """Solves least squares from features to the text embedding of their class.

    `W = (G + r I)^-1 (Q + r I)` with `r = regularization`,
    `G = S + sum_c prior_c mean_c mean_c^T` and `Q = sum_c prior_c mean_c text_c^T`:
    the minimiser of `sum_c prior_c E|z W - text_c|^2 + r |W - I|^2` over features of
    class mean `mean_c` and covariance S. Large r gives W = I.

    Args:
        mean: Class means [C, d].
        covariance: Shared within-class covariance S [d, d].
        text: Text embeddings [C, d].
        prior: Class weights [C], scaled here to sum 1; 0 = takes no part.
        regularization: Ridge r, at least 0; unit-norm features have `tr G = 1`.
        scale: The encoder's logit scale.

    Returns:
        A `Realignment` with cosine logits, no bias and no residual; the identity when
        no class takes part.

    >>> mean, text = jnp.array([[1.0, 0.0]]), jnp.array([[0.0, 1.0]])
    >>> moved = regression(mean, jnp.zeros((2, 2)), text, jnp.ones(1), 1.0)
    >>> moved.matrix.round(3).tolist()
    [[0.5, 0.5], [0.0, 1.0]]
    """
    num_classes, dim = mean.shape
    used = prior > 0
    share = jnp.where(used, prior, 0).astype(mean.dtype)
    share = (share / jnp.where(jnp.any(used), jnp.sum(share), 1))[:, None]
    mean = jnp.where(used[:, None], mean, 0)
    text = jnp.where(used[:, None], text, 0).astype(mean.dtype)
    ridge = regularization * jnp.eye(dim, dtype=mean.dtype)
    gram = covariance + _matmul((share * mean).T, mean)
    factor, jitter = cholesky_with_jitter(gram + ridge)
    matrix = cho_solve((factor, True), _matmul((share * mean).T, text) + ridge)
    # without a class the solve would shrink features, not leave them as they are
    unchanged = identity(num_classes, dim, scale, mean.dtype)
    return unchanged._replace(
        matrix=jnp.where(jnp.any(used), matrix, unchanged.matrix), jitter=jitter
    )


def discriminant(
    mean: Float[Array, "C d"],
    covariance: Float[Array, "d d"],
    text: Float[Array, "C d"],
    prior: Float[Array, " C"],
    regularization: Scalar = 1e-4,
    residual: bool = False,
) -> Realignment:
    """Expresses the linear discriminant of the classes through their text embeddings.

    With A, bias of `relevance.linear_discriminant` and U the text embeddings of the
    classes that take part: `W = A^T U (U^T U + r I)^-1`, the minimiser of
    `|W U^T - A^T|^2 + r |W|^2`. For no more classes than dimensions, independent text
    embeddings and a small r, the logits are the discriminant's. Classes of (almost)
    equal text share the mean of their directions and differ by their bias alone,
    unless `residual` is on.

    Least squares towards the text itself (`regression`) lacks the whitening by the
    within-class covariance, which text embeddings, strongly correlated, need most.

    Args:
        mean: Class means [C, d].
        covariance: Shared within-class covariance [d, d].
        text: Text embeddings [C, d].
        prior: Class probabilities [C] up to a factor; 0 = takes no part.
        regularization: Ridge r relative to the mean non-zero eigenvalue of `U^T U`,
            which is 1 for up to d unit-norm text embeddings.
        residual: Whether `A^T - W U^T` is kept for the classes that take part, which
            makes their logits the discriminant's for any number of classes.

    Returns:
        A `Realignment` with log odds as logits. A class that takes no part gets the
        mean bias of those that do, and a logit through its text embedding. The
        identity when no class takes part.

    References:
        S.-A. Rebuffi et al., "iCaRL", CVPR 2017, for the nearest-mean rule, which this
        extends by whitening; A. Panos et al., "First Session Adaptation", ICCV 2023,
        for a discriminant head on features of a pre-trained network.
    """
    num_classes, dim = mean.shape
    used = prior > 0
    number = jnp.sum(used).astype(mean.dtype)
    direction, bias, jitter = linear_discriminant(mean, covariance, prior)
    text = jnp.where(used[:, None], text, 0).astype(mean.dtype)

    gram = _matmul(text.T, text)
    level = jnp.trace(gram) / jnp.clip(number, 1, dim)
    ridge = regularization * jnp.where(level > 0, level, 1)
    gram = gram + ridge * jnp.eye(dim, dtype=mean.dtype)
    factor, of_text = cholesky_with_jitter(gram)
    matrix = jnp.zeros((dim, dim), mean.dtype)
    # U^T U squares the condition number of U; a second pass, on the true residual,
    # recovers digits that float32 lost.
    for _ in range(2):
        missing = direction.T - _matmul(matrix, text.T)
        gradient = _matmul(missing, text) - ridge * matrix
        matrix = matrix + cho_solve((factor, True), gradient.T).T

    mean_bias = jnp.sum(jnp.where(used, bias, 0)) / jnp.maximum(number, 1)
    unchanged = identity(num_classes, dim, dtype=mean.dtype)
    solved = Realignment(
        matrix=matrix,
        bias=jnp.where(used, bias, mean_bias),
        residual=direction.T - _matmul(matrix, text.T)
        if residual
        else unchanged.residual,
        scale=jnp.ones((), mean.dtype),
        cosine=jnp.asarray(False),
        jitter=jnp.maximum(jitter, of_text),
    )
    # a select per leaf, since the number of classes is traced
    return Realignment(
        *(jnp.where(number > 0, a, b) for a, b in zip(solved, unchanged, strict=True))
    )


def _matmul(a, b):
    return jnp.matmul(a, b, precision="highest")
