"""Sound: WAV, OGG, FLAC, MP3, M4A, AAC and AIFF files, float32 `[n]` mono and its rate.

The rate is in hertz.
"""

import io
import mmap
import os
import pathlib
import re
import struct
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import soundfile
from PIL import Image

from mmcl_jax.errors import DataError, check_bytes, reading
from mmcl_jax.modalities import containers, imagebind, languagebind
from mmcl_jax.modalities.base import (
    Inputs,
    InputSpec,
    Modality,
    Style,
    check_seconds,
    still_shapes,
)
from mmcl_jax.modalities.filters import log_mel, resample
from mmcl_jax.modalities.signatures import found_in, head_of, mp3_seconds, require

EXPECTED = (
    "a sound in WAV, OGG, FLAC, MP3, M4A, AAC or AIFF format, of samples in [-1, 1]"
)
# Beyond this a kaldi filter at the low end is narrower than a Fourier bin and empty.
_MAX_MELS = 128
# Lossy codecs and float files overshoot 1 a little; unscaled integers by far.
_MAX_PEAK = 16.0
_MAX_RATE = 768_000
_MAX_CHANNELS = 32
_MAX_SAMPLES = 2**27  # a channel: 600 s at 220 kHz
_MAX_SOUND_BYTES = 2 * 2**30  # 600 s of stereo at 384 kHz
_MAX_BYTES = 512 * 2**20  # of a file whose header must be mended
_BLOCK = 2**20
_BY_SOUNDFILE = ("wav", "rf64", "ogg", "flac", "aiff")
_BY_FFMPEG = ("mp3", "aac", "mp4", "mov", "matroska")
# Encoders add silence at both ends, which players drop or not.
_SLACK_SECONDS = 0.2
# three steps of 16 bits, which noise of rounding has; share of samples at full scale
# above which it is odd
_SILENCE = 1e-4
_FULL_SCALE, _CLIPPED = 0.99, 0.01
# what lossy codecs overshoot at most; share of equal samples above which a sound is
# silent but for a click; seconds of a frame of a spectrogram
_OVERSHOT, _MUTE, _FRAME_SECONDS = 1.5, 0.95, 0.025


# how a sound begins after another one; and a page of Ogg that begins none
_NEXT = {"ogg": b"OggS\0\2", "flac": b"fLaC\0\0\0\x22"}
_PAGE = re.compile(rb"OggS\x00[\x00\x01\x04\x05]")
# in the first frame of an MP3, followed by flags and the number of frames
_XING = re.compile(b"Xing|Info")


class _Sound(NamedTuple):
    """A sound that is being read.

    Attributes:
        rate: Hertz.
        channels: Their number.
        count: Samples that the file says it holds; None: it does not say.
        blocks: Its samples, float32 `[n, channels]`.
    """

    rate: int
    channels: int
    count: int | None
    blocks: Iterator[np.ndarray]


def decode(path: str, spec: InputSpec) -> tuple[np.ndarray, int]:
    """Reads a sound as the mean of its channels; other styles use only the first.

    Args:
        path: A WAV, OGG, FLAC, MP3, M4A, AAC or AIFF file, or an MP4, WebM or Matroska
            file without moving pictures; cover pictures are skipped.
        spec: Input of the encoder: its `max_seconds` and `style` are used.

    Returns:
        float32 `[n]` in [-1, 1], n at least 1, and the sample rate in hertz.

    Raises:
        DataError: The file is not a sound, is damaged, truncated, empty or too long, or
            has samples that are not finite or far outside [-1, 1].
    """
    with reading(path, EXPECTED, found_in):
        check_bytes(path, _MAX_SOUND_BYTES)
        form = require(path, (*_BY_SOUNDFILE, *_BY_FFMPEG), EXPECTED).format
        # FFmpeg alone skips tags before a sound
        if form in _BY_FFMPEG or head_of(path)[:3] == b"ID3":
            return _read_by_ffmpeg(path, form, spec)
        if form in _NEXT and _has_next(path, form):
            raise DataError(
                f"{path}: several sounds in a row, of which only the first would be "
                f"read; join them, for instance with `ffmpeg -i FILE sound.wav`; "
                f"expected {EXPECTED}"
            )
        source = _mended(path, form)
        with soundfile.SoundFile(source) as file:
            sound = _Sound(file.samplerate, file.channels, file.frames, _blocks(file))
            samples = _collect(path, sound, spec)
        if len(samples) != sound.count:
            raise DataError(
                f"{path}: {len(samples)} samples where the header says {sound.count}; "
                "the file is truncated or damaged"
            )
        return samples, sound.rate


def _blocks(file: soundfile.SoundFile) -> Iterator[np.ndarray]:
    """Reads in blocks: a header may claim far more samples than the file holds."""
    while len(block := file.read(_BLOCK, dtype="float32", always_2d=True)):
        yield block


def _read_by_ffmpeg(path: str, form: str, spec: InputSpec) -> tuple[np.ndarray, int]:
    containers.check_whole(path, form)
    with containers.open_streams(path, form) as container:
        if containers.pictures_in(container):
            raise DataError(
                f"{path}: a video, not a sound; extract its sound, for instance with "
                f"`ffmpeg -i FILE -vn sound.wav`; expected {EXPECTED}"
            )
        if not container.streams.audio:
            raise DataError(f"{path}: no sound in it; expected {EXPECTED}")
        containers.check_codec(path, container.streams.audio[0], EXPECTED)
        stated = _stated_seconds(path, form, container.duration)
        check_seconds(path, stated, spec)
        frames = containers.sound_in(container)
        first = next(frames, None)
        if first is None:
            raise DataError(f"{path}: no samples in it; expected {EXPECTED}")
        rate, channels = first.sample_rate, first.layout.nb_channels

        def blocks() -> Iterator[np.ndarray]:
            yield first.to_ndarray().T
            for frame in frames:
                if (frame.sample_rate, frame.layout.nb_channels) != (rate, channels):
                    raise DataError(
                        f"{path}: rate or channels change within it; encode it again"
                    )
                yield frame.to_ndarray().T

        samples = _collect(path, _Sound(rate, channels, None, blocks()), spec)
    seconds = len(samples) / rate
    if seconds < 0.95 * stated - _SLACK_SECONDS:
        raise DataError(
            f"{path}: {seconds:.1f} s where the header says {stated:.1f} s; the "
            "file is truncated or damaged"
        )
    return samples, rate


def _stated_seconds(path: str, form: str, duration: int | None) -> float:
    """Returns how long a sound says it is; 0: it does not say.

    FFmpeg guesses the length of MP3 and AAC from the size of the file.
    """
    if form not in ("mp3", "aac"):
        return (duration or 0) / containers.TIME_BASE
    head = head_of(path)
    start = head[10:] if head[:3] == b"ID3" else head
    tag = _XING.search(start, 0, 256)
    if form == "aac" or tag is None or len(start) < tag.end() + 8:
        return 0.0
    has_frames, frames = struct.unpack_from(">II", start, tag.end())
    return frames * mp3_seconds(start) if has_frames & 1 else 0.0


def _collect(path: str, sound: _Sound, spec: InputSpec) -> np.ndarray:
    """Reads a sound to its end, within all limits; returns float32 `[n]`."""
    rate, stated = sound.rate, sound.count
    if not 1000 <= rate <= _MAX_RATE or sound.channels > _MAX_CHANNELS:
        raise DataError(
            f"{path}: {rate} Hz and {sound.channels} channels; expected 1000 to "
            f"{_MAX_RATE} Hz and at most {_MAX_CHANNELS} channels"
        )
    _check_count(path, stated or 0, rate, spec)
    if stated == 0:
        raise DataError(
            f"{path}: no samples in it, unless it is truncated; expected {EXPECTED}"
        )
    parts, count = [], 0
    for block in sound.blocks:
        count += len(block)
        _check_count(path, count, rate, spec)
        parts.append(_mono(path, block, spec.style == "clip"))
    return np.concatenate(parts)


def _check_count(path: str, count: int, rate: int, spec: InputSpec) -> None:
    check_seconds(path, count / rate, spec)
    if count > _MAX_SAMPLES:
        raise DataError(
            f"{path}: {count} samples a channel, more than the limit of "
            f"{_MAX_SAMPLES}; cut it or lower its rate"
        )


def _mono(path: str, samples: np.ndarray, mean: bool) -> np.ndarray:
    peak = np.abs(samples).max(initial=0)
    if not np.isfinite(peak):
        raise DataError(f"{path}: samples that are not finite; expected {EXPECTED}")
    if peak > _MAX_PEAK:
        raise DataError(f"{path}: samples up to {peak:.6g}; expected {EXPECTED}")
    return samples.mean(axis=1) if mean else samples[:, 0]


def _has_next(path: str, form: str) -> bool:
    """Returns whether another sound begins after the first."""
    with open(path, "rb") as file:
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            page = _PAGE.search(data) if form == "ogg" else None
            return data.find(_NEXT[form], page.start() if page else 1) >= 0


def _mended(path: str, form: str) -> str | io.BytesIO:
    """Returns what libsndfile reads: the file, or one with the lengths that lack in it.

    Raises:
        DataError: The file is shorter than it says, which libsndfile does not report.
    """
    if form not in ("wav", "rf64", "aiff"):
        return path
    with open(path, "rb") as file:
        head = file.read(2**16)
    actual = os.path.getsize(path)
    if form == "rf64":
        # its lengths have 64 bits, in a chunk of their own
        stated = int.from_bytes(head[20:28], "little")
    else:
        stated = int.from_bytes(head[4:8], "little" if form == "wav" else "big")
    is_streamed = containers.is_streamed(stated)
    if not is_streamed and stated + 8 > actual + 1:
        raise _truncated(path, actual, stated + 8)
    place = _data_chunk(head) if form == "wav" else 0
    if not place:
        return path
    size = int.from_bytes(head[place - 4 : place], "little")
    # a recorder that broke down leaves the header of a file without a sound
    lacks_size = size == 0 and (is_streamed or stated + 8 <= place < actual)
    if not lacks_size and size < containers.STREAMED:
        if place + size > actual + 1:
            raise _truncated(path, actual, place + size)
        return path
    check_bytes(path, _MAX_BYTES)
    content = bytearray(pathlib.Path(path).read_bytes())
    content[4:8] = (actual - 8).to_bytes(4, "little")
    content[place - 4 : place] = (actual - place).to_bytes(4, "little")
    return io.BytesIO(content)


def _truncated(path: str, actual: int, stated: int) -> DataError:
    return DataError(
        f"{path}: {actual} bytes where the header says {stated}; the file is truncated"
    )


def _data_chunk(head: bytes) -> int:
    """Returns where the samples of a WAV begin; 0: beyond the head."""
    place = 12
    while place + 8 <= len(head):
        size = int.from_bytes(head[place + 4 : place + 8], "little")
        if head[place : place + 4] == b"data":
            return place + 8
        place += 8 + size + size % 2
    return 0


def preprocess(media: tuple[np.ndarray, int], spec: InputSpec) -> Inputs:
    """Renders a sound as its log-mel spectrogram.

    A clip longer than `audio_seconds` gives three windows, at its start, middle and
    end, as the three channels. A shorter one gives three equal channels; it is placed
    at the start of the window, and the rest is silence.

    Deviation: LanguageBind draws the three windows at random and repeats short clips;
    fixed windows are deterministic, and repetition would invent a rhythm.

    Args:
        media: float32 `[n]` mono, n at least 1, and its rate in hertz.
        spec: Size, rate, window, mean and standard deviation of the input.

    Returns:
        `{"pixels": float32 [1, s, s, 3]}`: rows are mel bands, the lowest at the
        bottom; columns are time; channels are windows.

    Raises:
        DataError: The sound has no samples.
    """
    samples, rate = media
    if not len(samples):
        raise DataError(f"a sound without samples; expected {EXPECTED}")
    samples = samples - samples.mean()
    window = max(1, round(spec.audio_seconds * rate))
    extra = max(0, len(samples) - window)
    starts = sorted({0, extra // 2, extra}) if extra else [0]
    drawn = [_draw(samples[i : i + window], rate, spec) for i in starts]
    channels = np.stack([drawn[i * len(drawn) // 3] for i in range(3)], axis=-1)
    pixels = (channels - np.float32(spec.audio_mean)) / np.float32(spec.audio_std)
    return {"pixels": pixels[None]}


def _draw(samples: np.ndarray, rate: int, spec: InputSpec) -> np.ndarray:
    size = spec.image_size
    window = round(spec.audio_seconds * spec.sample_rate)
    samples = resample(samples, rate, spec.sample_rate)[:window]
    samples = np.pad(samples, (0, window - len(samples)))
    bands = log_mel(samples, spec.sample_rate, min(size, _MAX_MELS))
    image = Image.fromarray(np.ascontiguousarray(bands.T[::-1]))
    return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR))


def oddities(media: tuple[np.ndarray, int], spec: InputSpec) -> tuple[str, ...]:
    """Returns what is odd about a sound.

    Args:
        media: float32 `[n]` and its rate in hertz.
        spec: Not used.
    """
    del spec
    samples, rate = media
    if np.ptp(samples) < _SILENCE:
        return ("a sound that is silent, or whose channels cancel each other",)
    odd = []
    if len(samples) < _FRAME_SECONDS * rate:
        odd.append("a sound of less than 25 ms")
    elif (samples == np.median(samples)).mean() > _MUTE:
        odd.append("a sound that is silent but for a moment")
    peak = np.abs(samples).max()
    if peak > _OVERSHOT:
        odd.append("a sound with samples far beyond 1; divide them by their full scale")
    elif peak >= _FULL_SCALE and _share_at(samples, peak) > _CLIPPED:
        odd.append("a sound that is clipped at full scale")
    return tuple(odd)


def _share_at(samples: np.ndarray, peak: float) -> float:
    # so near that the crest of a loud sine, which is none of a clipped one, is less
    return float((np.abs(samples) >= 0.99995 * peak).mean())


AUDIO = Modality(
    name="audio",
    tower="visual",
    suffixes=(
        *(".wav", ".ogg", ".oga", ".opus", ".flac"),
        *(".mp3", ".m4a", ".aac", ".aif", ".aiff"),
    ),
    decode=decode,
    templates=("the sound of a {}.", "a recording of a {}.", "a voice that says {}."),
    styles={
        "clip": Style(preprocess, still_shapes, "audio-1"),
        "languagebind": languagebind.AUDIO,
        "imagebind": imagebind.AUDIO,
    },
    oddities=oddities,
)
