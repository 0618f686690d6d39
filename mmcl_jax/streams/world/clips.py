"""Clips: the shape is the silhouette, the manner is how it moves.

The encoder reads frames one by one, so each frame shows motion by itself: a fading
trail of where the figure was lies beneath it, and the outlines of the trail above it.
"""

from typing import NamedTuple

import numpy as np

from mmcl_jax.streams.world import canvas
from mmcl_jax.streams.world.concepts import MANNERS, Concept
from mmcl_jax.streams.world.silhouettes import distance

FRAMES = 8
_TRAIL = 4

_TURN = 2 * np.pi


class Motion(NamedTuple):
    """A figure at each moment; arrays [FRAMES, _TRAIL], the newest moment last.

    Attributes:
        x: Pixels to the right of the middle of the picture.
        y: Pixels below it.
        scale: Radius as a share of the figure's radius.
        angle: Radians, clockwise.
        opacity: Opacity of the middle of the figure.
        slope: Loss of opacity per radius to the right.
        shut: Width of the tinted half as a share of its own; None where it is open.
    """

    x: np.ndarray
    y: np.ndarray
    scale: np.ndarray
    angle: np.ndarray
    opacity: np.ndarray
    slope: float = 0.0
    shut: np.ndarray | None = None


# Frames between the moments of a trail; the other manners leave none.
_STRIDES = {
    "rising": 0.9,
    "falling": 0.9,
    "pulsing": 0.9,
    "spinning": 0.7,
    "shaking": 1.0,
    "swinging": 0.8,
    "drifting": 0.9,
    "growing": 1.0,
    "bouncing": 0.7,
    "folding": 0.8,
}


def _moments(stride: float) -> np.ndarray:
    """Times in clips, 0 to 1; a trail may start before the clip does."""
    back = np.arange(_TRAIL - 1, -1, -1) * stride
    return (np.arange(FRAMES)[:, None] - back) / (FRAMES - 1)


def draw_motion(manner: str, rng: np.random.Generator) -> Motion:
    """Draws pace, phase and direction of a manner of moving."""
    time = _moments(_STRIDES.get(manner, 0.0))
    side = rng.choice((-1.0, 1.0))
    pace, phase = rng.uniform((0.85, 0.0), (1.15, 1.0))
    zero, one = np.zeros_like(time), np.ones_like(time)
    still = Motion(zero, zero, one, zero, one)
    path = 22.0 * pace * (time - 0.5)
    match manner:
        case "rising":
            return still._replace(y=-path)
        case "falling":
            return still._replace(y=path)
        case "pulsing":
            wave = np.sin(_TURN * (2.1 * pace * time + phase))
            return still._replace(scale=0.95 + 0.3 * wave)
        case "spinning":
            return still._replace(angle=side * _TURN * (1.3 * pace * time + phase))
        case "shaking":
            jitter = rng.uniform(-4.5, 4.5, (3, *time.shape))
            return still._replace(x=jitter[0], y=jitter[1], angle=jitter[2] * 0.06)
        case "swinging":
            swing = 0.75 * np.sin(_TURN * (1.2 * pace * time + phase))
            arm = 18.0
            return still._replace(
                x=-arm * np.sin(swing), y=arm * np.cos(swing) - 14.0, angle=swing
            )
        case "drifting":
            return still._replace(x=side * path)
        case "fading":
            return still._replace(opacity=0.95 - 0.5 * pace * time, slope=0.7 * side)
        case "growing":
            return still._replace(scale=np.clip(0.85 + 0.85 * (time - 0.5), 0.1, 2))
        case "bouncing":
            hop = np.abs(np.sin(np.pi * (2.0 * pace * time + phase)))
            return still._replace(x=0.7 * side * path, y=9.0 - 18.0 * hop)
        case "folding":
            wave = np.cos(_TURN * (1.2 * pace * time + phase))
            return still._replace(shut=0.55 + 0.45 * wave)
        case _:  # steady and double rest; blinking changes how the figure is drawn
            return still


def _column(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float32)[:, None, None]


def _figure(
    concept: Concept, pose: canvas.Pose, motion: Motion, moment: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draws the figure as it was at a moment of every frame's trail.

    Returns:
        Cover of the figure and of its tinted half, in [0, 1], and the distance to the
        outline in pixels; float32 [FRAMES, SIZE, SIZE] each.
    """
    x, y = canvas.turned(
        canvas.X - _column(pose.x + motion.x[:, moment]),
        canvas.Y - _column(pose.y + motion.y[:, moment]),
        _column(pose.angle + motion.angle[:, moment]),
    )
    scale = _column(pose.radius * motion.scale[:, moment])
    unit_x, unit_y = x / scale, y / scale
    if motion.shut is not None:
        unit_x = np.where(x > 0, unit_x / _column(motion.shut[:, moment]), unit_x)
    if MANNERS[concept.manner] == "double":
        unit_x, unit_y = canvas.twins(unit_x, unit_y)
        scale = scale * canvas.COPY_SCALE
    gap = distance(concept.shape, unit_x, unit_y) * scale
    opacity = _column(motion.opacity[:, moment]) - np.float32(motion.slope) * unit_x
    cover = np.clip(0.5 - gap, 0, 1) * np.clip(opacity, 0, 1)
    # Without a tinted half nobody could see a ball spin.
    tinted = cover * np.clip(0.5 + x, 0, 1)
    return cover, tinted, gap


def _flashes(gap: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Returns whether a frame is lit, and a halo when it is, else a thin outline."""
    period = rng.integers(2, 5)
    lit = (np.arange(FRAMES) + rng.integers(period)) % period < period / 2
    lit = _column(lit)
    halo = np.where(gap > 0, 0.9 * np.exp(gap * np.float32(-0.3)), 0)
    outline = np.clip(1 - np.abs(gap), 0, 1)
    return lit, np.where(lit > 0, halo, outline)


def render_video(concept: Concept, rng: np.random.Generator) -> np.ndarray:
    """Renders uint8 [8, 48, 48, 3]."""
    manner = MANNERS[concept.manner]
    x, y, radius, angle = rng.uniform((-3, -3, 11.5, -0.3), (3, 3, 14.5, 0.3))
    pose = canvas.Pose(x, y, radius, angle)
    motion = draw_motion(manner, rng)
    base = rng.random(3, np.float32)
    first = canvas.draw_colour(rng, base)
    second = canvas.draw_colour(rng, base, first)

    cover, tinted, lines = np.zeros((3, FRAMES, canvas.SIZE, canvas.SIZE), np.float32)
    oldest = 0 if manner in _STRIDES else _TRAIL - 1
    figures = [_figure(concept, pose, motion, i) for i in range(oldest, _TRAIL)]
    ages = reversed(range(len(figures)))
    for age, (fill, half, gap) in zip(ages, figures, strict=True):
        weight = np.float32(0.5**age)
        clear = 1 - weight * fill
        cover = cover * clear + weight * fill
        tinted = tinted * clear + weight * half
        if age:
            edge = np.clip(1 - np.abs(gap), 0, 1) * np.float32(0.85 - 0.2 * age)
            lines = np.maximum(lines, edge)
    if manner == "blinking":
        lit, lines = _flashes(figures[-1][2], rng)
        cover, tinted = cover * lit, tinted * lit

    tinted *= np.float32(rng.uniform(0.3, 0.6))
    clip = canvas.draw_ground(rng, base) * (1 - cover)[..., None]
    clip += (cover - tinted)[..., None] * first + tinted[..., None] * second
    clip += lines[..., None] * (second - clip)
    return canvas.exposed(rng, clip)
