"""What is said of a sample."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from mmcl_jax.errors import ConfigError


class Label(NamedTuple):
    """A class name and its probability."""

    name: str
    probability: float


class Novelty(NamedTuple):
    """How unlike everything learnt a sample is, see `evaluation.novelty`.

    Attributes:
        unknown: Whether it is called none of the classes.
        score: Distance from the nearest class of its modality, 1 being usual of a new
            sample of a learnt class; or the energy, for a method that remembers none.
        percentile: Share of the samples learnt that are less unlike, in percent.
    """

    unknown: bool
    score: float
    percentile: float


class Labelled(NamedTuple):
    """The prediction for one sample.

    Attributes:
        source: Path of the sample, or a phrase by which it can be found.
        modality: Modality that the sample was read as.
        taken_for: Modality that the model predicted, or the given one if there is one.
        labels: Classes with probabilities, the likeliest first.
        oddities: Signs that the sample is not what its owner believes, such as depth in
            another unit; see `Modality.oddities`.
        novelty: How unlike everything learnt it is; None: it was not asked for,
            or no sample of its modality tells what is usual.
    """

    source: str
    modality: str
    taken_for: str
    labels: tuple[Label, ...]
    oddities: tuple[str, ...] = ()
    novelty: Novelty | None = None

    def row(self) -> dict[str, Any]:
        """Returns what JSON can hold; the fields of `novelty` stand among the others.

        That are `unknown`, `novelty` (the score) and `percentile`, if there are any.
        """
        row = self._asdict()
        row["labels"] = [label._asdict() for label in self.labels]
        del row["novelty"]
        if told := self.novelty:
            row |= {"unknown": told.unknown, "novelty": told.score}
            row["percentile"] = told.percentile
        return row


def likeliest(
    probabilities: np.ndarray,
    allowed: np.ndarray,
    canonical: np.ndarray,
    names: Mapping[int, str],
    top: int,
) -> tuple[Label, ...]:
    """Returns the likeliest classes; slots of equal names are summed.

    Args:
        probabilities: Probability of each class slot `[C]`.
        allowed: Slots `[C]` that can win.
        canonical: The class `[C]` of each slot.
        names: Name of each class.
        top: Number of labels, if there are as many.
    """
    share = np.bincount(canonical, probabilities, len(canonical))
    possible = np.unique(canonical[allowed])
    order = possible[np.argsort(-share[possible], kind="stable")]
    return tuple(Label(names[i], float(share[i])) for i in order[:top].tolist())


def judged(score: float, share: float, reject: float) -> Novelty | None:
    """Returns whether a sample is called unknown.

    Args:
        score: Its novelty.
        share: Share of the samples learnt that are less unlike; NaN if none tells.
        reject: Share of samples of learnt classes that may be called unknown.
    """
    if np.isnan(share):
        return None
    return Novelty(share > 1 - reject, score, 100 * share)


def check_reject(rate: float) -> None:
    """Raises `ConfigError` for a rate that is no share."""
    if not 0 < rate < 1:
        raise ConfigError(f"reject: {rate} is no share between 0 and 1")
