"""Inputs as the references prepare them, by torch, Pillow and plain formulas.

`python -m tests.input_references` stores them in `tests/fixtures/inputs.npz`, for
machines without torch and transformers.
"""

import math
import pathlib
from collections.abc import Callable
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

from mmcl_jax.modalities.base import InputSpec, TokenizerSpec

FIXTURE = pathlib.Path(__file__).parent / "fixtures" / "inputs.npz"
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
SPEC = InputSpec(
    image_size=12,
    frames=4,
    mean=CLIP_MEAN,
    std=CLIP_STD,
    sample_rate=16000,
    audio_seconds=2.0,
    audio_mean=-4.2677393,
    audio_std=4.5689974,
    max_depth=10.0,
    context_length=8,
    tokenizer=TokenizerSpec(""),
    mel_bands=9,
    mel_frames=35,
)


class Case(NamedTuple):
    """One way to prepare one sample.

    Attributes:
        modality: of the sample.
        changes: what differs from `SPEC`.
        media: makes the sample.
        reference: makes pixels of it, channel-last; takes the media and the spec.
        mistakes: changes of the spec, each of which must be noticed.
        tolerance: largest difference, in normalised units.
    """

    modality: str
    changes: dict[str, Any]
    media: Callable[[], Any]
    reference: Callable[[Any, InputSpec], np.ndarray]
    mistakes: tuple[dict[str, Any], ...] = ()
    tolerance: float = 1e-5


# samples


def _noise(*shape: int) -> Callable[[], np.ndarray]:
    return lambda: np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)


def _depth() -> np.ndarray:
    depth = np.random.default_rng(0).integers(300, 12000, (37, 50)).astype(np.uint16)
    depth[5:9, 20:30] = 0
    return depth.astype(np.float32) / 1000


def _sound(seconds: float) -> Callable[[], tuple[np.ndarray, int]]:
    def make() -> tuple[np.ndarray, int]:
        times = np.arange(round(seconds * 16000)) / 16000
        noise = np.random.default_rng(0).normal(size=len(times))
        chirp = np.sin(2 * np.pi * (300 + 400 * times) * times)
        return (0.4 * chirp + 0.02 * noise + 0.05).astype(np.float32), 16000

    return make


# torch


def _interpolate(pictures: Any, shape: tuple[int, int], **options: Any) -> np.ndarray:
    import torch

    x = torch.from_numpy(np.asarray(pictures, np.float32)).permute(0, 3, 1, 2)
    x = torch.nn.functional.interpolate(x, size=shape, align_corners=False, **options)
    return x.permute(0, 2, 3, 1).numpy()


def _torchvision_resize(x: np.ndarray, size: int, mode: str, antialias: bool) -> Any:
    _, h, w, _ = x.shape
    short, long = min(h, w), max(h, w)
    other = int(size * long / short)
    shape = (size, other) if h <= w else (other, size)
    return _interpolate(x, shape, mode=mode, antialias=antialias)


def _centre_crop(x: np.ndarray, size: int) -> np.ndarray:
    top = int(round((x.shape[1] - size) / 2.0))
    left = int(round((x.shape[2] - size) / 2.0))
    return x[:, top : top + size, left : left + size]


def _normalized(x: np.ndarray, spec: InputSpec) -> np.ndarray:
    return (x - np.float32(spec.mean)) / np.float32(spec.std)


def _short_side_scale(x: np.ndarray, size: int) -> np.ndarray:
    _, h, w, _ = x.shape
    if w < h:
        shape = (int(math.floor((float(h) / w) * size)), size)
    else:
        shape = (size, int(math.floor((float(w) / h) * size)))
    return _interpolate(x, shape, mode="bilinear")


def kaldi_fbank(samples: np.ndarray, bands: int) -> np.ndarray:
    """`torchaudio.compliance.kaldi.fbank` of the arguments of both families."""
    import torch

    wave = torch.from_numpy(np.asarray(samples, np.float32).copy())
    frames = wave.unfold(0, 400, 160)
    frames = frames - frames.mean(dim=1, keepdim=True)
    before = torch.nn.functional.pad(frames[None], (1, 0), mode="replicate")[0]
    frames = frames - 0.97 * before[:, :-1]
    frames = frames * torch.hann_window(400, periodic=False)
    power = torch.fft.rfft(torch.nn.functional.pad(frames, (0, 112))).abs() ** 2

    def mel(hertz: Any) -> Any:
        return 1127.0 * np.log(1.0 + np.asarray(hertz) / 700.0)

    low, high = mel(20.0), mel(8000.0)
    delta = (high - low) / (bands + 1)
    left = low + np.arange(bands)[:, None] * delta
    points = mel(31.25 * np.arange(256))[None]
    up, down = (points - left) / delta, (left + 2 * delta - points) / delta
    banks = np.pad(np.maximum(0, np.minimum(up, down)), ((0, 0), (0, 1)))
    energies = power @ torch.from_numpy(banks.astype(np.float32)).T
    return torch.log(torch.clamp(energies, min=1.1920929e-07)).numpy()


# families


def _clip_processor(media: np.ndarray, spec: InputSpec) -> np.ndarray:
    from transformers import CLIPImageProcessorPil

    processor = CLIPImageProcessorPil(
        size={"shortest_edge": spec.image_size},
        crop_size={"height": spec.image_size, "width": spec.image_size},
        image_mean=list(spec.mean),
        image_std=list(spec.std),
    )
    pixels = processor(media, return_tensors="np")["pixel_values"]
    return np.moveaxis(pixels, 1, -1)


def _siglip_processor(media: np.ndarray, spec: InputSpec) -> np.ndarray:
    from transformers import SiglipImageProcessorPil

    processor = SiglipImageProcessorPil(
        size={"height": spec.image_size, "width": spec.image_size},
        image_mean=list(spec.mean),
        image_std=list(spec.std),
    )
    pixels = processor(media, return_tensors="np")["pixel_values"]
    return np.moveaxis(pixels, 1, -1)


def _languagebind_image(media: np.ndarray, spec: InputSpec) -> np.ndarray:
    x = np.asarray(media[None], np.float32) / 255
    x = _torchvision_resize(x, spec.image_size, "bicubic", spec.antialias)
    return _normalized(_centre_crop(x, spec.image_size), spec)


def _languagebind_depth(media: np.ndarray, spec: InputSpec) -> np.ndarray:
    part = media.clip(min=0.01).clip(max=10.0) / 10.0
    x = np.repeat(part[None, ..., None], 3, axis=-1)
    x = _torchvision_resize(x, spec.image_size, "bicubic", spec.antialias)
    return _normalized(_centre_crop(x, spec.image_size), spec)


def _languagebind_video(media: np.ndarray, spec: InputSpec) -> np.ndarray:
    chosen = np.linspace(0, len(media) - 1, spec.frames, dtype=int)
    x = _normalized(np.asarray(media[chosen], np.float32) / 255.0, spec)
    return _centre_crop(_short_side_scale(x, spec.image_size), spec.image_size)


def _languagebind_audio(media: tuple[np.ndarray, int], spec: InputSpec) -> np.ndarray:
    samples, _ = media
    mel, length = kaldi_fbank(samples - samples.mean(), spec.mel_bands), spec.mel_frames
    if len(mel) > length:
        ranges = np.array_split(list(range(0, len(mel) - length + 1)), 3)
        starts = [int(part[0]) if len(part) else 0 for part in ranges]
        parts = [mel[i : i + length] for i in starts]
    else:
        repeats = int(length / len(mel)) + 1
        parts = [np.tile(mel, (repeats, 1))[:length]] * 3
    x = np.stack(parts).transpose(2, 1, 0)
    return ((x - spec.audio_mean) / (spec.audio_std * 2))[None]


def _clips(seconds: float, clips: int) -> list[tuple[Fraction, Fraction]]:
    latest = Fraction(max(seconds - Fraction(2), 0))
    step = Fraction(latest, max(clips - 1, 1))
    return [(step * i, step * i + Fraction(2)) for i in range(clips)]


def imagebind_frames(count: int, rate: float) -> list[int]:
    """Frames that decord's clips and `UniformTemporalSubsample(2)` leave."""
    chosen = []
    for start, end in _clips(float(count) / float(rate), 5):
        indices = range(math.ceil(rate * start), min(math.ceil(rate * end), count))
        chosen += [indices[0], indices[-1]]
    return chosen


def _imagebind_video(media: np.ndarray, spec: InputSpec) -> np.ndarray:
    size, results = spec.image_size, []
    for clip in media.reshape(5, 2, *media.shape[1:]):
        x = _short_side_scale(np.asarray(clip, np.float32) / 255.0, size)
        x = _normalized(x, spec)
        _, height, width, _ = x.shape
        for place in range(3):
            top = int(math.ceil((height - size) / 2))
            left = int(math.ceil((width - size) / 2))
            if height > width:
                top = {0: 0, 2: height - size}.get(place, top)
            else:
                left = {0: 0, 2: width - size}.get(place, left)
            results.append(x[:, top : top + size, left : left + size])
    return np.stack(results)


def _imagebind_audio(media: tuple[np.ndarray, int], spec: InputSpec) -> np.ndarray:
    samples, clips = media[0].copy(), []
    for start, end in _clips(len(samples) / 16000, 3):
        part = samples[int(start * 16000) : int(end * 16000)]
        part -= part.mean()
        mel = kaldi_fbank(part, spec.mel_bands)
        lack = spec.mel_frames - len(mel)
        mel = np.pad(mel, ((0, max(lack, 0)), (0, 0)))[: spec.mel_frames]
        clips.append(((mel.T - spec.audio_mean) / spec.audio_std)[..., None])
    return np.stack(clips)


def _imagebind_depth(media: np.ndarray, spec: InputSpec) -> np.ndarray:
    metres = media.clip(min=0.01, max=50)
    disparity = 0.075 * 518.857901 / metres
    x = disparity.clip(0.01, 75.0)[None, ..., None] / 75.0
    x = _torchvision_resize(x, spec.image_size, "bilinear", spec.antialias)
    return (_centre_crop(x, spec.image_size) - 0.0418) / 0.0295


_HALF = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
_LANGUAGEBIND = {"style": "languagebind"}
_ALIASED = {"antialias": False}
_IMAGEBIND = {"style": "imagebind", "max_depth": 50.0}
_IMAGEBIND_SOUND = _IMAGEBIND | {
    "mel_bands": 2,
    "mel_frames": 204,
    "audio_mean": -4.268,
    "audio_std": 9.138,
}
# a filter bank in single precision, where a band is nearly silent
_LOUD = 5e-3

CASES = {
    "clip": Case(
        "image", {}, _noise(40, 49, 3), _clip_processor, ({"resize": "squash"},)
    ),
    "siglip": Case(
        "image",
        _HALF | {"resize": "squash"},
        _noise(40, 59, 3),
        _siglip_processor,
        ({"resize": "crop"}, {"std": CLIP_STD}),
    ),
    "languagebind image": Case(
        "image",
        _LANGUAGEBIND,
        _noise(41, 56, 3),
        _languagebind_image,
        (_ALIASED, {"style": "clip"}),
    ),
    "languagebind image, aliased": Case(
        "image",
        _LANGUAGEBIND | _ALIASED,
        _noise(56, 41, 3),
        _languagebind_image,
        ({"antialias": True},),
    ),
    "languagebind depth": Case(
        "depth",
        _LANGUAGEBIND,
        _depth,
        _languagebind_depth,
        (_ALIASED, {"max_depth": 20.0}, {"style": "clip"}),
    ),
    "languagebind video": Case(
        "video",
        _LANGUAGEBIND,
        _noise(7, 29, 40, 3),
        _languagebind_video,
        ({"style": "clip"},),
    ),
    "languagebind short audio": Case(
        "audio",
        _LANGUAGEBIND,
        _sound(0.2),
        _languagebind_audio,
        ({"audio_std": 4.5689974 / 2}, {"mel_bands": 9, "audio_mean": 0.0}),
        _LOUD,
    ),
    "languagebind long audio": Case(
        "audio",
        _LANGUAGEBIND,
        _sound(0.7),
        _languagebind_audio,
        ({"audio_std": 9.137994},),
        _LOUD,
    ),
    "imagebind wide video": Case(
        "video", _IMAGEBIND | {"image_size": 4}, _noise(10, 14, 23, 3), _imagebind_video
    ),
    "imagebind tall video": Case(
        "video", _IMAGEBIND | {"image_size": 4}, _noise(10, 27, 14, 3), _imagebind_video
    ),
    "imagebind short audio": Case(
        "audio",
        _IMAGEBIND_SOUND,
        _sound(1.3),
        _imagebind_audio,
        ({"audio_std": 4.5689974},),
        _LOUD,
    ),
    "imagebind long audio": Case(
        "audio",
        _IMAGEBIND_SOUND,
        _sound(2.7),
        _imagebind_audio,
        ({"audio_mean": 0.0},),
        _LOUD,
    ),
    "imagebind depth": Case(
        "depth",
        _IMAGEBIND,
        _depth,
        _imagebind_depth,
        (_ALIASED, {"disparity_scale": 48.0}),
        1e-4,
    ),
}


if __name__ == "__main__":
    import dataclasses

    stored = {
        name: case.reference(case.media(), dataclasses.replace(SPEC, **case.changes))
        for name, case in CASES.items()
    }
    stored = {name: pixels.astype(np.float32) for name, pixels in stored.items()}
    FIXTURE.parent.mkdir(exist_ok=True)
    np.savez_compressed(FIXTURE, **stored)
