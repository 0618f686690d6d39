"""The switches of our reading of COMM."""

import dataclasses
from typing import Literal

from mmcl_jax.fields import Count, Fraction, NonNegative
from mmcl_jax.methods.comm.aggregation import Aggregation, Blend


@dataclasses.dataclass(frozen=True)
class Options:
    """Switches for the parts of the method that our reading leaves uncertain.

    Attributes:
        aggregation: Adapter of a modality that is used: the `running_mean` of its
            snapshots and the current one, or the `latest`.
        self_regularization: Weight of the distance to the modality's adapter before
            the task; None turns it off.
        self_regularization_form: That distance: `cosine` of features, or squared
            distance of the `parameters` in use, which needs no second forward pass.
        blend: Adapters of a sample: those of the modalities seen before its own was
            last trained, weighted by relevance (`soft`); that of its modality, with
            the others added (`residual`); or that of its modality (`none`).
        residual_share: Total weight of the others in the residual blend.
        self_weight: Mean relevance of a sample's own modality that the temperature is
            calibrated to; without it relevance is one-hot and nothing is shared.
            None: temperature 1.
        warm_start: Whether a new modality starts from those that its queries resemble.
        realignment: What answers for a learnt class: discriminants in three `views` of
            a sample, or its `text` by the adapted embedding, which is not re-aligned.
        transport: Whether Gaussians of adapted features follow the drift that a task
            causes in the features of its modality, estimated on the task's samples.
        blocks: Number of blocks in the layer views, the last ones before the final.
    """

    aggregation: Aggregation = "running_mean"
    self_regularization: NonNegative | None = 1.0
    self_regularization_form: Literal["cosine", "parameters"] = "cosine"
    blend: Blend = "soft"
    residual_share: NonNegative = 0.5
    self_weight: Fraction | None = 0.9
    warm_start: bool = True
    realignment: Literal["views", "text"] = "views"
    transport: bool = True
    blocks: Count = 4
