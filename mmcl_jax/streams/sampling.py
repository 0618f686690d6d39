"""The samples of a class: which of them train, which score, and which are taken first.

All draws are hashes of a sample's place, so that new samples do not move others.
"""

import dataclasses
import hashlib

import numpy as np

from mmcl_jax.errors import DataError
from mmcl_jax.modalities.base import (
    FileReference,
    Modality,
    Reference,
    UnreadableReference,
)


@dataclasses.dataclass(frozen=True)
class Pool:
    """The samples of a class, from which tasks take theirs.

    Attributes:
        train: Training samples.
        test: Samples that score.
        seed: Seed of the order in which training samples are taken.
        modality: Modality of the samples.
    """

    train: list[Reference]
    test: list[Reference]
    seed: int
    modality: Modality

    def take(self, start: int, count: int | None) -> list[Reference]:
        """Returns training samples from place `start` of a drawn order on.

        Args:
            start: Number of samples that were taken before.
            count: Largest number of samples; None: all that are left.

        Returns:
            The samples, in the order in which they are stored.
        """
        if not start and (count is None or count >= len(self.train)):
            return self.train
        # Hashed with another seed than the split, which has taken the smallest draws.
        draws = [draw(~self.seed, each, self.modality) for each in self.train]
        stop = None if count is None else start + count
        chosen = np.argsort(draws, kind="stable")[start:stop]
        return [self.train[i] for i in sorted(chosen)]


def draw(seed: int | str, reference: Reference, modality: Modality) -> float:
    """Returns a number between 0 and 1 that a seed and a sample's place decide."""
    # A sentence is hashed by its words, so that copies never end up on both sides of
    # the split; a file by its path, since its content may be unreadable.
    text = modality.tower == "text" and not isinstance(reference, FileReference)
    place = reference.identity() if text else reference.describe()
    digest = hashlib.sha256(f"{seed}\0{place}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def split(
    references: list[Reference],
    fraction: float,
    seed: int | str,
    modality: Modality,
    where: str,
) -> tuple[list[Reference], list[Reference]]:
    """Returns the samples that are left, and a share of them that is split off.

    Both sides keep at least one sample, and copies of a sentence stay together.

    Args:
        references: Samples of a class.
        fraction: Share that is split off.
        seed: Seed of the draws.
        modality: Modality of the samples.
        where: Data set and class, for messages.

    Raises:
        DataError: There is one sample alone.
    """
    pairs = [(draw(seed, r, modality), r) for r in references]
    # What cannot be read scores nothing: were it all that is split off, none were left
    # to score with once it is skipped.
    draws = {d for d, r in pairs if not isinstance(r, UnreadableReference)}
    if len(draws) < 2:
        draws = {each for each, _ in pairs}
    if len(draws) < 2:
        raise DataError(
            f"{where} has only one training sample, and another is needed to score "
            "with; add samples"
        )
    # Moved so that at least one sample is on either side.
    limit = min(max(fraction, np.nextafter(min(draws), 2)), max(draws))
    split_off = {each for each in draws if each < limit}
    rest = [r for each, r in pairs if each not in split_off]
    return rest, [r for each, r in pairs if each in split_off]
