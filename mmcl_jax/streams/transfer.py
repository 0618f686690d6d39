"""Streams that show what a modality gains from another one, of tasks of a benchmark.

Concepts are both seen and heard: in mmcl-real four instruments and the digits zero to
four, in mmcl-world all. A later modality is learnt from few samples: alone, after the
same concepts in an earlier modality, and, as a control, after other concepts of that
modality, which share nothing with it but the modality.
"""

from collections.abc import Mapping
from typing import NamedTuple

WORLD_SAMPLES = 16
"""Training samples of a class of the earlier tasks of mmcl-world."""


class Transfer(NamedTuple):
    """Tasks of two modalities.

    Attributes:
        earlier: Tasks that are learnt first, with as many samples as in the benchmark.
        later: Tasks of the other modality, whose number of training samples of a class
            the user sets.
    """

    earlier: tuple[str, ...]
    later: tuple[str, ...]


def _streams(
    pictures: tuple[str, ...],
    other_pictures: tuple[str, ...],
    sounds: tuple[str, ...],
    other_sounds: tuple[str, ...],
) -> Mapping[str, Transfer]:
    return {
        "sounds_alone": Transfer((), sounds),
        "sounds_after_pictures": Transfer(pictures, sounds),
        "sounds_after_other_pictures": Transfer(other_pictures, sounds),
        "pictures_alone": Transfer((), pictures),
        "pictures_after_sounds": Transfer(sounds, pictures),
        "pictures_after_other_sounds": Transfer(other_sounds, pictures),
    }


REAL = _streams(
    pictures=("image/caltech101/0", "image/sign_digits/0"),
    other_pictures=("image/caltech101/1", "image/sign_digits/1"),
    sounds=("audio/instruments/0", "audio/fsdd/0"),
    other_sounds=("audio/instruments/1", "audio/fsdd/1"),
)
WORLD = _streams(
    pictures=("image-1", "image-2"),
    other_pictures=("image-3", "image-4"),
    sounds=("audio-1", "audio-2"),
    other_sounds=("audio-3", "audio-4"),
)
