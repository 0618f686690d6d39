"""Clutter: a second concept gets in the way of the first one.

Pictures and frames are double exposures, sounds are mixed, and where a depth sensor
receives two echoes, it reports a mean of both distances. A sentence names the second
concept in order to deny it.
"""

import numpy as np

from mmcl_jax.modalities.base import Media
from mmcl_jax.streams.world.concepts import MANNERS, SHAPES, Concept

SHARES = {"image": 0.28, "video": 0.35, "audio": 0.12, "depth": 0.16, "text": 0.6}
"""Share of the second concept in a sample; of text, of sentences that name one.

Chosen on development concepts so that ridge regression on the features of the built-in
encoder is right on three of four samples in each modality, with 16 training samples of
each of 20 classes.
"""


def draw_other(concept: Concept, rng: np.random.Generator) -> Concept:
    """Draws a concept of another shape and manner, each of the same half.

    The halves are even and odd places, so that what clutters a concept for development
    shares nothing with the benchmark's.
    """
    shape, manner = (
        rng.choice([i for i in range(place % 2, len(names), 2) if i != place])
        for place, names in zip(concept, (SHAPES, MANNERS), strict=True)
    )
    return Concept(int(shape), int(manner))


def mixed(own: Media, other: Media, modality: str, share: float) -> Media:
    """Returns a sample with some of another one in it, in the format of the first.

    Args:
        own: Sample of a modality other than text, see `render.render`.
        other: Another sample of it.
        modality: Its name.
        share: Share of the other one, 0 to 1.
    """
    match modality:
        case "audio":
            return _mixed_sounds(own, other, share)
        case "depth":
            return _mixed_depth(own, other, share)
        case _:
            both = (1 - share) * own + share * other
            return np.rint(both).astype(np.uint8)


def _mixed_sounds(
    own: tuple[np.ndarray, int], other: tuple[np.ndarray, int], share: float
) -> tuple[np.ndarray, int]:
    """Mixes two waveforms that are brought to one loudness first."""
    wave, rate = own
    second = np.zeros_like(wave)
    heard = other[0][: wave.size]
    second[: heard.size] = heard
    loudness = [np.sqrt(np.mean(x * x)) for x in (wave, second)]
    sound = (1 - share) * wave + share * second * (loudness[0] / loudness[1])
    sound *= np.abs(wave).max() / np.abs(sound).max()
    return sound.astype(np.float32), rate


def _mixed_depth(own: np.ndarray, other: np.ndarray, share: float) -> np.ndarray:
    """Blends distances where both maps have a reading."""
    both = np.where(other > 0, (1 - share) * own + share * other, own)
    return np.where(own > 0, np.rint(1000 * both) / 1000, 0).astype(np.float32)
