"""Preprocessing as in ImageBind's own loaders.

Pictures are preprocessed as for CLIP, see `image.preprocess`.

References:
    Girdhar et al., ImageBind: One Embedding Space To Bind Them All, 2023; its code,
    `imagebind/data.py`.
"""

import math
from collections.abc import Iterator
from fractions import Fraction

import numpy as np

from mmcl_jax.errors import DataError
from mmcl_jax.modalities.base import Inputs, InputSpec, Shapes, Style
from mmcl_jax.modalities.filters import log_mel, resample
from mmcl_jax.modalities.languagebind import scaled_shape
from mmcl_jax.modalities.resizing import (
    crop_box,
    fitted_shape,
    resize_as_torch,
    trim,
)

_CLIP_SECONDS = 2
_SOUND_CLIPS = 3
_VIDEO_CLIPS, _FRAMES_OF_CLIP, _CROPS = 5, 2, 3
FRAMES = _VIDEO_CLIPS * _FRAMES_OF_CLIP
_MIN_DEPTH = 0.01
_MIN_DISPARITY, _MAX_DISPARITY = 0.01, 75.0
_DISPARITY_MEAN, _DISPARITY_STD = np.float32(0.0418), np.float32(0.0295)


def clip_starts(seconds: float, clips: int) -> Iterator[Fraction]:
    """Yields the start of each clip of two seconds, evenly over the possible ones.

    The starts are fractions, as in pytorchvideo's `ConstantClipsPerVideoSampler`: how
    they are rounded decides which frame or sample is taken.

    >>> [float(start) for start in clip_starts(5.0, 3)]
    [0.0, 1.5, 3.0]
    """
    latest = Fraction(max(seconds - _CLIP_SECONDS, 0))
    for i in range(clips):
        yield latest * i / (clips - 1)


def frame_indices(count: int, rate: float) -> np.ndarray:
    """Chooses the first and last frame of five clips of two seconds each.

    Args:
        count: Number of frames of the video, at least 1.
        rate: Average frames a second.

    Returns:
        int `[10]`, clip by clip.

    >>> frame_indices(100, 10.0).tolist()
    [0, 19, 20, 39, 40, 59, 60, 79, 80, 99]
    """
    indices = []
    for start in clip_starts(count / rate, _VIDEO_CLIPS):
        # Below one frame in two seconds a clip may hold none; it takes the next one.
        first = min(math.ceil(rate * float(start)), count - 1)
        stop = min(math.ceil(rate * float(start + _CLIP_SECONDS)), count)
        indices += [first, max(stop - 1, first)]
    return np.array(indices)


def video(media: np.ndarray, spec: InputSpec) -> Inputs:
    """Resizes frames as floats, bilinear without antialiasing, and crops each thrice.

    Args:
        media: uint8 `[10, h, w, 3]`, the frames of `frame_indices`; another number of
            frames is sampled evenly.
        spec: Size, mean and std of the input.

    Returns:
        `{"pixels": float32 [15, 2, s, s, 3]}`: the left, the central and the right
        square of each clip, or the top, the central and the bottom one of a tall clip.
    """
    size = spec.image_size
    chosen = np.linspace(0, len(media) - 1, FRAMES, dtype=int)
    clip = np.stack([trim(media[i]) for i in chosen])
    height, width = scaled_shape(clip.shape[1], clip.shape[2], size)
    whole = (0, 0, width, height)
    values = resize_as_torch(clip, (height, width), whole, "linear", antialias=False)
    mean, std = np.array(spec.mean, np.float32), np.array(spec.std, np.float32)
    values = (values / 255 - mean) / std
    tall = height > width
    spare = height - size if tall else width - size
    starts = (0, math.ceil(spare / 2), spare)
    crops = [
        values[:, i : i + size] if tall else values[:, :, i : i + size] for i in starts
    ]
    # [crop, clip and frame, ...] -> [clip and crop, frame, ...]
    pixels = np.stack(crops).reshape(
        _CROPS, _VIDEO_CLIPS, _FRAMES_OF_CLIP, size, size, 3
    )
    return {"pixels": pixels.swapaxes(0, 1).reshape(-1, *pixels.shape[2:])}


def video_shapes(spec: InputSpec) -> Shapes:
    """Returns the shapes of a clip."""
    shape = (_VIDEO_CLIPS * _CROPS, _FRAMES_OF_CLIP, spec.image_size, spec.image_size)
    return {"pixels": ((*shape, 3), np.float32)}


def audio(media: tuple[np.ndarray, int], spec: InputSpec) -> Inputs:
    """Computes the log-mel spectrograms of three clips of two seconds.

    A spectrogram shorter than `mel_frames` is padded with zeros before it is
    normalised. A sound of two seconds or less gives three equal clips.

    Args:
        media: float32 `[n]`, n at least 1, the first channel, and its rate in hertz.
        spec: `sample_rate`, `mel_bands`, `mel_frames`, mean and std of the input.

    Returns:
        `{"pixels": float32 [3, mel_bands, mel_frames, 1]}`, the lowest band first.

    Raises:
        DataError: The sound has no samples.
    """
    samples, rate = media
    if not len(samples):
        raise DataError("a sound without samples")
    rate, source = spec.sample_rate, rate
    samples = resample(samples, source, rate).copy()
    pixels = np.zeros((_SOUND_CLIPS, spec.mel_bands, spec.mel_frames, 1), np.float32)
    for i, start in enumerate(clip_starts(len(samples) / rate, _SOUND_CLIPS)):
        clip = samples[int(start * rate) : int((start + _CLIP_SECONDS) * rate)]
        clip -= clip.mean()  # in place, as in the reference: twice where clips overlap
        bands = log_mel(clip, rate, spec.mel_bands)[: spec.mel_frames]
        pixels[i, :, : len(bands), 0] = bands.T
    return {
        "pixels": (pixels - np.float32(spec.audio_mean)) / np.float32(spec.audio_std)
    }


def audio_shapes(spec: InputSpec) -> Shapes:
    """Returns the shapes of a sound."""
    shape = (_SOUND_CLIPS, spec.mel_bands, spec.mel_frames, 1)
    return {"pixels": (shape, np.float32)}


def depth(media: np.ndarray, spec: InputSpec) -> Inputs:
    """Computes the disparity that the depth camera would have measured.

    It is `disparity_scale` over depth, clipped to [0.01, 75] and divided by 75. The
    authors have published no loader for depth: this is the recipe that they give in
    the issues of ImageBind and Omnivore. Others report lower accuracies with it than
    the paper. Holes count as the nearest depth, 1 cm, as in the recipe.

    Args:
        media: float32 `[h, w]`, metres, 0 = no reading.
        spec: Size, `max_depth`, `disparity_scale` and `antialias` of the input.

    Returns:
        `{"pixels": float32 [1, s, s, 1]}`.

    References:
        Girdhar et al., Omnivore: A Single Model for Many Visual Modalities, 2022; its
        code, `predict.py`.
    """
    metres = np.clip(trim(media), _MIN_DEPTH, spec.max_depth)
    disparity = np.float32(spec.disparity_scale) / metres
    part = np.clip(disparity, _MIN_DISPARITY, _MAX_DISPARITY) / _MAX_DISPARITY
    shape = fitted_shape(part.shape[0], part.shape[1], spec.image_size)
    box = crop_box(*shape, spec.image_size)
    part = part[None, ..., None]
    values = resize_as_torch(part, shape, box, "linear", spec.antialias)
    return {"pixels": (values - _DISPARITY_MEAN) / _DISPARITY_STD}


def depth_shapes(spec: InputSpec) -> Shapes:
    """Returns the shapes of a depth map."""
    return {"pixels": ((1, spec.image_size, spec.image_size, 1), np.float32)}


VIDEO = Style(video, video_shapes, "imagebind-video-3")
AUDIO = Style(audio, audio_shapes, "imagebind-audio-1")
DEPTH = Style(depth, depth_shapes, "imagebind-depth-1", ("antialias",))
