"""Pictures: JPEG, PNG, WebP, BMP, TIFF, AVIF and HEIC files, uint8 `[h, w, 3]`."""

import contextlib
import io
import pathlib

import numpy as np
from PIL import Image, features

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
from mmcl_jax.modalities.signatures import found_in, require

EXPECTED = (
    "a picture of 8 bits a channel in JPEG, PNG, WebP, BMP, TIFF, AVIF or HEIC format"
)
_FORMATS = {
    **{"jpeg": "JPEG", "png": "PNG", "webp": "WEBP", "bmp": "BMP", "tiff": "TIFF"},
    **{"avif": "AVIF", "heic": "HEIF"},
}
MAX_BYTES = 512 * 2**20
_ORIENTATION = 0x0112
# keywords of text in a PNG in which older programs keep the orientation
_KEPT_TEXTS = (b"XML:com.adobe.xmp\0", b"Raw profile type exif\0")
_MAX_TEXT = 2**16
_REDUCED, _DNG, _COLOUR_FILTER = 254, 50706, 32803  # tags of TIFF, and one value
# zeros at the end of a file of which a part has not been copied
_LOST_BYTES = 512
# values below which a picture is almost black: 12 bits of 16 look so; ratio of sides
_DARK, _NARROW = 16, 16
_GREY = 128  # what a decoder puts in the place of blocks that a JPEG lacks
_GREY_ROWS = 16
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

    Of several pictures in a file, such as the frames of an animation or the pages of a
    document, the first is read. Of 16 bits a colour channel, the upper 8 are.

    Args:
        path: A JPEG, PNG, WebP, BMP, TIFF or AVIF file; a HEIC file where pillow-heif
            is installed.
        spec: Input of the encoder: its `max_pixels` and `storage.transparency` are
            used.

    Returns:
        uint8 `[h, w, 3]`, RGB; grey is repeated.

    Raises:
        DataError: The file is not a picture, is damaged or truncated, is grey of more
            than 8 bits or a raw photo, or is too large.
    """
    with (
        reading(path, EXPECTED, found_in),
        Image.open(in_memory(path), formats=(_pillow_format(path),)) as image,
    ):
        check_pixels(path, *image.size, spec)
        if image.mode.startswith(("I", "F")):
            raise DataError(
                f"{path}: a grey picture of more than 8 bits (mode {image.mode}); "
                f"expected {EXPECTED}; maps of distances belong to modality 'depth'"
            )
        if image.format == "TIFF" and _is_preview(image):
            raise DataError(
                f"{path}: a camera's raw photo, of which only a preview can be read; "
                f"convert it to JPEG; expected {EXPECTED}"
            )
        # which turns a TIFF by itself, and forgets its orientation
        image.load()
        turn = _TURNS.get(_orientation(image) or 1)
        image = _opaque(image, spec)
        return np.asarray(image if turn is None else image.transpose(turn))


def _pillow_format(path: str) -> str:
    form = require(path, _FORMATS, EXPECTED).format
    if form == "heic" and not _opens_heic():
        raise DataError(
            f"{path}: a HEIC picture; pip install pillow-heif, or convert it to JPEG"
        )
    if form == "avif" and not features.check("avif"):
        raise DataError(
            f"{path}: an AVIF picture, which this build of Pillow cannot read; convert "
            "it to JPEG"
        )
    return _FORMATS[form]


def _opens_heic() -> bool:
    try:
        import pillow_heif  # pyright: ignore[reportMissingImports]
    except ImportError:
        return False
    pillow_heif.register_heif_opener()
    return True


def _is_preview(image: Image.Image) -> bool:
    """Returns whether the first picture of a TIFF stands for one that is not read."""
    tags = image.getexif()
    reduced = tags.get(_REDUCED, 0) & 1
    return bool(reduced) or _DNG in tags or tags.get(262) == _COLOUR_FILTER


def _opaque(image: Image.Image, spec: InputSpec) -> Image.Image:
    if image.has_transparency_data:
        image = image.convert("RGBA")
        if spec.storage.transparency == "white":
            return on_white(image)
    return image.convert("RGB")


def on_white(image: Image.Image) -> Image.Image:
    """Returns an RGBA picture on a white ground, as RGB."""
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image).convert("RGB")


def in_memory(path: str) -> io.BytesIO:
    """Returns the bytes of a file, of a PNG without its texts.

    A chunk that claims to have 4 GiB cannot make Pillow allocate them: a read from
    memory returns no more than the file holds.

    Raises:
        DataError: The file is larger than 512 MiB.
    """
    check_bytes(path, MAX_BYTES)
    content = pathlib.Path(path).read_bytes()
    if content[:2] == b"\xff\xd8":
        _check_end(path, content)
    return io.BytesIO(_without_texts(content) if content[:4] == b"\x89PNG" else content)


def _check_end(path: str, content: bytes) -> None:
    """Raises `DataError` for a JPEG that was not copied to its end.

    Decoders make up what lacks in it without an error.
    """
    kept = content.rstrip(b"\0")
    lost = len(content) - len(kept)
    if lost >= _LOST_BYTES and not kept.endswith(b"\xff\xd9"):
        raise DataError(
            f"{path}: its last {lost} bytes are zeros (a failed copy?); copy it again; "
            f"expected {EXPECTED}"
        )


def _without_texts(content: bytes) -> bytes:
    """Drops texts and colour profiles, which Pillow refuses where they are long."""
    parts, place = [content[:8]], 8
    while place < len(content):
        length, kind = content[place : place + 4], content[place + 4 : place + 8]
        end = place + 12 + int.from_bytes(length, "big")
        is_kept = content.startswith(_KEPT_TEXTS, place + 8) and end - place < _MAX_TEXT
        if kind not in (b"tEXt", b"zTXt", b"iTXt", b"iCCP") or is_kept:
            parts.append(content[place:end])
        place = end
    return b"".join(parts)


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


def oddities(media: np.ndarray, spec: InputSpec) -> tuple[str, ...]:
    """Returns what is odd about a picture uint8 `[h, w, 3]`."""
    # most pictures differ in the few pixels that are looked at first
    few = media[:: max(1, len(media) // 16)]
    if (few == media[0, 0]).all() and (media == media[0, 0]).all():
        return ("a picture of a single colour",)
    odd = []
    # most pictures have a brighter pixel among those that are looked at first
    if few.max() < _DARK and media.max() < _DARK:
        odd.append(
            "a picture that is almost black; is it a mask, or of 10 or 12 bits in 16?"
        )
    height, width, _ = media.shape
    if spec.resize == "crop" and max(height, width) > _NARROW * min(height, width):
        odd.append(
            f"a picture more than {_NARROW} times as long as wide, of which only the "
            "middle is seen"
        )
    if height > _GREY_ROWS and (media[-_GREY_ROWS:] == _GREY).all():
        odd.append("a picture that is plain grey at its end, as a damaged JPEG is")
    return tuple(odd)


# ImageBind preprocesses pictures as CLIP does.
_CLIP = Style(preprocess, still_shapes, "image-2", ("resize", "interpolation"))

IMAGE = Modality(
    name="image",
    tower="visual",
    suffixes=(
        *(".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"),
        *(".avif", ".heic", ".heif"),
    ),
    decode=decode,
    templates=("a photo of a {}.", "a picture of a {}.", "an image of a {}."),
    styles={"clip": _CLIP, "languagebind": languagebind.IMAGE, "imagebind": _CLIP},
    oddities=oddities,
)
