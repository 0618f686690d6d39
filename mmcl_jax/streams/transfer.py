"""Streams that show what a modality gains from another one, of tasks of mmcl-real v1.

Four instruments and the digits zero to four are both seen and heard. A later modality
is learnt from few samples: alone, after the same concepts in an earlier modality, and,
as a control, after other concepts of the same data sets, which share nothing with it
but the modality.
"""

from collections.abc import Mapping
from typing import NamedTuple


class Transfer(NamedTuple):
    """Tasks of two modalities.

    Attributes:
        earlier: Tasks that are learnt first, with as many samples as in mmcl-real.
        later: Tasks of the other modality, whose number of training samples of a class
            is `stream.max_train_per_class`.
    """

    earlier: tuple[str, ...]
    later: tuple[str, ...]


_SOUNDS = ("audio/instruments/0", "audio/fsdd/0")
_OTHER_SOUNDS = ("audio/instruments/1", "audio/fsdd/1")
_PICTURES = ("image/caltech101/0", "image/sign_digits/0")
_OTHER_PICTURES = ("image/caltech101/1", "image/sign_digits/1")

STREAMS: Mapping[str, Transfer] = {
    "sounds_alone": Transfer((), _SOUNDS),
    "sounds_after_pictures": Transfer(_PICTURES, _SOUNDS),
    "sounds_after_other_pictures": Transfer(_OTHER_PICTURES, _SOUNDS),
    "pictures_alone": Transfer((), _PICTURES),
    "pictures_after_sounds": Transfer(_SOUNDS, _PICTURES),
    "pictures_after_other_sounds": Transfer(_OTHER_SOUNDS, _PICTURES),
}
