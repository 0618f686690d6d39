"""Pictures: JPEG and PNG files, uint8 `[h, w, 3]`."""

import contextlib
import io
import pathlib

import numpy as np
from PIL import Image

from mmcl_jax.modalities.base import (
    DataError,
    Inputs,
    InputSpec,
    Modality,
    check_bytes,
    check_pixels,
    reading,
    still_shapes,
)

EXPECTED = "a JPEG or PNG picture of 8 bits a channel"
# Wider pictures lose their ends before the resize, which would otherwise allocate
# without bound for a picture of one row.
_MAX_ASPECT = 16
_MAX_BYTES = 512 * 2**20
_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def decode(path: str, spec: InputSpec) -> np.ndarray:
    """Reads a picture the way up that its EXIF orientation says.

    Args:
        path: a JPEG or PNG file.
        spec: bounds the size.

    Returns:
        uint8 `[h, w, 3]`, RGB. Transparency is dropped, grey is repeated.

    Raises:
        DataError: not a picture, damaged, truncated, of 16 bits, or too large.
    """
    with (
        reading(path, EXPECTED),
        Image.open(in_memory(path), formats=("JPEG", "PNG")) as image,
    ):
        check_pixels(path, *image.size, spec)
        if image.mode.startswith(("I", "F")):
            raise DataError(
                f"{path}: a grey picture of more than 8 bits (mode {image.mode}); "
                f"expected {EXPECTED}; 16-bit maps belong to modality 'depth'"
            )
        image.load()
        turn = _TURNS.get(_orientation(image) or 1)
        if "transparency" in image.info:
            image = image.convert("RGBA")
        image = image.convert("RGB")
        return np.asarray(image if turn is None else image.transpose(turn))


def in_memory(path: str) -> io.BytesIO:
    """Returns the bytes of a file; a chunk that claims 4 GiB is not given that room.

    Raises:
        DataError: the file is larger than 512 MiB.
    """
    check_bytes(path, _MAX_BYTES)
    return io.BytesIO(pathlib.Path(path).read_bytes())


def _orientation(image: Image.Image) -> int | None:
    # Photos with a damaged EXIF block but sound pixels are common; they stay as stored.
    with contextlib.suppress(Exception):
        return image.getexif().get(_ORIENTATION)
    return None


def crop_box(height: int, width: int, size: int) -> tuple[int, int, int, int]:
    """Returns left, top, right, bottom of the centred square of `size` pixels."""
    left, top = round((width - size) / 2), round((height - size) / 2)
    return left, top, left + size, top + size


def fitted_shape(height: int, width: int, size: int) -> tuple[int, int]:
    """Returns height and width after the short side was scaled to `size`."""
    short = min(height, width)
    return int(size * height / short), int(size * width / short)


def trim(picture: np.ndarray) -> np.ndarray:
    """Cuts the ends of a picture that is many times longer than it is wide."""
    height, width = picture.shape[:2]
    limit = _MAX_ASPECT * min(height, width)
    top, left = max(0, height - limit) // 2, max(0, width - limit) // 2
    return picture[top : top + limit, left : left + limit]


def fit(picture: np.ndarray, size: int) -> np.ndarray:
    """Scales the short side to `size` (bicubic, antialiased) and crops the centre.

    Args:
        picture: uint8 `[h, w, 3]`.
        size: side of the result, pixels.

    Returns:
        uint8 `[size, size, 3]`; equal to what CLIP's own Pillow transform gives.
    """
    picture = trim(picture)
    height, width, _ = picture.shape
    height, width = fitted_shape(height, width, size)
    image = Image.fromarray(picture)
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(image.crop(crop_box(height, width, size)))


def normalize(pictures: np.ndarray, spec: InputSpec) -> np.ndarray:
    """Returns uint8 `[..., 3]` as float32, in units of the encoder's mean and std."""
    mean, std = np.array(spec.mean, np.float32), np.array(spec.std, np.float32)
    return pictures * (np.float32(1 / 255) / std) - mean / std


def preprocess(media: np.ndarray, spec: InputSpec) -> Inputs:
    """Returns `{"pixels": float32 [1, s, s, 3]}` of a picture uint8 `[h, w, 3]`."""
    return {"pixels": normalize(fit(media, spec.image_size)[None], spec)}


IMAGE = Modality(
    name="image",
    tower="visual",
    suffixes=(".jpg", ".jpeg", ".png"),
    decode=decode,
    preprocess=preprocess,
    shapes=still_shapes,
    templates=("a photo of a {}.", "a picture of a {}.", "an image of a {}."),
    version="image-1",
)
