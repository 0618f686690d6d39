"""Preprocessing as in LanguageBind's own processors.

References:
    Zhu et al., LanguageBind: Extending Video-Language Pretraining to N-modality by
    Language-based Semantic Alignment, 2024; its code, `languagebind/*/processing_*.py`.
"""

import math

import numpy as np

from mmcl_jax.errors import DataError
from mmcl_jax.modalities.base import Inputs, InputSpec, Shapes, Style, still_shapes
from mmcl_jax.modalities.filters import log_mel, resample
from mmcl_jax.modalities.resizing import (
    crop_box,
    fitted_shape,
    resize_as_torch,
    trim,
)

_MIN_DEPTH = 0.01


def image(media: np.ndarray, spec: InputSpec) -> Inputs:
    """Resizes a picture as floats, bicubic, and crops its centre.

    Args:
        media: uint8 `[h, w, 3]`.
        spec: Size, mean, std and `antialias` of the input.

    Returns:
        `{"pixels": float32 [1, s, s, 3]}`.
    """
    values = _resize_and_crop(trim(media), spec) / 255
    return {"pixels": _normalize(values, spec)}


def depth(media: np.ndarray, spec: InputSpec) -> Inputs:
    """Maps depths from 0 to `max_depth` linearly to [0, 1], in three equal channels.

    Holes count as the nearest depth, 1 cm, as in the reference.

    Args:
        media: float32 `[h, w]`, metres, 0 = no reading.
        spec: Size, mean, std, `max_depth` and `antialias` of the input.

    Returns:
        `{"pixels": float32 [1, s, s, 3]}`.
    """
    part = np.clip(trim(media), _MIN_DEPTH, spec.max_depth) / np.float32(spec.max_depth)
    return {"pixels": _normalize(_resize_and_crop(part[..., None], spec), spec)}


def video(media: np.ndarray, spec: InputSpec) -> Inputs:
    """Resizes the frames of a clip as floats, bilinear without antialiasing.

    The reference normalises before it resizes, which is the same up to rounding.

    Deviation: the reference mirrors clips with probability 1/2, at inference too.

    Args:
        media: uint8 `[f, h, w, 3]`; frames are sampled evenly if there are not as many
            as `frames`.
        spec: `frames`, size, mean and std of the input.

    Returns:
        `{"pixels": float32 [frames, s, s, 3]}`.
    """
    chosen = np.linspace(0, len(media) - 1, spec.frames, dtype=int)
    clip = np.stack([trim(media[i]) for i in chosen])
    shape = scaled_shape(clip.shape[1], clip.shape[2], spec.image_size)
    box = crop_box(*shape, spec.image_size)
    values = resize_as_torch(clip, shape, box, "linear", antialias=False)
    return {"pixels": _normalize(values / 255, spec)}


def scaled_shape(height: int, width: int, size: int) -> tuple[int, int]:
    """Returns the size to which pytorchvideo's `ShortSideScale` scales a frame.

    It differs from `fitted_shape` in the order of rounding.
    """
    if width < height:
        return math.floor(height / width * size), size
    return size, math.floor(width / height * size)


def audio(media: tuple[np.ndarray, int], spec: InputSpec) -> Inputs:
    """Computes the log-mel spectrogram of three windows, as three channels.

    A longer sound gives the first window of each third of all possible windows. Of a
    shorter one the frames of the spectrogram are repeated, and all channels are equal.

    Deviation: the reference draws a window of each third at random.

    Args:
        media: float32 `[n]`, n at least 1, the first channel, and its rate in hertz.
        spec: `sample_rate`, `mel_bands`, `mel_frames`, mean and std of the input.

    Returns:
        `{"pixels": float32 [1, mel_bands, mel_frames, 3]}`, the lowest band first.

    Raises:
        DataError: The sound has no samples.
    """
    samples, rate = media
    if not len(samples):
        raise DataError("a sound without samples")
    samples = resample(samples, rate, spec.sample_rate)
    samples = samples - samples.mean()
    length, step = spec.sample_rate * 25 // 1000, spec.sample_rate // 100
    frames = spec.mel_frames
    spare = max(0, (len(samples) - length) // step + 1 - frames)
    thirds = np.array_split(np.arange(spare + 1), 3)
    starts = [int(third[0]) if len(third) else 0 for third in thirds]
    bands = {
        # Only the samples of the window: a few seconds out of up to ten minutes.
        i: log_mel(
            samples[i * step : (i + frames - 1) * step + length],
            spec.sample_rate,
            spec.mel_bands,
        )
        for i in set(starts)
    }
    windows = [bands[i][np.arange(frames) % len(bands[i])] for i in starts]
    pixels = np.stack(windows, axis=-1).swapaxes(0, 1)
    pixels = (pixels - np.float32(spec.audio_mean)) / np.float32(2 * spec.audio_std)
    return {"pixels": pixels[None]}


def audio_shapes(spec: InputSpec) -> Shapes:
    """Returns the shapes of a sound."""
    return {"pixels": ((1, spec.mel_bands, spec.mel_frames, 3), np.float32)}


def video_shapes(spec: InputSpec) -> Shapes:
    """Returns the shapes of a clip."""
    return still_shapes(spec, spec.frames)


def _resize_and_crop(picture: np.ndarray, spec: InputSpec) -> np.ndarray:
    shape = fitted_shape(picture.shape[0], picture.shape[1], spec.image_size)
    box = crop_box(*shape, spec.image_size)
    return resize_as_torch(picture[None], shape, box, "cubic", spec.antialias)


def _normalize(values: np.ndarray, spec: InputSpec) -> np.ndarray:
    mean, std = np.array(spec.mean, np.float32), np.array(spec.std, np.float32)
    return (values - mean) / std


IMAGE = Style(image, still_shapes, "languagebind-image-2", ("antialias",))
DEPTH = Style(depth, still_shapes, "languagebind-depth-1", ("antialias",))
VIDEO = Style(video, video_shapes, "languagebind-video-3")
AUDIO = Style(audio, audio_shapes, "languagebind-audio-1")
