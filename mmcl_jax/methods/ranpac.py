"""RanPAC without its first phase: a ridge head on random features."""

import dataclasses

from mmcl_jax.fields import Count, NonNegative
from mmcl_jax.methods.base import Common, Method
from mmcl_jax.methods.heads import closed_form, random_features
from mmcl_jax.models.model import Model


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of RanPAC.

    Attributes:
        width: Number of random features.
        regularization: Ridge of the normal equations, relative to their mean diagonal.
    """

    width: Count = 2000
    regularization: NonNegative = 1e-3


def make(model: Model, options: Options, common: Common) -> Method:
    """Returns one-hot ridge regression on `relu(q W)`, with W drawn once.

    Deviation: the encoder is not tuned on the first task, so that no task is favoured;
    the regularization is fixed relative to the Gram matrix, where the paper's code
    selects it anew on each task's last samples; 2000 features for its 10,000.

    References:
        M. D. McDonnell et al., "RanPAC: Random Projections and Pre-trained Models for
        Continual Learning", NeurIPS 2023, equation (9).
    """
    draw, features = random_features(model, options.width)
    return closed_form(
        model,
        common.sharing,
        options.width,
        features,
        options.regularization,
        draw,
    )
