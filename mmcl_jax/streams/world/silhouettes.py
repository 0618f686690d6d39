"""Signed distances to the outlines of the shapes, as tables that are looked up.

Coordinates are in units of a shape's radius, x to the right, y down. A table is made
once a shape; reading it costs the same for all shapes, however complex.
"""

import functools

import numpy as np

from mmcl_jax.streams.world.concepts import SHAPES

_CELLS = 256
_REACH = 1.6

_POLYGONS = {
    "box": ((-0.78, -0.78), (0.78, -0.78), (0.78, 0.78), (-0.78, 0.78)),
    "triangle": ((0.0, -0.98), (0.98, 0.76), (-0.98, 0.76)),
    "cross": (
        (-0.3, -0.95),
        (0.3, -0.95),
        (0.3, -0.3),
        (0.95, -0.3),
        (0.95, 0.3),
        (0.3, 0.3),
        (0.3, 0.95),
        (-0.3, 0.95),
        (-0.3, 0.3),
        (-0.95, 0.3),
        (-0.95, -0.3),
        (-0.3, -0.3),
    ),
    "arrow": (
        (-0.98, -0.28),
        (0.1, -0.28),
        (0.1, -0.82),
        (1.0, 0.0),
        (0.1, 0.82),
        (0.1, 0.28),
        (-0.98, 0.28),
    ),
    "hourglass": (
        (-0.8, -0.95),
        (0.8, -0.95),
        (0.14, 0.0),
        (0.8, 0.95),
        (-0.8, 0.95),
        (-0.14, 0.0),
    ),
    "bolt": (
        (-0.1, -1.05),
        (0.62, -1.05),
        (0.2, -0.3),
        (0.72, -0.3),
        (-0.38, 1.1),
        (-0.08, 0.1),
        (-0.62, 0.1),
    ),
    "crown": (
        (-0.82, 0.75),
        (-1.02, -0.62),
        (-0.46, 0.0),
        (0.0, -0.95),
        (0.46, 0.0),
        (1.02, -0.62),
        (0.82, 0.75),
    ),
}


def _polygon(x: np.ndarray, y: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """Signed distance to a simple polygon: even-odd rule and nearest edge."""
    squared = np.full(x.shape, np.inf)
    inside = np.zeros(x.shape, bool)
    for (ax, ay), (bx, by) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        ex, ey = bx - ax, by - ay
        along = ((x - ax) * ex + (y - ay) * ey) / (ex * ex + ey * ey)
        along = np.clip(along, 0.0, 1.0)
        gap = (x - ax - along * ex) ** 2 + (y - ay - along * ey) ** 2
        squared = np.minimum(squared, gap)
        if ay != by:
            crosses = (ay > y) != (by > y)
            inside ^= crosses & (x < ax + (y - ay) * ex / ey)
    return np.where(inside, -1.0, 1.0) * np.sqrt(squared)


def _curve(name: str) -> np.ndarray:
    turn = np.linspace(0.0, 2 * np.pi, 48, endpoint=False)
    if name == "star":
        turn = np.arange(10) * np.pi / 5
        radius = np.where(np.arange(10) % 2 == 0, 1.08, 0.45)
        return np.stack([radius * np.sin(turn), -radius * np.cos(turn)], axis=1)
    if name == "heart":
        x = np.sin(turn) ** 3
        y = 13 * np.cos(turn) - 5 * np.cos(2 * turn) - 2 * np.cos(3 * turn)
        return np.stack([x, -(y - np.cos(4 * turn)) / 16.0 - 0.12], axis=1)
    if name == "drop":
        x = 0.78 * np.sin(turn) * np.sin(turn / 2) ** 1.6
        return np.stack([x, -np.cos(turn)], axis=1)
    x = 0.62 * np.cos(turn) + 0.3
    return np.stack([x, 0.56 * np.sin(turn)], axis=1)  # the body of the fish


def _signed_distance(name: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    radius = np.hypot(x, y)
    if name == "ball":
        return radius - 0.9
    if name == "ring":
        return np.abs(radius - 0.7) - 0.25
    if name == "crescent":
        return np.maximum(radius - 0.98, 0.72 - np.hypot(x - 0.45, y))
    if name == "fish":
        tail = np.array([(-1.0, -0.55), (-0.05, 0.0), (-1.0, 0.55)])
        return np.minimum(_polygon(x, y, _curve(name)), _polygon(x, y, tail))
    if name == "clover":
        leaves = ((0.0, -0.5), (-0.5, 0.12), (0.5, 0.12))
        discs = [np.hypot(x - cx, y - cy) - 0.45 for cx, cy in leaves]
        stem = np.maximum(np.abs(x) - 0.12, np.abs(y - 0.5) - 0.5)
        return np.minimum.reduce([*discs, stem])
    if name == "key":
        bow = np.abs(np.hypot(x + 0.55, y) - 0.33) - 0.15
        blade = np.maximum(np.abs(x - 0.4) - 0.62, np.abs(y) - 0.14)
        deep = np.abs(y - 0.28) - 0.28
        bits = [np.maximum(np.abs(x - at) - 0.12, deep) for at in (0.46, 0.9)]
        return np.minimum.reduce([bow, blade, *bits])
    if name == "mushroom":
        cap = np.maximum(np.hypot(x, y - 0.05) - 0.98, y - 0.05)
        stem = np.maximum(np.abs(x) - 0.26, np.abs(y - 0.45) - 0.5)
        return np.minimum(cap, stem)
    if name == "snake":
        along = np.linspace(-1.0, 1.0, 48)  # from the tail to the head
        joints = np.stack([0.76 * along, 0.55 * np.sin(np.pi * along)], axis=1)
        girths = 0.2 + 0.07 * along
        discs = zip(joints, girths, strict=True)
        return np.minimum.reduce([np.hypot(x - a, y - b) - r for (a, b), r in discs])
    corners = _POLYGONS.get(name)
    return _polygon(x, y, _curve(name) if corners is None else np.array(corners))


@functools.cache
def _table(shape: int) -> np.ndarray:
    ticks = (np.arange(_CELLS) + 0.5) * (2 * _REACH / _CELLS) - _REACH
    y, x = np.meshgrid(ticks, ticks, indexing="ij")
    table = _signed_distance(SHAPES[shape], x, y).astype(np.float32).reshape(-1)
    table.flags.writeable = False
    return table


def distance(shape: int, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Returns the signed distance to the outline, negative inside.

    Args:
        shape: Index into `SHAPES`.
        x: float32, to the right, in units of the radius.
        y: float32, down, of the same shape as `x`.

    Returns:
        float32 of that shape; beyond 1.6 radii the value at the border of the table.
    """
    scale, middle = np.float32(_CELLS / (2 * _REACH)), np.float32(_CELLS / 2)
    last = np.float32(_CELLS - 1)
    column = np.clip(x * scale + middle, 0, last).astype(np.int32)
    row = np.clip(y * scale + middle, 0, last).astype(np.int32)
    return _table(shape)[row * _CELLS + column]
