"""Pools of training samples: what the frozen stem makes of them, and their labels.

A pool is made once and kept in a folder, so that an interrupted training resumes.
"""

import functools
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np
from absl import logging

from mmcl_jax.modalities import MODALITIES
from mmcl_jax.modalities.base import InputSpec
from mmcl_jax.models import visual
from mmcl_jax.models.specs import VisualSpec
from mmcl_jax.pretrain import sounds
from mmcl_jax.streams.world.concepts import Concept
from mmcl_jax.streams.world.render import render
from mmcl_jax.types import PyTree

_CHUNK = 64

Samples = Iterable[tuple[np.ndarray, int]]


class Pool(NamedTuple):
    """Samples of one kind.

    Attributes:
        features: float16 `[n, rows, columns, channels]`, of the stem.
        labels: int32 `[n]`, indices of names.
    """

    features: np.ndarray
    labels: np.ndarray


def kept(
    path: pathlib.Path, spec: VisualSpec, weights: PyTree, samples: Samples
) -> Pool:
    """Returns the pool in a folder, which is made from samples if it is missing.

    Args:
        path: Prefix of its files.
        spec: Shape of the tower.
        weights: Weights of the stem.
        samples: Pixels `[h, w, 3]` as the tower takes them, and their labels; read
            only if the pool is missing.
    """
    rows, labels = (path.with_name(f"{path.name}.{x}.npy") for x in ("x", "y"))
    if not labels.exists():
        features, targets = _computed(spec, weights, samples)
        np.save(rows, features)
        # the last file to be written says that the pool is whole
        np.save(labels, targets)
        logging.info("%s: %d samples", path.name, len(targets))
    return Pool(np.load(rows, mmap_mode="r"), np.load(labels))


def _computed(
    spec: VisualSpec, weights: PyTree, samples: Samples
) -> tuple[np.ndarray, np.ndarray]:
    @functools.partial(jax.jit)
    def stem(weights: PyTree, pixels: jax.Array) -> jax.Array:
        return visual.features(spec, {"stem": weights}, pixels)

    features, labels = [], []
    for pixels, targets in _chunks(samples):
        padded = np.resize(pixels, (_CHUNK, *pixels.shape[1:]))
        made = np.asarray(stem(weights, padded))[: len(pixels)]
        features.append(made.astype(np.float16))
        labels.append(targets)
    return np.concatenate(features), np.concatenate(labels).astype(np.int32)


def _chunks(samples: Samples) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    pixels, labels = [], []
    for picture, label in samples:
        pixels.append(picture)
        labels.append(label)
        if len(pixels) == _CHUNK:
            yield np.stack(pixels), np.array(labels)
            pixels, labels = [], []
    if pixels:
        yield np.stack(pixels), np.array(labels)


def world(
    modality: str, concepts: Sequence[Concept], count: int, seed: int, spec: InputSpec
) -> Samples:
    """Yields `count` samples of each concept of the procedural world.

    A tower reads single frames, so a clip gives one of them.
    """
    for label, concept in enumerate(concepts):
        for i in range(count):
            media, kind = render(concept, modality, seed + i), modality
            if modality == "video":
                media, kind = media[i % len(media)], "image"
            yield MODALITIES[kind].preprocess(media, spec)["pixels"][0], label


def heard(rendered: Iterable[tuple[sounds.Sound, int]], spec: InputSpec) -> Samples:
    """Yields the spectrograms of sounds."""
    for sound, label in rendered:
        media = sound.samples, sound.rate
        yield MODALITIES["audio"].preprocess(media, spec)["pixels"][0], label
