"""Depth maps: the shape is a body in front of a wall, the manner is its relief."""

import numpy as np

from mmcl_jax.streams.world import canvas
from mmcl_jax.streams.world.concepts import MANNERS, Concept
from mmcl_jax.streams.world.silhouettes import distance


def _rough(rng: np.random.Generator) -> np.ndarray:
    coarse = rng.random((16, 16), np.float32)
    return coarse.repeat(3, axis=0).repeat(3, axis=1)


def relief(
    manner: str, x: np.ndarray, y: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Returns the height of the body's surface, 0 (far) to 1 (near), as float32.

    Args:
        manner: Name of the manner.
        x: Radii to the right of the body's centre, in the body's frame.
        y: Radii below the body's centre.
        rng: Random source of period, phase and side.
    """
    period, phase = rng.uniform((0.42, 0.0), (0.55, 1.0)).astype(np.float32)
    side = np.float32(rng.choice((-1, 1)))
    turn = np.float32(2 * np.pi)
    match manner:
        case "rising":
            return 0.5 - 0.5 * y
        case "falling":
            return 0.5 + 0.5 * y
        case "pulsing":
            return 0.5 + 0.5 * np.sin(turn * (np.hypot(x, y) / period + phase))
        case "spinning":
            return (side * np.arctan2(y, x) / turn + phase) % 1
        case "shaking":
            return _rough(rng)
        case "blinking":
            cells = np.sin(turn * x / period + phase) * np.sin(turn * y / period)
            return np.clip(0.5 + 3 * cells, 0, 1)
        case "swinging":
            return 0.5 + 0.5 * np.sin(turn * (x / period + phase))
        case "drifting":
            return np.floor(2 + 1.99 * np.clip(side * x, -1, 1)) / 3
        case "fading":
            return np.clip(0.5 + 0.75 * side * x, 0, 1)
        case "growing":
            return np.clip(1 - 0.9 * (x * x + y * y), 0, 1)
        case "bouncing":
            return np.clip(0.05 + 1.1 * (x * x + y * y), 0, 1)
        case "folding":
            return np.clip(1 - 1.2 * np.abs(x), 0, 1)
        case _:  # steady and double are flat
            return np.full_like(x, 0.8)


def render_depth(concept: Concept, rng: np.random.Generator) -> np.ndarray:
    """Renders float32 [48, 48] in metres, to the millimetre; 0 is no reading."""
    manner = MANNERS[concept.manner]
    low, high = (-6.0, -6.0, 11.5, -0.45), (6.0, 6.0, 18.5, 0.45)
    pose = canvas.Pose(*rng.uniform(low, high))
    x, y = canvas.turned(
        canvas.X - np.float32(pose.x), canvas.Y - np.float32(pose.y), pose.angle
    )
    radius = scale = np.float32(pose.radius)
    unit_x, unit_y = x / radius, y / radius
    height = relief(manner, unit_x, unit_y, rng)
    if manner == "double":
        unit_x, unit_y = canvas.twins(unit_x, unit_y)
        scale = radius * canvas.COPY_SCALE
    gap = distance(concept.shape, unit_x, unit_y) * scale

    near = np.float32(rng.uniform(0.5, 6.0))
    thick = np.float32(rng.uniform(0.7, 0.9) + 0.07 * near)
    slant = rng.uniform(-0.015, 0.015, 2).astype(np.float32)
    # The wall begins behind the body, however it slants.
    behind = near + thick + np.float32(rng.uniform(0.1, 0.6) + 24 * np.abs(slant).sum())
    wall = behind + canvas.X * slant[0] + canvas.Y * slant[1]
    strokes = canvas.draw_strokes(rng, int(rng.integers(1, 4)))
    for stroke, share in zip(strokes, rng.uniform(0.4, 1, len(strokes)), strict=True):
        wall = np.where(stroke > 0.5, near + (wall - near) * np.float32(share), wall)
    body = near + thick * (1 - np.clip(height, 0, 1))
    if manner == "fading":
        body = near + np.clip(1 - height, 0, 1) * (wall - near)
    metres = np.where(gap < 0, body, wall)

    # Time-of-flight and structured light err with the square of the distance.
    grain = rng.standard_normal(metres.shape, np.float32)
    metres = metres + grain * (np.float32(0.004) + np.float32(0.0015) * metres**2)
    # A sensor that looks from the side loses pixels along one flank of the body.
    lost = rng.random(metres.shape, np.float32) < rng.uniform(0.0, 0.03)
    flank = (np.abs(gap) < rng.uniform(0.5, 1.2)) & (unit_x * rng.choice((-1, 1)) > 0)
    lost |= flank & (rng.random(metres.shape, np.float32) < 0.7)
    for _ in range(rng.integers(0, 3)):
        hole_x, hole_y, size = rng.uniform((-24, -24, 1), (24, 24, 3))
        lost |= np.hypot(canvas.X - hole_x, canvas.Y - hole_y) < size
    millimetres = np.clip(metres * 1000 + 0.5, 1, 65535)
    whole = np.where(lost, 0, millimetres).astype(np.uint16)
    return whole.astype(np.float32) / 1000
