"""Video clips: MP4, MOV, MKV, WebM, AVI and GIF files, uint8 `[f, h, w, 3]`."""

import contextlib
from collections.abc import Iterator
from typing import Any

import av
import av.error
import numpy as np
from av.sidedata.sidedata import Type as SideDataType
from PIL import Image

from mmcl_jax.errors import DataError, check_bytes, reading
from mmcl_jax.modalities import containers, image, imagebind, languagebind
from mmcl_jax.modalities.base import (
    MAX_FILE_BYTES,
    Inputs,
    InputSpec,
    Modality,
    Shapes,
    Style,
    check_pixels,
    check_seconds,
    still_shapes,
)
from mmcl_jax.modalities.signatures import found_in, require

EXPECTED = "an MP4, MOV, MKV, WebM, AVI or GIF file with a video stream"
_FORMATS = ("mp4", "mov", "matroska", "avi", "gif")
# Clips whose raw frames take less are decoded once, larger ones twice.
_KEEP_BYTES = 64 * 2**20
_MAX_RATE = 240.0
_MAX_GIF_BYTES = 512 * 2**20  # whose blocks are followed one by one
# Over all returned frames: sixteen of 4K.
_MAX_RETURNED_PIXELS = 2**27
# Over all decoded frames, which bounds the time: 600 s of 4K at 40 frames a second. A
# file of a few kilobytes can hold any number of large frames.
_MAX_DECODED_PIXELS = 2 * 10**11


def evenly(count: int, frames: int) -> np.ndarray:
    """Returns the indices of `frames` out of `count`, from the first to the last.

    >>> evenly(61, 4).tolist()
    [0, 20, 40, 60]
    """
    return np.linspace(0, count - 1, frames, dtype=int)


def decode(path: str, spec: InputSpec) -> np.ndarray:
    """Reads the frames of the style: `spec.frames` at even steps, or ImageBind's ten.

    Frames are counted by decoding them, since headers are often wrong. Memory is
    bounded by the returned frames and by 64 MiB of raw ones. The first stream of
    pictures is read that is not the cover of a sound.

    Args:
        path: An MP4, MOV, MKV, WebM, AVI or GIF file.
        spec: Input of the encoder: style, number of frames, `max_pixels`,
            `max_seconds` and `storage.transparency` are used.

    Returns:
        uint8 `[f, h, w, 3]`, RGB, turned upright as the file says.

    Raises:
        DataError: The file is not a video, holds no frame or a damaged one, or is too
            large.
    """
    with _reading(path):
        form = require(path, _FORMATS, EXPECTED).format
        check_bytes(path, _MAX_GIF_BYTES if form == "gif" else MAX_FILE_BYTES)
        containers.check_whole(path, form)
        count, size = 0, 0
        kept: list[av.VideoFrame] = []
        for frame in _frames(path, form, spec):
            count += 1
            size += frame.width * frame.height * 3
            kept.append(frame)
            # Above the limit every frame is dropped again, and a second pass decodes.
            if size > _KEEP_BYTES:
                kept.clear()
        if not count:
            raise DataError(f"{path}: no frame in it; expected {EXPECTED}")
        if spec.style == "imagebind":
            wanted = imagebind.frame_indices(count, _rate(path, form, spec))
        else:
            wanted = evenly(count, spec.frames)
        source = iter(kept) if kept else _frames(path, form, spec)
        return _chosen(path, source, wanted, spec)


@contextlib.contextmanager
def _reading(path: str) -> Iterator[None]:
    """As `reading`; FFmpeg runs out of memory where the file claims absurd sizes."""
    with reading(path, EXPECTED, found_in):
        try:
            yield
        except av.error.MemoryError as error:
            raise DataError(
                f"{path}: an impossible size in it; expected {EXPECTED}"
            ) from error


def _chosen(
    path: str, source: Iterator[av.VideoFrame], wanted: np.ndarray, spec: InputSpec
) -> np.ndarray:
    clip: np.ndarray = np.empty((0, 0, 0, 3), np.uint8)
    for index, frame in enumerate(source):
        if index not in wanted:
            continue
        picture = _rgb(frame, spec)
        if index == 0:
            clip = np.empty((len(wanted), *picture.shape), np.uint8)
        _, height, width, _ = clip.shape
        if picture.shape != clip.shape[1:]:
            raise DataError(
                f"{path}: frame {index} is {picture.shape[1]} x {picture.shape[0]} "
                f"pixels, the first {width} x {height}; expected one size"
            )
        clip[wanted == index] = picture
    return clip


def _check_total(path: str, pixels: int, limit: int, which: str) -> None:
    if pixels > limit:
        raise DataError(
            f"{path}: {which}frames of {pixels} pixels together, more than the limit "
            f"of {limit}; cut the clip or shrink its frames"
        )


def _rate(path: str, form: str, spec: InputSpec) -> float:
    with containers.open_streams(path, form, spec.max_pixels) as container:
        stream = containers.pictures_in(container)
        rate = stream and stream.average_rate
    if not rate:
        raise DataError(f"{path}: no frame rate in it; expected {EXPECTED}")
    return float(rate)


def _frames(path: str, form: str, spec: InputSpec) -> Iterator[av.VideoFrame]:
    with containers.open_streams(path, form, spec.max_pixels) as container:
        stream = containers.pictures_in(container)
        if stream is None:
            what = "a sound, not a video" if container.streams.audio else "no video"
            raise DataError(
                f"{path}: {what}: no video stream in it; expected {EXPECTED}"
            )
        containers.check_codec(path, stream, EXPECTED)
        codec = stream.codec_context
        if not codec.width:
            raise DataError(
                f"{path}: pictures of no size, or of one that is more than the limit "
                f"of {spec.max_pixels} pixels; shrink them or raise `max_pixels`"
            )
        check_pixels(path, codec.width, codec.height, spec)
        check_seconds(path, (container.duration or 0) / av.time_base, spec)
        codec.options = {"max_pixels": str(spec.max_pixels)}
        codec.thread_count = 1  # the loader already decodes clips in parallel
        kept = imagebind.FRAMES if spec.style == "imagebind" else spec.frames
        decoded = 0
        for count, frame in enumerate(container.decode(stream), 1):
            check_pixels(path, frame.width, frame.height, spec)
            decoded += frame.width * frame.height
            _check_total(path, decoded, _MAX_DECODED_PIXELS, "")
            returned = frame.width * frame.height * kept
            _check_total(path, returned, _MAX_RETURNED_PIXELS, f"{kept} ")
            # Time stamps may be missing or wrong, the count is not.
            check_seconds(path, max(frame.time or 0, count / _MAX_RATE), spec)
            if frame.is_corrupt:
                raise DataError(f"{path}: frame {count} is damaged; encode it again")
            yield frame


def _rgb(frame: av.VideoFrame, spec: InputSpec) -> np.ndarray:
    has_alpha = any(component.is_alpha for component in frame.format.components)
    if has_alpha and spec.storage.transparency == "white":
        picture = image.on_white(Image.fromarray(frame.to_ndarray(format="rgba")))
        picture = np.asarray(picture)
    else:
        picture = frame.to_ndarray(format="rgb24")
    return _upright(picture, frame)


def _upright(picture: np.ndarray, frame: av.VideoFrame) -> np.ndarray:
    """Turns and mirrors a picture as the display matrix of its frame says.

    Clips of front cameras are mirrored, which the angle alone does not tell.
    """
    # the library's annotation says that keys are text
    kind: Any = SideDataType.DISPLAYMATRIX
    matrix = frame.side_data.get(kind)
    if matrix is None:
        return picture
    # a column of the picture goes to a x + c y, a row to b x + d y
    a, b, _, c, d = np.frombuffer(bytes(matrix), np.int32)[:5].tolist()
    if abs(b) > abs(a):
        picture, a, d = picture.swapaxes(0, 1), c, b
    return picture[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]


def preprocess(media: np.ndarray, spec: InputSpec) -> Inputs:
    """Returns `{"pixels": float32 [frames, s, s, 3]}` of a clip uint8 `[f, h, w, 3]`.

    Each frame is preprocessed as a picture. A clip of another length than
    `spec.frames` is sampled evenly, repeating frames if it is shorter.
    """
    chosen = media[evenly(len(media), spec.frames)]
    fitted = np.stack([image.fit(frame, spec) for frame in chosen])
    return {"pixels": image.normalize(fitted, spec)}


def shapes(spec: InputSpec) -> Shapes:
    """Returns the shapes of a clip."""
    return still_shapes(spec, spec.frames)


def oddities(media: np.ndarray, spec: InputSpec) -> tuple[str, ...]:
    """Returns what is odd about a clip uint8 `[f, h, w, 3]`."""
    del spec
    if (media[1:] == media[:1]).all():
        return ("a clip of a single frame, or whose frames are all equal",)
    return ()


VIDEO = Modality(
    name="video",
    tower="visual",
    suffixes=(".mp4", ".m4v", ".mov", ".avi", ".gif", ".mkv", ".webm"),
    decode=decode,
    templates=("a video of a {}.", "a clip of a {}.", "a film of a {}."),
    styles={
        "clip": Style(preprocess, shapes, "video-3", ("resize", "interpolation")),
        "languagebind": languagebind.VIDEO,
        "imagebind": imagebind.VIDEO,
    },
    oddities=oddities,
)
