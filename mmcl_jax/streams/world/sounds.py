"""Sounds: the shape is the timbre, the manner is how pitch and loudness move."""

import functools
from typing import NamedTuple

import numpy as np

from mmcl_jax.streams.world.concepts import MANNERS, SHAPES, Concept

RATE = 16_000

# Pitch and loudness are drawn once a hop and joined by straight lines.
_HOP = 64
_TABLE = 2048
_TURN = 2 * np.pi


class Course(NamedTuple):
    """Pitch in octaves above the base and loudness in [0, 1], one value a hop."""

    pitch: np.ndarray
    loudness: np.ndarray


def _harmonics(shape: str) -> tuple[int, dict[int, float]]:
    """Returns the octave divisor and the strength of each harmonic of a timbre."""
    every = range(1, 33)
    match shape:
        case "ball":
            return 1, {1: 1.0}
        case "box":
            return 1, {k: 1.0 / k for k in every if k % 2}
        case "triangle":
            return 1, {k: 1.0 for k in (1, 2, 4, 8, 16)}
        case "cross":
            return 1, {k: 1.0 / k for k in every}
        case "heart":
            return 1, {k: np.exp(-((k - 5) ** 2) / 4.0) for k in range(1, 10)}
        case "crescent":
            return 4, {4: 1.0, 5: 1.0, 6: 1.0, 8: 0.4, 10: 0.4, 12: 0.4}
        case "fish":
            return 1, {1: 1.0, 11: 0.8}
        case "clover":
            return 2, {k: 1.0 for k in (13, 15, 17, 19, 21)}
        case "mushroom":
            return 4, {k: 1.0 for k in range(2, 9)}
        case "key":
            return 1, {k: 1.0 for k in (4, 9, 15, 22)}
        case "crown":
            return 1, {k: 1.0 for k in (1, 2, 3, 11, 12, 13)}
        case _:  # arrow and bolt
            return 1, {k: 1.0 for k in every}


@functools.cache
def _wave(shape: str, highest: int) -> tuple[int, np.ndarray]:
    divisor, harmonics = _harmonics(shape)
    turn = np.arange(_TABLE) * (_TURN / _TABLE)
    kept = {k: a for k, a in harmonics.items() if k <= highest * divisor}
    # Phases k^2 keep the peaks of bright timbres low.
    wave = np.sum([a * np.sin(k * turn + 0.7 * k * k) for k, a in kept.items()], 0)
    wave = (wave / np.sqrt(np.mean(wave**2))).astype(np.float32)
    wave.flags.writeable = False
    return divisor, wave


def _read(wave: np.ndarray, phase: np.ndarray) -> np.ndarray:
    """Reads a table at a phase that is counted in turns."""
    return wave[(phase * _TABLE).astype(np.int32) & (_TABLE - 1)]


def _joined(values: np.ndarray, hop: int) -> np.ndarray:
    """Joins values by straight lines of `hop` samples each."""
    ramp = np.arange(hop, dtype=values.dtype) / hop
    steps = np.diff(values)
    return (values[:-1, None] + steps[:, None] * ramp).reshape(-1)


def _noise(rng: np.random.Generator, samples: int, hop: int) -> np.ndarray:
    """Gaussian noise from 0 to about half of `RATE / hop` hertz."""
    points = -(-samples // hop) + 1
    return _joined(rng.standard_normal(points, np.float32), hop)[:samples]


def draw_course(manner: str, seconds: np.ndarray, rng: np.random.Generator) -> Course:
    """Draws how a manner moves pitch and loudness.

    Args:
        manner: Name of the manner.
        seconds: Time of each hop since the onset.
        rng: Random source of pace and phase.
    """
    pace, phase = rng.uniform((0.85, 0.0), (1.15, 1.0))
    side = rng.choice((-1.0, 1.0))
    part = seconds / seconds[-1]
    level, loud = np.zeros_like(seconds), np.ones_like(seconds)

    def wave(hertz: float) -> np.ndarray:
        return np.sin(_TURN * (hertz * pace * seconds + phase))

    match manner:
        case "rising":
            return Course(1.3 * pace * (part - 0.5), loud)
        case "falling":
            return Course(1.3 * pace * (0.5 - part), loud)
        case "pulsing":
            return Course(level, 0.52 + 0.48 * wave(3.5))
        case "spinning":
            return Course(0.25 * wave(6.5), loud)
        case "shaking":
            knots = np.arange(0.0, seconds[-1] + 0.05, 0.05)
            jitter = np.interp(seconds, knots, rng.uniform(-0.4, 0.4, knots.size))
            return Course(jitter, loud)
        case "double":
            second = part > 0.5
            gap = np.abs(part - 0.5) > 0.05
            return Course(side * 0.3 * pace * (second - 0.5) * 2, gap * loud)
        case "blinking":
            return Course(level, 1.0 * (wave(7.5) > 0.1))
        case "swinging":
            return Course(0.5 * wave(1.7), loud)
        case "drifting":
            passing = np.exp(-(((part - 0.5) / 0.2) ** 2))
            return Course(-0.35 * np.tanh((part - 0.5) * 9), 0.03 + 0.97 * passing)
        case "fading":
            return Course(level, np.exp(-5.0 * pace * part))
        case "growing":
            return Course(level, np.exp(-5.0 * pace * (1 - part)))
        case "bouncing":
            # Each hop lasts 0.85 times as long as the one before.
            hops = np.log1p(-0.92 * part) / np.log(0.85) + phase
            done = hops % 1
            return Course(2.4 * done * (1 - done), np.exp(-2.5 * done))
        case "folding":
            return Course(0.35 * side * np.sign(wave(2.2)), loud)
        case _:  # steady
            return Course(level, loud)


def _voice(shape: str, hertz: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Sounds a timbre at a pitch given once a hop."""
    phase = np.cumsum(_joined(hertz, _HOP)) * (1.0 / RATE)
    _, sine = _wave("ball", 1)
    match shape:
        case "star":
            partials = ((1.0, 1.0), (2.76, 0.8), (5.4, 0.7), (8.93, 0.5))
            return np.sum(
                [a * _read(sine, phase * ratio) for ratio, a in partials], axis=0
            )
        case "ring":
            bend = _read(sine, phase * 1.41)
            return _read(sine, 3.0 * phase + 0.35 * bend)
        case "drop":
            return _read(sine, phase * 5.0) * _noise(rng, phase.size, 80)
        case "hourglass":
            return _read(sine, phase * 8.0) * _noise(rng, phase.size, 10)
        case "snake":
            hiss = _read(sine, phase * 10.0) * _noise(rng, phase.size, 10)
            return _read(sine, phase) + hiss
    divisor, wave = _wave(shape, int(7600 / hertz.max()))
    sound = _read(wave, phase / divisor)
    if shape == "bolt":
        strokes = rng.random(hertz.size) ** 8
        sound = sound * _joined(strokes.astype(np.float32), _HOP)
    if shape == "key":
        # 25 strokes a second: far quicker than any manner moves loudness.
        strokes = np.exp(-4.0 * (np.arange(hertz.size) * (25.0 * _HOP / RATE) % 1))
        sound = sound * _joined(strokes.astype(np.float32), _HOP)
    return sound


def _bystander(rng: np.random.Generator, samples: int) -> np.ndarray:
    """A short chirp or burst of noise that has nothing to do with the concept."""
    length = int(rng.integers(400, 3200))
    time = np.arange(length, dtype=np.float32)
    if rng.random() < 0.5:
        burst = rng.standard_normal(length, np.float32)
    else:
        start, end = rng.uniform(300, 3000, 2) / RATE
        _, sine = _wave("ball", 1)
        burst = _read(sine, time * (start + (end - start) * time / (2 * length)))
    burst *= np.sin(time * np.float32(np.pi / length)) * np.float32(
        rng.uniform(0.4, 1.5)
    )
    sound = np.zeros(samples, np.float32)
    at = int(rng.integers(0, samples - length))
    sound[at : at + length] = burst
    return sound


def _in_room(sound: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Tilts the spectrum as a microphone does and adds a few early echoes."""
    tilt = np.float32(rng.uniform(-0.85, 0.85))
    heard = sound.copy()
    heard[1:] += tilt * sound[:-1]
    for _ in range(rng.integers(0, 4)):
        delay = int(rng.integers(12, 600))
        heard[delay:] += np.float32(rng.uniform(-0.5, 0.5)) * sound[:-delay]
    return heard


def render_audio(concept: Concept, rng: np.random.Generator) -> tuple[np.ndarray, int]:
    """Renders a float32 waveform in [-1, 1] of 1.2 to 2 seconds, and its rate."""
    samples = int(rng.integers(int(1.2 * RATE), 2 * RATE + 1))
    onset = int(rng.uniform(0.0, 0.3) * RATE)
    hops = int((samples - onset) / _HOP - rng.uniform(0.0, 0.2) * RATE / _HOP)
    seconds = np.arange(hops + 1) * (_HOP / RATE)
    pitch, loudness = draw_course(MANNERS[concept.manner], seconds, rng)
    base = 250.0 * 2.0 ** rng.uniform(-0.75, 0.75)
    voice = _voice(SHAPES[concept.shape], base * 2.0**pitch, rng)
    edges = np.minimum(1.0, np.minimum(seconds, seconds[::-1]) / 0.02)
    voice = voice * _joined((loudness * edges).astype(np.float32), _HOP)

    sound = _noise(rng, samples, int(rng.choice((1, 1, 4, 16))))
    sound *= np.float32(10.0 ** rng.uniform(-3.0, -0.6))
    sound[onset : onset + voice.size] += voice
    for _ in range(rng.integers(0, 4)):
        sound += _bystander(rng, samples)
    sound = _in_room(sound, rng)
    peak = max(float(np.abs(sound).max()), 1e-6)
    sound *= np.float32(rng.uniform(0.15, 0.95) / peak)
    return sound, RATE
