"""RanPAC: a ridge head on random features of an encoder tuned in its first session."""

import dataclasses

import jax

from mmcl_jax.fields import Count, NonNegative
from mmcl_jax.methods.base import Common, Method
from mmcl_jax.methods.first_session import with_first_session
from mmcl_jax.methods.heads import closed_form, random_features
from mmcl_jax.methods.sequential import sequential
from mmcl_jax.models.model import Model


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of RanPAC.

    Attributes:
        width: Number of random features; 10,000 in the paper, whose Gram matrix takes
            400 MB for each modality.
        regularization: Ridge of the normal equations, relative to their mean diagonal;
            None: chosen in each stage on samples of it that are held out, as published.
        first_session: Whether adapters are tuned on the first task, the paper's phase
            1; else features are those of the frozen encoder ("no phase 1"), and nothing
            is trained.
    """

    width: Count = 2000
    regularization: NonNegative | None = None
    first_session: bool = True


def make(model: Model, options: Options, common: Common) -> Method:
    """Returns one-hot ridge regression on `relu(z W)`, with a normal W drawn once.

    z is the embedding under an adapter that was tuned on the first task and is frozen
    from then on.

    Deviation: each modality with an adapter of its own has a first session, see
    `first_session`; it tunes towards the class texts in place of a cosine head that is
    thrown away, by the optimizer of all methods. The ridge is chosen on every fifth
    sample of a stage, where the published code takes the last fifth, whose classes are
    those that come last. Features have unit norm, and there are 2000 random ones for
    the paper's 10,000.

    References:
        M. D. McDonnell et al., "RanPAC: Random Projections and Pre-trained Models for
        Continual Learning", NeurIPS 2023, equation (9) and algorithm 1.
    """
    draw, features = random_features(model, options.width, jax.random.normal)
    head = closed_form(
        model,
        common.sharing,
        options.width,
        features,
        options.regularization,
        draw,
        adapted=options.first_session,
    )
    if not options.first_session:
        return head
    tuned = sequential(model, common)
    return with_first_session(head, tuned, model, common.sharing)
