"""Pictures: the shape is the silhouette, the manner is the pattern that fills it."""

import numpy as np

from mmcl_jax.streams.world import canvas
from mmcl_jax.streams.world.concepts import MANNERS, Concept
from mmcl_jax.streams.world.silhouettes import distance


def _stripes(phase: np.ndarray) -> np.ndarray:
    """Soft-edged stripes of period 1."""
    return np.clip(0.5 + 1.4 * np.sin(np.float32(2 * np.pi) * phase), 0, 1)


def _speckle(rng: np.random.Generator) -> np.ndarray:
    coarse = rng.random((16, 16)) < 0.5
    return coarse.repeat(3, axis=0).repeat(3, axis=1).astype(np.float32)


def _dots(x: np.ndarray, y: np.ndarray, period: np.float32) -> np.ndarray:
    grow = np.clip(0.28 + 0.014 * x, 0.1, 0.55) * period
    column = x / period
    row = y / period + 0.5 * (np.floor(column) % 2)
    gap = np.hypot(column % 1 - 0.5, row % 1 - 0.5) * period
    return np.clip(0.5 + grow - gap, 0, 1)


def pattern(
    manner: str, x: np.ndarray, y: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Returns how much of the second colour a pixel has, in [0, 1].

    Args:
        manner: Name of the manner.
        x: Pixels to the right of the figure's centre, in the figure's frame.
        y: Pixels below the figure's centre.
        rng: Random source of period and phase.
    """
    period, phase = rng.uniform((5.0, 0.0), (7.0, 1.0)).astype(np.float32)
    match manner:
        case "rising":
            return _stripes((y - np.abs(x)) / period + phase)
        case "falling":
            return _stripes((y + np.abs(x)) / period + phase)
        case "pulsing":
            return _stripes(np.hypot(x, y) / period + phase)
        case "spinning":
            blades = np.float32(rng.integers(5, 8) / (2 * np.pi))
            return _stripes(np.arctan2(y, x) * blades + phase)
        case "shaking":
            return _speckle(rng)
        case "blinking":
            cells = np.sin(np.float32(np.pi) * x / (0.75 * period) + phase)
            cells = cells * np.sin(np.float32(np.pi) * y / (0.75 * period))
            return np.clip(0.5 + 4 * cells, 0, 1)
        case "swinging":
            wave = 2.6 * np.sin(y * np.float32(2 * np.pi / 13))
            return _stripes((x + wave) / period + phase)
        case "drifting":
            return _stripes(y / period + phase)
        case "growing":
            return _dots(x + period * phase, y, period)
        case "bouncing":
            return np.clip(0.5 + y / 14 + 0.3 * (phase - 0.5), 0, 1)
        case "folding":
            return np.clip(0.5 + x + 6 * (phase - 0.5), 0, 1)
        case _:  # steady, double and fading have one colour
            return np.zeros_like(x)


def render_image(concept: Concept, rng: np.random.Generator) -> np.ndarray:
    """Renders uint8 [48, 48, 3]."""
    manner = MANNERS[concept.manner]
    pose = canvas.draw_pose(rng)
    x, y = canvas.turned(
        canvas.X - np.float32(pose.x), canvas.Y - np.float32(pose.y), pose.angle
    )
    radius = np.float32(pose.radius)
    unit_x, unit_y = x / radius, y / radius
    scale = radius
    if manner == "double":
        unit_x, unit_y = canvas.twins(unit_x, unit_y)
        scale = radius * canvas.COPY_SCALE
    gap = distance(concept.shape, unit_x, unit_y) * scale
    cover = np.clip(0.5 - gap, 0, 1)
    if manner == "fading":
        side = np.float32(rng.choice((-1, 1)))
        cover *= np.clip(0.45 - 0.75 * side * unit_x, 0, 1)
    base = rng.random(3, np.float32)
    first = canvas.draw_colour(rng, base)
    second = canvas.draw_colour(rng, base, first)
    mix = pattern(manner, x, y, rng)[..., None]
    line = np.clip(np.float32(rng.uniform(-0.5, 1.0)) - np.abs(gap + 0.5), 0, 1)
    figure = first + mix * (second - first)
    figure += line[..., None] * (second - figure)
    picture = canvas.draw_ground(rng, base)
    picture += cover[..., None] * (figure - picture)
    return canvas.exposed(rng, picture)
