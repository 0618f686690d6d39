"""Draws docs/world.png: `python docs/tools/world_sheet.py docs/world.png`.

A row for each of some concepts of the procedural world, in every modality;
`--clutter docs/world_clutter.png` draws them with clutter.
"""

import argparse
import pathlib
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw

from mmcl_jax.modalities.filters import log_mel
from mmcl_jax.streams.world.concepts import MANNERS, SHAPES, Concept
from mmcl_jax.streams.world.render import render, render_cluttered

SHOWN = (
    "spinning star",
    "rising heart",
    "blinking key",
    "swinging fish",
    "double drop",
)
_CELL, _GAP, _LINE = 96, 6, 22
_FRAMES = (0, 3, 6)


def concept_named(name: str) -> Concept:
    """Returns a concept by its class name.

    >>> concept_named("spinning star").name
    'spinning star'
    """
    manner, shape = name.split()
    return Concept(SHAPES.index(shape), MANNERS.index(manner))


def _grey(values: np.ndarray) -> np.ndarray:
    low, high = np.percentile(values, (1, 99))
    scaled = np.clip((values - low) / max(high - low, 1e-6), 0, 1)
    return np.repeat((255 * scaled).astype(np.uint8)[..., None], 3, axis=-1)


def cells(concept: Concept, seed: int, render: Callable) -> list[np.ndarray]:
    """Returns the pictures of a concept: image, frames, spectrogram, depth."""
    video = render(concept, "video", seed)
    wave, rate = render(concept, "audio", seed)
    depth = render(concept, "depth", seed)
    near = np.where(depth > 0, 1 / np.maximum(depth, 0.001), 0)
    return [
        render(concept, "image", seed),
        *(video[i] for i in _FRAMES),
        _grey(log_mel(wave, rate, 64).T[::-1]),
        _grey(near),
    ]


def sheet(names: tuple[str, ...], seed: int, render: Callable) -> Image.Image:
    """Returns one row a concept: pictures, and under them its name and a sentence."""
    rows = [(name, concept_named(name)) for name in names]
    columns = len(_FRAMES) + 3
    size = (
        columns * (_CELL + _GAP) + _GAP,
        len(rows) * (_CELL + _LINE + _GAP) + _LINE,
    )
    page = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(page)
    titles = ["image", *["video"] * len(_FRAMES), "audio (log-mel)", "depth"]
    for i, title in enumerate(titles):
        draw.text((_GAP + i * (_CELL + _GAP), 5), title, "black")
    for row, (name, concept) in enumerate(rows):
        top = _LINE + row * (_CELL + _LINE + _GAP)
        for i, cell in enumerate(cells(concept, seed, render)):
            picture = Image.fromarray(cell).resize((_CELL, _CELL), Image.Resampling.BOX)
            page.paste(picture, (_GAP + i * (_CELL + _GAP), top))
        sentence = f'{name}: "{render(concept, "text", seed)}"'
        draw.text((_GAP, top + _CELL + 4), sentence, "black")
    return page


def main() -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=pathlib.Path)
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--clutter", action="store_true")
    arguments = parser.parse_args()
    renderer = render_cluttered if arguments.clutter else render
    sheet(SHOWN, arguments.seed, renderer).save(arguments.output, optimize=True)


if __name__ == "__main__":
    main()
