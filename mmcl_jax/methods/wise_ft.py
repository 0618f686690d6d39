"""WiSE-FT after every task: adapters between those before and after its training."""

import dataclasses

from mmcl_jax.fields import Share
from mmcl_jax.methods.base import Common, Method
from mmcl_jax.methods.sequential import sequential
from mmcl_jax.methods.wrappers import with_interpolation
from mmcl_jax.models.model import Model


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of WiSE-FT.

    Attributes:
        share: Share of the trained adapters in those that a task leaves; the rest is
            that of the adapters before the task.
    """

    share: Share = 0.8


def make(model: Model, options: Options, common: Common) -> Method:
    """Returns sequential tuning whose adapters are interpolated after every task.

    Deviation: the paper has one task and all weights; the share is that of the
    continual form in ZSCL's published code.

    References:
        M. Wortsman et al., "Robust fine-tuning of zero-shot models", CVPR 2022.
    """
    return with_interpolation(sequential(model, common), options.share)
