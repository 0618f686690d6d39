"""Sound: WAV, OGG and FLAC files, float32 `[n]` mono and its rate in hertz."""

import os

import numpy as np
import soundfile
from PIL import Image

from mmcl_jax.errors import DataError, reading
from mmcl_jax.modalities import imagebind, languagebind
from mmcl_jax.modalities.base import (
    Inputs,
    InputSpec,
    Modality,
    Style,
    check_seconds,
    still_shapes,
)
from mmcl_jax.modalities.filters import log_mel, resample

EXPECTED = "a WAV, OGG or FLAC file of samples in [-1, 1]"
# Beyond this a kaldi filter at the low end is narrower than a Fourier bin and empty.
_MAX_MELS = 128
# Lossy codecs and float files overshoot 1 a little; unscaled integers by far.
_MAX_PEAK = 16.0
_MAX_RATE = 768_000
_MAX_CHANNELS = 32
_MAX_SAMPLES = 2**27  # a channel: 600 s at 220 kHz
_BLOCK = 2**20
_MAGIC = (b"RIFF", b"RF64", b"OggS", b"fLaC")
_STREAMED = (0, 0xFFFFFFFF)  # sizes written by a program that streamed its output


def decode(path: str, spec: InputSpec) -> tuple[np.ndarray, int]:
    """Reads a sound as the mean of its channels; other styles use only the first.

    Args:
        path: A WAV, OGG or FLAC file.
        spec: Input of the encoder: its `max_seconds` and `style` are used.

    Returns:
        float32 `[n]` in [-1, 1], n at least 1, and the sample rate in hertz.

    Raises:
        DataError: The file is not a sound, is damaged, truncated, empty or too long, or
            has samples that are not finite or far outside [-1, 1].
    """
    with reading(path, EXPECTED):
        _check_head(path)
        with soundfile.SoundFile(path) as file:
            count, rate = file.frames, file.samplerate
            if not 1000 <= rate <= _MAX_RATE or file.channels > _MAX_CHANNELS:
                raise DataError(
                    f"{path}: {rate} Hz and {file.channels} channels; expected 1000 to "
                    f"{_MAX_RATE} Hz and at most {_MAX_CHANNELS} channels"
                )
            check_seconds(path, count / rate, spec)
            if not count:
                raise DataError(f"{path}: no samples in it; expected {EXPECTED}")
            if count > _MAX_SAMPLES:
                raise DataError(
                    f"{path}: {count} samples a channel, more than the limit of "
                    f"{_MAX_SAMPLES}; cut it or lower its rate"
                )
            # Read in blocks: a header may claim far more samples than the file holds.
            blocks = file.blocks(_BLOCK, dtype="float32", always_2d=True)
            mean = spec.style == "clip"
            samples = np.concatenate([_mono(path, block, mean) for block in blocks])
        if len(samples) != count:
            raise DataError(
                f"{path}: {len(samples)} samples where the header says {count}; the "
                "file is truncated or damaged"
            )
        return samples, rate


def _mono(path: str, samples: np.ndarray, mean: bool) -> np.ndarray:
    peak = np.abs(samples).max(initial=0)
    if not np.isfinite(peak):
        raise DataError(f"{path}: samples that are not finite; expected {EXPECTED}")
    if peak > _MAX_PEAK:
        raise DataError(f"{path}: samples up to {peak:.6g}; expected {EXPECTED}")
    return samples.mean(axis=1) if mean else samples[:, 0]


def _check_head(path: str) -> None:
    with open(path, "rb") as file:
        head = file.read(12)
    # Without this check libsndfile takes almost any bytes for MP3.
    if head[:4] not in _MAGIC:
        raise DataError(f"{path}: begins with {head[:4]!r}; expected {EXPECTED}")
    # libsndfile reads a truncated WAV without an error.
    stated, actual = int.from_bytes(head[4:8], "little"), os.path.getsize(path)
    if head[:4] == b"RIFF" and stated not in _STREAMED and stated + 8 > actual + 1:
        raise DataError(
            f"{path}: {actual} bytes where the header says {stated + 8}; the file is "
            "truncated"
        )


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


AUDIO = Modality(
    name="audio",
    tower="visual",
    suffixes=(".wav", ".ogg", ".flac"),
    decode=decode,
    templates=("the sound of a {}.", "a recording of a {}.", "a voice that says {}."),
    styles={
        "clip": Style(preprocess, still_shapes, "audio-1"),
        "languagebind": languagebind.AUDIO,
        "imagebind": imagebind.AUDIO,
    },
)
