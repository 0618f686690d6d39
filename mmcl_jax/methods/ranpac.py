"""RanPAC without its first phase: a ridge head on random features."""

import dataclasses

import jax

from mmcl_jax.fields import Count, NonNegative
from mmcl_jax.methods.base import Common, Method
from mmcl_jax.methods.heads import closed_form, random_features
from mmcl_jax.models.model import Model


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of RanPAC.

    Attributes:
        width: Number of random features; 10,000 in the paper, whose Gram matrix takes
            400 MB for each modality.
        regularization: Ridge of the normal equations, relative to their mean diagonal;
            None: chosen in each stage on samples of it that are held out, as published.
    """

    width: Count = 2000
    regularization: NonNegative | None = None


def make(model: Model, options: Options, common: Common) -> Method:
    """Returns one-hot ridge regression on `relu(q W)`, with a normal W drawn once.

    Deviation: phase 1 is missing, so the encoder is not tuned on the first task, which
    would favour its modality. The ridge is chosen on every fifth sample of a stage,
    where the published code takes the last fifth, whose classes are those that come
    last. Queries have unit norm, and there are 2000 features for the paper's 10,000.

    References:
        M. D. McDonnell et al., "RanPAC: Random Projections and Pre-trained Models for
        Continual Learning", NeurIPS 2023, equation (9).
    """
    draw, features = random_features(model, options.width, jax.random.normal)
    return closed_form(
        model,
        common.sharing,
        options.width,
        features,
        options.regularization,
        draw,
    )
