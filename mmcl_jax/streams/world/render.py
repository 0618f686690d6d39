"""One entry to all renderers."""

import difflib

import numpy as np

from mmcl_jax.modalities.base import Media
from mmcl_jax.streams.world import clutter
from mmcl_jax.streams.world.clips import render_video
from mmcl_jax.streams.world.concepts import WORLD_MODALITIES, Concept
from mmcl_jax.streams.world.depth_maps import render_depth
from mmcl_jax.streams.world.pictures import render_image
from mmcl_jax.streams.world.sentences import render_contrast, render_text
from mmcl_jax.streams.world.sounds import render_audio

VERSION = "1"
"""Version that changes whenever the output of any renderer changes."""

CLUTTER_VERSION = "1"
"""Version that changes whenever clutter does."""

_RENDERERS = {
    "image": render_image,
    "video": render_video,
    "audio": render_audio,
    "depth": render_depth,
    "text": render_text,
}


def check_modality(name: str) -> None:
    """Raises `ValueError` unless the world can be rendered in this modality."""
    if name not in WORLD_MODALITIES:
        near = difflib.get_close_matches(str(name), WORLD_MODALITIES, 1, cutoff=0.0)
        raise ValueError(
            f"the world has no modality {name!r}: expected one of {WORLD_MODALITIES}; "
            f"nearest: {near[0]!r}"
        )


def render(concept: Concept, modality: str, seed: int) -> Media:
    """Renders one sample of a concept; equal arguments give equal bytes.

    That holds for one kind of processor: another may round a sine differently, which
    now and then moves a pixel by one step.

    Args:
        concept: Concept to render.
        modality: One of `WORLD_MODALITIES`.
        seed: Seed, not negative, of everything but the concept.

    Returns:
        image: uint8 [48, 48, 3]. video: uint8 [8, 48, 48, 3]. audio: a float32
        waveform in [-1, 1] of 1.2 to 2 seconds and its rate, 16000 hertz. depth:
        float32 [48, 48], metres, 0 where the sensor has no reading. text: a string.

    Raises:
        ValueError: The modality is unknown or the seed is negative.
    """
    rng = _random_source(seed, concept, modality)
    return _RENDERERS[modality](concept, rng)


def render_cluttered(concept: Concept, modality: str, seed: int) -> Media:
    """Renders one sample of a concept in the way of which there is another, weaker one.

    What it takes, returns and raises is that of `render`.
    """
    rng = _random_source(seed, concept, modality, 1)
    other = clutter.draw_other(concept, rng)
    share = clutter.SHARES[modality]
    if modality == "text":
        if rng.random() < share:
            return render_contrast(concept, other, rng)
        return render(concept, modality, seed)
    own, second = (render(each, modality, seed) for each in (concept, other))
    return clutter.mixed(own, second, modality, share)


def _random_source(
    seed: int, concept: Concept, modality: str, *purpose: int
) -> np.random.Generator:
    check_modality(modality)
    if seed < 0:
        raise ValueError(f"the seed of a sample must not be negative, got {seed}")
    place = WORLD_MODALITIES.index(modality)
    entropy = [seed, concept.shape, concept.manner, place, *purpose]
    return np.random.default_rng(np.random.SeedSequence(entropy))
