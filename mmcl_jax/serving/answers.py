"""What is said of a sample."""

from typing import NamedTuple


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
