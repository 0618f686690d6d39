"""The switches of our reading of COMM."""

import dataclasses
from typing import Literal

from mmcl_jax.fields import Count, Fraction, NonNegative, Share
from mmcl_jax.methods.comm.aggregation import Aggregation, Blend
from mmcl_jax.methods.router import RelevanceKind


@dataclasses.dataclass(frozen=True)
class Options:
    """Switches for the parts of the method that our reading leaves uncertain.

    Attributes:
        aggregation: Adapter of a modality that is used: the `running_mean` of its
            snapshots and the current one, their `exponential` mean, or the `latest`.
        aggregation_rate: Share of the current adapter in the exponential mean.
        self_regularization: Weight of the distance to the modality's adapter before
            the task; None turns it off.
        self_regularization_form: That distance: `cosine` of features, `distillation`
            of the probabilities of the modality's classes, or squared distance of
            the `parameters` in use, which needs no second forward pass.
        relevance: How the router is fitted: in closed form (`discriminant`), by
            gradient before each task (`two_stage`), or in every step (`joint`).
        blend: Adapters of a sample: those of the seen modalities weighted by relevance
            (`soft`); that of its modality, with the others added (`residual`); the most
            relevant one (`hard`); all with equal weights (`uniform`); or that of its
            modality (`none`).
        residual_share: Total weight of the others in the residual blend.
        weighting: Weights of each `instance`, or their mean over its modality (`task`).
        mix_support: Modalities that take part: all `seen_now`, or those that were
            `seen_when_last_trained`, so that a new modality leaves old blends alone.
        self_weight: Mean relevance of a sample's own modality that the temperature is
            calibrated to; without it relevance is one-hot and nothing is shared.
            None: temperature 1.
        given_route: What a given modality does: its score is raised to the largest,
            then blended as usual (`raised`), or its adapter is used alone (`one_hot`).
        warm_start: Whether a new modality starts from those that its queries resemble.
        realignment: Form of the re-alignment: `discriminant` analysis mapped to the
            text space, `regression` on the class texts, `gradient` descent on draws
            from the Gaussians, `mean_shift` of each modality, or `off`.
        realignment_regularization: Ridge of its solve, see `docs/method.md`.
        realignment_residual: Whether the part of the discriminant that the class texts
            cannot express is kept separately, for classes that were learnt.
        granularity: Whether each class, task or modality has its own Gaussian.
        covariance: Covariance of each Gaussian: its own in `full`, `diagonal`,
            `low_rank` plus diagonal, `isotropic`; or one `tied` over all.
        covariance_rank: Rank of `low_rank`.
        drift_compensation: Whether stored class means follow the drift that a task
            causes in the features of its modality, estimated on the task's samples.
        shrinkage: Shrinkage of the covariances towards a multiple of the identity.
        pseudo_samples: Number of draws from each stored Gaussian, to calibrate or fit
            on; the router takes fewer from each of more than 128 classes, see
            `router.pseudo_queries`.
    """

    aggregation: Aggregation = "running_mean"
    aggregation_rate: Fraction = 0.3
    self_regularization: NonNegative | None = 1.0
    self_regularization_form: Literal["cosine", "distillation", "parameters"] = "cosine"
    relevance: RelevanceKind = "discriminant"
    blend: Blend = "soft"
    residual_share: NonNegative = 0.5
    weighting: Literal["instance", "task"] = "instance"
    mix_support: Literal["seen_now", "seen_when_last_trained"] = "seen_now"
    self_weight: Fraction | None = 0.9
    given_route: Literal["raised", "one_hot"] = "raised"
    warm_start: bool = True
    realignment: Literal[
        "discriminant", "regression", "gradient", "mean_shift", "off"
    ] = "discriminant"
    realignment_regularization: NonNegative = 1e-4
    realignment_residual: bool = True
    granularity: Literal["class", "task", "modality"] = "class"
    covariance: Literal["full", "tied", "diagonal", "low_rank", "isotropic"] = "tied"
    covariance_rank: Count = 8
    drift_compensation: bool = True
    shrinkage: Share = 0.01
    pseudo_samples: Count = 32
