"""Resampling and filter banks that agree with torchaudio's, in NumPy."""

import functools
import math

import numpy as np

_WIDTH = 6
_ROLLOFF = 0.99
_FLOOR = np.float32(1.1920929e-07)
_PREEMPHASIS = np.float32(0.97)
_LOWEST_HZ = 20.0
_ROWS = 8


def resample(samples: np.ndarray, source: int, target: int) -> np.ndarray:
    r"""Resamples by band-limited interpolation with a Hann-windowed sinc.

    $y_j = \frac{f}{s} \sum_i x_i h(\frac{f}{s} (i - j s / r))$ with
    $h(t) = \mathrm{sinc}(t) \cos^2(\pi t / 12)$ for $|t| < 6$, source rate $s$,
    target rate $r$ and cut-off $f = 0.99 \min(s, r)$; $x$ is 0 outside the clip.

    Args:
        samples: float32 `[n]`.
        source: Sample rate of `samples`, hertz.
        target: Sample rate of the result, hertz.

    Returns:
        float32 `[ceil(n target / source)]`.

    References:
        torchaudio.functional.resample, `sinc_interp_hann`; Smith, Digital Audio
        Resampling Home Page, 2002.
    """
    if source == target:
        return samples
    common = math.gcd(source, target)
    source, target = source // common, target // common
    count = math.ceil(len(samples) * target / source)
    firsts, kernels = _kernels(source, target)
    blocks = math.ceil(count / target)
    taps = kernels.shape[1]
    before = -int(firsts[0])
    after = max(0, (blocks - 1) * source + int(firsts[-1]) + taps - len(samples))
    padded = np.pad(samples, (before, after))
    windows = np.lib.stride_tricks.sliding_window_view(padded, taps)
    result = np.empty((blocks, target), np.float32)
    # Outputs of one phase share a kernel, so that each phase is one matrix product.
    for phase, (first, kernel) in enumerate(zip(firsts, kernels, strict=True)):
        start = first + before
        rows = windows[start : start + (blocks - 1) * source + 1 : source]
        result[:, phase] = rows @ kernel
    return result.reshape(-1)[:count]


@functools.lru_cache(maxsize=16)
def _kernels(source: int, target: int) -> tuple[np.ndarray, np.ndarray]:
    # A row for each phase; output j has phase j % target. Only taps inside the kernel's
    # window are stored, so rates without a common divisor stay cheap.
    cutoff = min(source, target) * _ROLLOFF / source
    reach = math.ceil(_WIDTH / cutoff)
    times = np.arange(target) * source / target
    firsts = np.floor(times).astype(int) - reach
    t = (firsts[:, None] + np.arange(2 * reach + 2) - times[:, None]) * cutoff
    t = np.clip(t, -_WIDTH, _WIDTH)
    kernels = cutoff * np.sinc(t) * np.cos(np.pi * t / (2 * _WIDTH)) ** 2
    return firsts, kernels.astype(np.float32)


def log_mel(samples: np.ndarray, rate: int, bands: int) -> np.ndarray:
    """Computes log-mel energies as kaldi does.

    Frames of 25 ms every 10 ms, whole ones only; mean of the frame removed,
    pre-emphasis 0.97, symmetric Hann window, power spectrum, triangular filters on the
    mel scale `1127 ln(1 + f / 700)` from 20 Hz to half the rate, natural logarithm
    floored at 1.19e-7; no dither.

    Args:
        samples: float32 `[n]` in [-1, 1], whole-clip mean removed; clips shorter than
            a frame are padded with zeros.
        rate: Sample rate, hertz.
        bands: Number of mel bands.

    Returns:
        float32 `[frames, bands]`, the lowest band first.

    References:
        Povey et al., The Kaldi Speech Recognition Toolkit, 2011;
        torchaudio.compliance.kaldi.fbank.
    """
    length, step = rate * 25 // 1000, rate // 100
    samples = np.pad(samples, (0, max(0, length - len(samples))))
    frames = np.lib.stride_tricks.sliding_window_view(samples, length)[::step]
    frames = frames - frames.mean(axis=1, keepdims=True)
    previous = np.concatenate([frames[:, :1], frames[:, :-1]], axis=1)
    frames = (frames - _PREEMPHASIS * previous) * np.hanning(length).astype(np.float32)
    size = 1 << (length - 1).bit_length()
    power = np.abs(np.fft.rfft(frames, size).astype(np.complex64)) ** 2
    return np.log(np.maximum(_product(power, _mel_filters(rate, size, bands)), _FLOOR))


def _product(rows: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Returns `rows @ matrix`, a few rows at a time.

    BLAS would spread a larger product over all cores, whose threads then wait for each
    other longer than they compute while other samples are decoded.
    """
    blocks = -(-len(rows) // _ROWS)
    padded = np.pad(rows, ((0, blocks * _ROWS - len(rows)), (0, 0)))
    product = padded.reshape(blocks, _ROWS, -1) @ matrix
    return product.reshape(blocks * _ROWS, -1)[: len(rows)]


@functools.lru_cache(maxsize=16)
def _mel_filters(rate: int, size: int, bands: int) -> np.ndarray:
    def mel(hertz: np.ndarray | float) -> np.ndarray:
        return 1127 * np.log1p(np.asarray(hertz) / 700)

    edges = np.linspace(mel(_LOWEST_HZ), mel(rate / 2), bands + 2)
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    points = mel(np.arange(size // 2 + 1) * rate / size)[:, None]
    rise, fall = (points - left) / (centre - left), (right - points) / (right - centre)
    return np.maximum(0, np.minimum(rise, fall)).astype(np.float32)
