"""Known answers of sounds, resampling and filter banks; damaged sounds."""

import dataclasses
import pathlib

import numpy as np
import pytest
import soundfile

from mmcl_jax.errors import DataError
from mmcl_jax.modalities import AUDIO
from mmcl_jax.modalities.base import InputSpec
from mmcl_jax.modalities.filters import log_mel, resample
from tests import helpers


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> InputSpec:
    return helpers.make_spec(tmp_path_factory.mktemp("spec"))


def test_stereo_is_averaged(spec: InputSpec, tmp_path: pathlib.Path) -> None:
    left, right = helpers.sine(440, 0.2, 16000), helpers.sine(880, 0.2, 16000)
    path = tmp_path / "a.wav"
    soundfile.write(path, np.stack([left, right], axis=1), 16000, subtype="FLOAT")
    samples, rate = AUDIO.decode(str(path), spec)
    assert rate == 16000
    assert samples.dtype == np.float32
    np.testing.assert_allclose(samples, (left + right) / 2, atol=1e-7)


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg"])
def test_sound_formats(suffix: str, spec: InputSpec, tmp_path: pathlib.Path) -> None:
    path, tone = tmp_path / f"a{suffix}", helpers.sine(440, 0.5, 16000)
    soundfile.write(path, tone, 16000)
    samples, _ = AUDIO.decode(str(path), spec)
    np.testing.assert_allclose(samples, tone, atol=0.1 if suffix == ".ogg" else 1e-4)


@pytest.mark.parametrize(
    ("source", "target"), [(8000, 16000), (44100, 16000), (48000, 16000), (7919, 16000)]
)
def test_resampled_sine(source: int, target: int) -> None:
    result = resample(helpers.sine(440, 0.5, source), source, target)
    expected = helpers.sine(440, len(result) / target, target)
    assert len(result) == -(-round(source / 2) * target // source)
    edge = target // 100
    error = np.abs(result - expected)[edge:-edge]
    assert error.max() < 1e-3


def test_resampling_matches_its_formula() -> None:
    samples = np.random.default_rng(0).normal(size=50).astype(np.float32)
    source, target = 3, 2
    cutoff = 0.99 * target
    places = np.arange(len(samples)) / source
    expected = []
    for j in range(34):
        t = np.clip((places - j / target) * cutoff, -6, 6)
        kernel = np.sinc(t) * np.cos(np.pi * t / 12) ** 2 * cutoff / source
        expected.append(kernel @ samples)
    np.testing.assert_allclose(resample(samples, 3, 2), expected, atol=1e-5)


@pytest.mark.parametrize("hertz", [500.0, 1000.0, 4000.0])
def test_sine_peaks_in_its_band(hertz: float) -> None:
    bands = log_mel(helpers.sine(hertz, 1.0, 16000), 16000, 64)
    assert bands.shape == (98, 64)
    mel = 1127 * np.log(1 + np.array([20, 8000, hertz]) / 700)
    width = (mel[1] - mel[0]) / 65
    expected = (mel[2] - mel[0]) / width - 1
    assert np.abs(bands.mean(axis=0).argmax() - expected) <= 1


def test_log_mel_of_silence_and_scale() -> None:
    np.testing.assert_allclose(
        log_mel(np.zeros(1600, np.float32), 16000, 8), np.log(1.1920929e-07), rtol=1e-6
    )
    noise = np.random.default_rng(0).normal(size=1600).astype(np.float32)
    louder = log_mel(noise * 4, 16000, 8) - log_mel(noise, 16000, 8)
    np.testing.assert_allclose(louder, np.log(16), atol=1e-4)


def test_log_mel_matches_its_definition() -> None:
    noise = np.random.default_rng(0).normal(size=560)
    bands = log_mel(noise.astype(np.float32), 16000, 20)
    assert bands.shape == (2, 20)
    frame = noise[160:560] - noise[160:560].mean()
    frame = frame - 0.97 * np.concatenate([frame[:1], frame[:-1]])
    n, k = np.arange(400), np.arange(257)
    frame = frame * (0.5 - 0.5 * np.cos(2 * np.pi * n / 399))
    power = np.abs(np.exp(-2j * np.pi * np.outer(k, n) / 512) @ frame) ** 2
    mel = 1127 * np.log(1 + k * 31.25 / 700)
    low, high = 1127 * np.log(1 + np.array([20, 8000]) / 700)
    centre = low + 8 * (high - low) / 21
    triangle = np.maximum(0, 1 - np.abs(mel - centre) / ((high - low) / 21))
    np.testing.assert_allclose(bands[1, 7], np.log(power @ triangle), atol=1e-4)


def test_high_tones_are_above_low_ones(spec: InputSpec) -> None:
    rows = [
        AUDIO.preprocess((helpers.sine(hertz, 1.0, 16000), 16000), spec)["pixels"][0]
        .mean(axis=(1, 2))
        .argmax()
        for hertz in (200, 1000, 6000)
    ]
    assert rows[0] > rows[1] > rows[2]


def test_short_clips_end_in_silence(spec: InputSpec) -> None:
    tone = helpers.sine(1000, 0.25, 16000)
    pixels = AUDIO.preprocess((tone, 16000), spec)["pixels"][0]
    silence = (np.log(1.1920929e-07) - spec.audio_mean) / spec.audio_std
    np.testing.assert_allclose(pixels[:, 16:], silence, atol=1e-5)
    assert pixels[:, :6].max() > silence + 1
    np.testing.assert_array_equal(pixels[..., 0], pixels[..., 2])


def test_long_clips_give_three_windows(spec: InputSpec) -> None:
    parts = [helpers.sine(hertz, 1.0, 16000) for hertz in (300, 1000, 5000)]
    pixels = AUDIO.preprocess((np.concatenate(parts), 16000), spec)["pixels"][0]
    for channel, part in enumerate(parts):
        alone = AUDIO.preprocess((part, 16000), spec)["pixels"][0, ..., 0]
        np.testing.assert_allclose(pixels[..., channel], alone, atol=0.05)


@pytest.mark.parametrize("count", [1, 2, 100, 399, 15999, 16001])
def test_clips_of_any_length(count: int, spec: InputSpec) -> None:
    noise = np.random.default_rng(0).normal(size=count).astype(np.float32)
    pixels = AUDIO.preprocess((noise, 16000), spec)["pixels"]
    assert pixels.shape == (1, 32, 32, 3)
    assert np.isfinite(pixels).all()


def test_damaged_sounds(spec: InputSpec, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, np.zeros(0), 8000)
    assert "no samples" in helpers.decode_error(AUDIO, path, spec)
    helpers.write_sound(path)
    assert "truncated" in helpers.decode_error(
        AUDIO, helpers.cut(str(path), tmp_path / "b.wav"), spec
    )
    short = dataclasses.replace(spec, max_seconds=0.25)
    assert "more than the limit of 0.2 s" in helpers.decode_error(AUDIO, path, short)
    tone = helpers.sine(440, 0.1, 8000)
    flac = tmp_path / "a.flac"
    soundfile.write(flac, tone, 8000)
    helpers.decode_error(AUDIO, helpers.cut(str(flac), tmp_path / "b.flac"), spec)
    tone[7] = np.nan
    soundfile.write(path, tone, 8000, subtype="FLOAT")
    assert "not finite" in helpers.decode_error(AUDIO, path, spec)
    tone[7] = 32000
    soundfile.write(path, tone, 8000, subtype="FLOAT")
    assert "samples up to 32000" in helpers.decode_error(AUDIO, path, spec)
    with pytest.raises(DataError, match="without samples"):
        AUDIO.preprocess((np.zeros(0, np.float32), 8000), spec)
