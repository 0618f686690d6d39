"""Samples that a program holds in memory, as files of the kinds that are decoded."""

import io
import os
import pathlib
import shutil
from typing import Any

import av
import numpy as np
import soundfile
from PIL import Image, ImageOps

from mmcl_jax.errors import DataError
from mmcl_jax.modalities import MODALITIES
from mmcl_jax.modalities.base import FileReference, Reference, Storage, TextReference
from mmcl_jax.modalities.signatures import head_of, identify
from mmcl_jax.serving.file_types import modality_of

_RATE = 25  # frames a second of a clip in memory
# what `write` takes
Sample = (
    str
    | os.PathLike[str]
    | bytes
    | Image.Image
    | np.ndarray
    | tuple[np.ndarray, int]
    | Reference
)


def write(sample: Any, stem: pathlib.Path) -> tuple[pathlib.Path, str]:
    """Writes one sample as a file.

    Args:
        sample: A path, whose file is linked or copied; the bytes of a file; a picture
            of Pillow; an array `uint8 [h w]` or `[h w 3]` (a picture),
            `uint8 [f h w 3]` (a clip of 25 frames a second), `uint16 [h w]` (depth in
            millimetres) or `float [h w]` (depth in metres); a pair of `[n]` or
            `[n channels]`, float in [-1, 1] or whole numbers, and the sampling rate in
            Hz (a sound); or a sentence as `TextReference`.
        stem: Path of the file, but for its suffix.

    Returns:
        Path of the file, and the name of its modality.

    Raises:
        DataError: It is nothing of these.
    """
    match sample:
        case TextReference():
            path = stem.with_suffix(".txt")
            path.write_text(sample.text, encoding="utf-8")
            return path, "text"
        case str() | os.PathLike():
            return _linked(pathlib.Path(sample), stem)
        case bytes():
            return _of_bytes(sample, stem)
        case Image.Image():
            deep = sample.mode.startswith(("I", "F"))
            return _of_picture(sample, stem), "depth" if deep else "image"
        case np.ndarray():
            return _of_array(sample, stem)
        case (np.ndarray() as values, int() | np.integer() as rate):
            return _of_sound(values, int(rate), stem), "audio"
    raise DataError(
        f"a sample of the type {type(sample).__name__}; expected a path, bytes, a "
        "picture, an array, a pair of an array and a sampling rate, or a TextReference"
    )


def reference(sample: Any, folder: pathlib.Path, number: int) -> Reference:
    """Returns a reference to a sample of the kinds that `write` takes.

    One in memory is written into a folder, and called by its number among all samples.

    Raises:
        DataError: It is nothing of these.
    """
    if isinstance(sample, (str, os.PathLike)):
        return FileReference(os.fspath(sample))
    if hasattr(sample, "describe"):
        return sample
    stem = folder / str(number)
    if isinstance(sample, bytes):  # what it is, decoding tells
        stem.write_bytes(sample)
        path = stem
    else:
        path, _ = write(sample, stem)
    # of an array it is known what its numbers mean, whatever files of the run hold
    storage = Storage() if isinstance(sample, np.ndarray) else None
    return FileReference(str(path), f"samples[{number}]", storage)


def _linked(source: pathlib.Path, stem: pathlib.Path) -> tuple[pathlib.Path, str]:
    if not source.is_file():
        raise DataError(
            f"{source}: no such file; give a sentence as TextReference(text)"
        )
    path = stem.with_suffix(source.suffix.lower())
    try:
        os.link(source.resolve(), path)
    except OSError:  # on another file system, or one without links
        shutil.copyfile(source, path)
    return path, modality_of(path)


def _of_bytes(content: bytes, stem: pathlib.Path) -> tuple[pathlib.Path, str]:
    stem.write_bytes(content)
    modality, found = modality_of(stem), identify(head_of(str(stem)))
    suffixes = MODALITIES[modality].suffixes
    own = f".{found.format}" if found else ".txt"
    return stem.rename(stem.with_suffix(own if own in suffixes else suffixes[0])), (
        modality
    )


def _of_picture(picture: Image.Image, stem: pathlib.Path) -> pathlib.Path:
    # PNG has no floating-point numbers
    suffix = ".tiff" if picture.mode == "F" else ".png"
    encoded, path = io.BytesIO(), stem.with_suffix(suffix)
    # which a camera's picture says, and a PNG would not
    picture = ImageOps.exif_transpose(picture)
    if picture.mode in ("CMYK", "HSV", "LAB", "YCbCr"):  # which PNG has not either
        picture = picture.convert("RGB")
    picture.save(encoded, format=suffix[1:].upper())
    path.write_bytes(encoded.getvalue())
    return path


def _of_sound(values: np.ndarray, rate: int, stem: pathlib.Path) -> pathlib.Path:
    path = stem.with_suffix(".wav")
    if np.issubdtype(values.dtype, np.signedinteger):
        values = values / -float(np.iinfo(values.dtype).min)
    soundfile.write(path, values, rate, subtype="FLOAT")
    return path


def _of_frames(frames: np.ndarray, stem: pathlib.Path) -> pathlib.Path:
    """Writes a clip by a codec that loses nothing."""
    path = stem.with_suffix(".mkv")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=_RATE)
        _, stream.height, stream.width, _ = frames.shape
        stream.pix_fmt = "bgr0"
        for frame in frames:
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), "rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    return path


def _of_array(values: np.ndarray, stem: pathlib.Path) -> tuple[pathlib.Path, str]:
    picture = values.dtype == np.uint8 and (
        values.ndim == 2 or (values.ndim == 3 and values.shape[-1] == 3)
    )
    if picture:
        return _of_picture(Image.fromarray(values), stem), "image"
    if values.dtype == np.uint8 and values.ndim == 4 and values.shape[-1] == 3:
        return _of_frames(values, stem), "video"
    if values.ndim == 2 and values.dtype == np.uint16:
        return _of_picture(Image.fromarray(values), stem), "depth"
    if values.ndim == 2 and np.issubdtype(values.dtype, np.floating):
        path = stem.with_suffix(".npy")
        np.save(path, values.astype(np.float32), allow_pickle=False)
        return path, "depth"
    raise DataError(
        f"an array of {values.dtype} and shape {values.shape}; expected uint8 [h w] or "
        "[h w 3] for a picture, uint8 [f h w 3] for a clip, uint16 [h w] or "
        "float [h w] for depth, a pair with the sampling rate for a sound"
    )
