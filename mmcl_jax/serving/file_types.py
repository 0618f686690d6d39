"""The modality of a file, recognized by its content and not by its suffix.

The first bytes decide, of files of streams which streams they hold; whether the rest is
intact is checked by the decoder.
"""

import os
import pathlib

from PIL import Image

from mmcl_jax.errors import DataError, reading
from mmcl_jax.modalities import MODALITIES, TEXT, containers
from mmcl_jax.modalities.signatures import Signature, head_of, identify, is_text

EXPECTED = "a picture, a video, a sound, a depth map or a sentence in UTF-8"
_STREAMS = ("mp4", "mov", "matroska")
_PNG_DEEP_GREY = bytes((16, 0))  # bit depth, colour type


def modality_of(path: str | os.PathLike[str]) -> str:
    """Returns the name of the modality of a file.

    A PNG or TIFF of grey with more than 8 bits is a depth map, any other one a picture;
    a file of streams without moving pictures is a sound.

    Raises:
        DataError: The file cannot be read, has no known modality, or is text in the
            place of another file; the message names the path and what was found.
    """
    path = os.fspath(path)
    with reading(path, EXPECTED):
        head = head_of(path)
        for name, kind in MODALITIES.items():
            if kind.recognizes is not None and kind.recognizes(head):
                return name
    found = identify(head)
    if found is None and not is_text(head):
        raise DataError(f"{path}: begins with {head[:8]!r}; expected {EXPECTED}")
    if found is None or found.modality == "text":
        return _text(path, found)
    if found.modality is None:
        raise DataError(f"{path}: {found.phrase}; expected {EXPECTED}")
    if found.format in _STREAMS and not containers.holds_pictures(path, found.format):
        return "audio"
    if found.format == "tiff" and _is_deep_tiff(path):
        return "depth"
    # after the name of the first chunk: width, height, bit depth, colour type
    is_header = found.format == "png" and head[12:16] == b"IHDR"
    if is_header and head[24:26] == _PNG_DEEP_GREY:
        return "depth"
    return found.modality


def _text(path: str, found: Signature | None) -> str:
    suffix = pathlib.PurePath(path).suffix.lower()
    for name, kind in MODALITIES.items():
        if suffix in kind.suffixes and suffix not in TEXT.suffixes:
            what = found.phrase if found else "text"
            raise DataError(
                f"{path}: {what}, although {suffix!r} stands for {name}; get the file "
                "itself, or rename it to .txt if it is a sentence"
            )
    return "text"


def _is_deep_tiff(path: str) -> bool:
    try:
        with Image.open(path, formats=("TIFF",)) as image:
            return image.mode.startswith(("I", "F"))
    except Exception:  # of many kinds; the decoder says what is wrong
        return False
