"""What pictures of all kinds share: the pixel grid, poses, colours and grounds."""

from typing import NamedTuple

import numpy as np

SIZE = 48

_TICKS = np.arange(SIZE, dtype=np.float32) - np.float32((SIZE - 1) / 2)
X = np.broadcast_to(_TICKS[None, :], (SIZE, SIZE))
Y = np.broadcast_to(_TICKS[:, None], (SIZE, SIZE))

COPY_SCALE = np.float32(0.6)
_COPY_OFFSET = np.float32(0.68)


class Pose(NamedTuple):
    """Where a figure stands; offsets and radius in pixels, angle in radians."""

    x: float
    y: float
    radius: float
    angle: float


def draw_pose(rng: np.random.Generator) -> Pose:
    """Draws a place, a size and a moderate rotation."""
    x, y, radius, angle = rng.uniform((-4, -4, 13.5, -0.35), (4, 4, 18.5, 0.35))
    return Pose(x, y, radius, angle)


def turned(
    x: np.ndarray, y: np.ndarray, angle: float | np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns coordinates in a frame turned clockwise by `angle`, as float32."""
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return x * cos + y * sin, y * cos - x * sin


def twins(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Folds unit coordinates, so that one figure becomes two, side by side."""
    x = x - np.where(x < 0, -_COPY_OFFSET, _COPY_OFFSET)
    return x / COPY_SCALE, y / COPY_SCALE


def draw_colour(rng: np.random.Generator, *others: np.ndarray) -> np.ndarray:
    """Draws an RGB colour in [0, 1] that is far from all others given."""
    candidates = rng.random((6, 3), np.float32)
    gaps = [np.abs(candidates - other).sum(axis=1) for other in others]
    return candidates[np.argmax(np.minimum.reduce(gaps))]


def draw_strokes(rng: np.random.Generator, count: int) -> np.ndarray:
    """Draws round-ended strokes; returns their covers, float32 [count, SIZE, SIZE]."""
    low, high = (-24, -24, 0, 1, 1), (24, 24, np.pi, 14, 3)
    drawn = rng.uniform(low, high, (count, 5)).T.astype(np.float32)
    x, y, angle, length, width = drawn[:, :, None, None]
    along, across = turned(X - x, Y - y, angle)
    beyond = np.maximum(np.abs(along) - length, 0)
    return np.clip(width - np.sqrt(beyond * beyond + across * across), 0, 1)


def draw_ground(rng: np.random.Generator, base: np.ndarray) -> np.ndarray:
    """Draws a background around a base colour: a slope and strokes of like colours.

    Returns:
        float32 [SIZE, SIZE, 3], about [0, 1].
    """
    slope = rng.uniform(-0.15, 0.15, (2, 3)).astype(np.float32) / (SIZE / 2)
    covers = draw_strokes(rng, int(rng.integers(2, 5)))
    tints = rng.uniform(-0.3, 0.3, (len(covers), 3)).astype(np.float32)
    ground = base + X[..., None] * slope[0] + Y[..., None] * slope[1]
    for cover, tint in zip(covers, tints, strict=True):
        ground += cover[..., None] * tint
    return ground


def exposed(rng: np.random.Generator, picture: np.ndarray) -> np.ndarray:
    """Applies brightness, contrast and sensor noise; returns uint8."""
    gain, level, noise = rng.uniform((0.8, -0.06, 0.01), (1.1, 0.08, 0.05))
    grain = rng.standard_normal(picture.shape, np.float32)
    picture = picture * np.float32(gain) + np.float32(level)
    picture += grain * np.float32(noise)
    return (np.clip(picture, 0, 1) * 255 + 0.5).astype(np.uint8)
