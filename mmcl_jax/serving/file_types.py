"""The modality of a file, recognized by its content and not by its suffix.

The first bytes decide; whether the rest is intact is checked by the decoder.
"""

import codecs
import os

from mmcl_jax.errors import DataError, reading
from mmcl_jax.modalities import MODALITIES

EXPECTED = (
    "a picture, a video, a sound, a depth map (16-bit grey PNG) or a sentence in UTF-8"
)
_MAGIC = {
    b"\xff\xd8\xff": "image",
    b"GIF8": "video",
    b"\x1aE\xdf\xa3": "video",
    b"fLaC": "audio",
    b"OggS": "audio",
    b"RF64": "audio",
    b"ID3\x03": "audio",
    b"ID3\x04": "audio",
}
_RIFF = {b"WAVE": "audio", b"AVI ": "video", b"WEBP": "image"}
_PNG = b"\x89PNG\r\n\x1a\n"
_GREY = 0
# Bytes that are read: sentences are recognized by their characters.
_HEAD = 2**16
_SPACES = "\t\n\r\f"


def modality_of(path: str | os.PathLike[str]) -> str:
    """Returns the name of the modality of a file.

    A 16-bit grey PNG is a depth map, any other PNG a picture.

    Raises:
        DataError: The file cannot be read, or has no known modality; the message names
            the path.
    """
    path = os.fspath(path)
    with reading(path, EXPECTED), open(path, "rb") as file:
        head = file.read(_HEAD)
        for name, kind in MODALITIES.items():
            if kind.recognizes is not None and kind.recognizes(head):
                return name
    if head.startswith(_PNG):
        # After the name of the first chunk: width, height, bit depth, colour type.
        deep_grey = head[12:16] == b"IHDR" and head[24:26] == bytes((16, _GREY))
        return "depth" if deep_grey else "image"
    for magic, modality in _MAGIC.items():
        if head.startswith(magic):
            return modality
    if head.startswith(b"RIFF") and head[8:12] in _RIFF:
        return _RIFF[head[8:12]]
    if head[4:8] == b"ftyp":
        return "video"
    if _is_text(head):
        return "text"
    raise DataError(f"{path}: begins with {head[:8]!r}; expected {EXPECTED}")


def _is_text(head: bytes) -> bool:
    try:
        # Incrementally, since the last character of the head may be cut off.
        text = codecs.getincrementaldecoder("utf-8-sig")().decode(head)
    except UnicodeDecodeError:
        return False
    return all(character >= " " or character in _SPACES for character in text)
