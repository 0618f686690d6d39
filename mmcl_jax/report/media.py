"""Samples as small media embedded in a page: pictures, sounds and sentences."""

import base64
import dataclasses
import functools
import io

import numpy as np
import soundfile
from PIL import Image

from mmcl_jax.modalities import MODALITIES
from mmcl_jax.modalities.base import InputSpec
from mmcl_jax.report.blocks import Example
from mmcl_jax.report.charts import shown
from mmcl_jax.streams.base import Record

# limit for all media of a page, as base64
MAX_BYTES = 1_200_000
_SIDE, _FRAMES, _SECONDS, _LETTERS = 128, 4, 3.0, 280
# sampling rates of MP3, in hertz
_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)


def fitting(example: Example, room: int) -> Example:
    """Returns an example, or why it is left out of a page with `room` bytes left."""
    if len(example.content) <= room:
        return example
    return Example("nothing", "left out to keep the page small", example.name)


@functools.lru_cache(maxsize=64)
def example(record: Record, modality: str, inputs: InputSpec) -> Example:
    """Returns a sample as a page shows it.

    Args:
        record: Record of the sample.
        modality: Modality of the sample.
        inputs: Limits for decoding.
    """
    name = shown(record.reference.describe(), 80)
    inputs = dataclasses.replace(inputs, frames=_FRAMES)
    try:
        media = record.reference.load(MODALITIES[modality], inputs)
        if isinstance(media, str):
            return Example("sentence", shown(media, _LETTERS), name)
        if isinstance(media, tuple):
            return Example("sound", _sound(*media), name)
        return Example("picture", _picture(np.asarray(media)), name)
    except (ValueError, TypeError, IndexError, OSError, KeyError) as error:
        reason = (str(error) or repr(error)).splitlines()[0]
        return Example("nothing", f"cannot be shown ({shown(reason, 120)})", name)


def _sound(samples: np.ndarray, rate: int) -> str:
    """Returns the first seconds as MP3, which every browser plays."""
    start = np.asarray(samples[: int(_SECONDS * rate)], np.float32)
    target = next((r for r in _RATES if r >= rate), _RATES[-1])
    if target != rate:  # MP3 has few rates; linear interpolation is enough to listen
        places = np.arange(int(len(start) * target / rate)) * (rate / target)
        start = np.interp(places, np.arange(len(start)), start).astype(np.float32)
    buffer = io.BytesIO()
    soundfile.write(buffer, np.clip(start, -1, 1), target, format="MP3")
    return _uri("audio/mpeg", buffer.getvalue())


def _picture(pixels: np.ndarray) -> str:
    """Returns a picture, a depth map, or the frames of a clip side by side, as WebP.

    Args:
        pixels: Picture uint8 `[h w 3]`, depth float32 `[h w]` in metres with 0 for no
            reading, or clip uint8 `[f h w 3]`.
    """
    if pixels.ndim == 2:
        pixels = _grey(pixels)
    frames = pixels if pixels.ndim == 4 else pixels[None]
    last, count = len(frames) - 1, min(len(frames), _FRAMES)
    frames = frames[np.linspace(0, last, count, dtype=int)]
    small = [_small(Image.fromarray(frame)) for frame in frames]
    width = sum(picture.width for picture in small) + 2 * (len(small) - 1)
    # transparent gaps between frames show the page
    strip = Image.new("RGBA", (width, small[0].height))
    left = 0
    for picture in small:
        strip.paste(picture, (left, 0))
        left += picture.width + 2
    buffer = io.BytesIO()
    strip.save(buffer, "WEBP", quality=80)
    return _uri("image/webp", buffer.getvalue())


def _small(picture: Image.Image) -> Image.Image:
    """Returns a picture of at most `_SIDE` pixels per side; a tiny one is enlarged."""
    scale = min(_SIDE / max(picture.size), 2.0)
    width, height = (max(1, round(side * scale)) for side in picture.size)
    return picture.convert("RGB").resize((width, height), Image.Resampling.BICUBIC)


def _grey(depth: np.ndarray) -> np.ndarray:
    """Returns a depth map as grey values: near is bright, no reading is black."""
    known = depth > 0
    # in millimetres, of which the grey values span at least one
    depth = np.rint(1000.0 * depth.astype(np.float64))
    low, high = (np.percentile(depth[known], p) for p in (2, 98))
    share = np.clip((high - depth) / max(high - low, 1.0), 0.0, 1.0)
    grey = np.where(known, 40 + 215 * share, 0).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=-1)


def _uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
