"""Pictures: JPEG and PNG files, uint8 `[h, w, 3]`."""

import contextlib
import io
import pathlib

import numpy as np
from PIL import Image

from mmcl_jax.errors import DataError, check_bytes, reading
from mmcl_jax.modalities import languagebind
from mmcl_jax.modalities.base import (
    Inputs,
    InputSpec,
    Modality,
    Style,
    check_pixels,
    still_shapes,
)
from mmcl_jax.modalities.resizing import crop_box, fitted_shape, trim

EXPECTED = "a JPEG or PNG picture of 8 bits a channel"
_MAX_BYTES = 512 * 2**20
_ORIENTATION = 0x0112
_FILTERS = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
}
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
    """Reads a picture and turns it upright by its EXIF orientation.

    Args:
        path: A JPEG or PNG file.
        spec: Input of the encoder: its `max_pixels` is used.

    Returns:
        uint8 `[h, w, 3]`, RGB. Transparency is dropped, grey is repeated.

    Raises:
        DataError: The file is not a picture, is damaged or truncated, has 16 bits a
            channel, or is too large.
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
    """Returns the bytes of a file.

    A chunk that claims to have 4 GiB cannot make Pillow allocate them: a read from
    memory returns no more than the file holds.

    Raises:
        DataError: The file is larger than 512 MiB.
    """
    check_bytes(path, _MAX_BYTES)
    return io.BytesIO(pathlib.Path(path).read_bytes())


def _orientation(image: Image.Image) -> int | None:
    # Photos with damaged EXIF data but intact pixels are common; they stay as stored.
    with contextlib.suppress(Exception):
        return image.getexif().get(_ORIENTATION)
    return None


def fit(picture: np.ndarray, spec: InputSpec) -> np.ndarray:
    """Scales a picture to a square of `image_size` pixels, antialiased.

    With `resize` "crop" the short side is scaled and the centre is kept, as in CLIP's
    own Pillow transform; with "squash" both sides are scaled, as in SigLIP's.

    Args:
        picture: uint8 `[h, w, 3]`.
        spec: Size, `resize` and `interpolation` of the input.

    Returns:
        uint8 `[s, s, 3]`; equal to the output of these transforms.
    """
    size, how = spec.image_size, _FILTERS[spec.interpolation]
    if spec.resize == "squash":
        image = Image.fromarray(picture)
        return np.asarray(image.resize((size, size), how))
    picture = trim(picture)
    height, width, _ = picture.shape
    height, width = fitted_shape(height, width, size)
    image = Image.fromarray(picture)
    if image.size != (width, height):
        image = image.resize((width, height), how)
    return np.asarray(image.crop(crop_box(height, width, size)))


def normalize(pictures: np.ndarray, spec: InputSpec) -> np.ndarray:
    """Returns uint8 `[..., 3]` as float32, in units of the encoder's mean and std."""
    mean, std = np.array(spec.mean, np.float32), np.array(spec.std, np.float32)
    return pictures * (np.float32(1 / 255) / std) - mean / std


def preprocess(media: np.ndarray, spec: InputSpec) -> Inputs:
    """Returns `{"pixels": float32 [1, s, s, 3]}` of a picture uint8 `[h, w, 3]`."""
    return {"pixels": normalize(fit(media, spec)[None], spec)}


# ImageBind preprocesses pictures as CLIP does.
_CLIP = Style(preprocess, still_shapes, "image-1", ("resize", "interpolation"))

IMAGE = Modality(
    name="image",
    tower="visual",
    suffixes=(".jpg", ".jpeg", ".png"),
    decode=decode,
    templates=("a photo of a {}.", "a picture of a {}.", "an image of a {}."),
    styles={"clip": _CLIP, "languagebind": languagebind.IMAGE, "imagebind": _CLIP},
)
