"""The samples that the visual tower learns, with the names that they have."""

import functools
import pathlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from mmcl_jax.modalities import MODALITIES
from mmcl_jax.models.specs import EncoderSpec, VisualSpec
from mmcl_jax.pretrain import pictures, pools, sounds, teachers
from mmcl_jax.pretrain.text_samples import (
    DIGITS,
    PROBE_SEED,
    TRAIN_SEED,
    Lessons,
)
from mmcl_jax.pretrain.visual_tower import PICTURES, Labelled, Taught
from mmcl_jax.streams.world.concepts import BASE, PROBES
from mmcl_jax.types import PyTree

# programs of General MIDI that the sound font FluidR3 plays in a data set that
# encoders are measured on: its timbres of them are left out
HELD_OUT = frozenset(
    (0, 6, 12, 13, 19, 21, 22, 24, 27, 40, 42, 46, 47, 56, 58, 60, 66, 68, 71, 73)
    + (104, 105, 109, 114)
)
WORLD = ("image", "video", "audio", "depth")


class Samples(NamedTuple):
    """What the visual tower is trained and evaluated on.

    Attributes:
        stem: Weights of the frozen stem.
        pictures: Pictures, with the names of ImageNet's classes.
        taught: What the classifier says of them.
        others: Other samples, by pool.
        probes: Samples to evaluate on.
    """

    stem: PyTree
    pictures: Labelled
    taught: Taught
    others: dict[str, Labelled]
    probes: dict[str, Labelled]


def visual_spec(spec: EncoderSpec) -> VisualSpec:
    """Returns the shape of the tower that sees and hears."""
    tower = spec.reader("visual")
    assert isinstance(tower, VisualSpec)
    return tower


def prepare(
    config, taught_by: teachers.Teachers, lessons: Lessons, work: pathlib.Path
) -> Samples:
    """Reads, renders and judges all samples, or what is kept of them.

    Args:
        config: Result of `configs/pretrain.py`.
        taught_by: The teachers.
        lessons: Targets and inputs, see `text_samples.prepare`.
        work: Folder in which all of it is kept.
    """
    spec, inputs = visual_spec(lessons.spec), lessons.inputs
    stem, targets = taught_by.stem, lessons.targets
    keep = functools.partial(pools.kept, spec=spec, weights=stem)

    folder = pathlib.Path(config.sources.pictures)
    found = {
        name: pictures.archives(folder, pattern)
        for name, pattern in (
            ("many", "train-*.zip"),
            ("one_of_each", "samples.zip"),
            ("val", "val.zip"),
        )
    }
    # the few pictures of the many classes are seen in more views
    train = (
        pictures.Archives(found["many"]),
        pictures.Archives(found["one_of_each"], config.views),
    )
    archives = {"train": train, "val": (pictures.Archives(found["val"]),)}
    read = functools.partial(pictures.read, classes=taught_by.classes, seed=config.seed)

    def seen(part: str) -> pools.Samples:
        normalize = MODALITIES["image"].preprocess
        for picture, label in read(archives[part]):
            square = pictures.square(picture, inputs.image_size)
            yield normalize(square, inputs)["pixels"][0], label

    pool = keep(work / "train", samples=seen("train"))
    judged = teachers.judgements(
        work / "train",
        taught_by.classify,
        read(archives["train"]),
        config.classifier_side,
    )
    taught = teachers.taught(*judged, config.foretold_features)
    named = Labelled(pool, targets.pictures)

    heard = {
        "instruments": (_played(config), targets.instruments),
        "speech": (_spoken(config, lessons.spoken), targets.words),
    }
    others = {
        name: Labelled(
            keep(work / name, samples=pools.heard(rendered, inputs)), anchors
        )
        for name, (rendered, anchors) in heard.items()
        if config.visual_batch[name]
    }
    parts = (
        (targets.shapes, np.array([concept.shape for concept in BASE])),
        (targets.manners, np.array([concept.manner for concept in BASE])),
    )
    validation = keep(work / "val", samples=seen("val"))
    known = np.unique(validation.labels)
    among = np.searchsorted(known, validation.labels)
    probes = {
        PICTURES: Labelled(
            pools.Pool(validation.features, among), targets.pictures[known]
        )
    }
    for modality in WORLD:
        name = f"world_{modality}"
        count = config.world[modality]
        base = pools.world(modality, BASE, count, TRAIN_SEED, inputs)
        others[name] = Labelled(
            keep(work / name, samples=base), targets.concepts, parts
        )
        new = pools.world(modality, PROBES, config.probes, PROBE_SEED, inputs)
        probes[name] = Labelled(
            keep(work / f"probe_{modality}", samples=new), targets.probes
        )
    return Samples(stem, named, taught, others, probes)


def _played(config) -> Iterator[tuple[sounds.Sound, int]]:
    """Yields phrases on all instruments, by both players but for held-out timbres."""
    for program in range(len(sounds.INSTRUMENTS)):
        players = {"timidity": config.sounds.timidity}
        if program not in HELD_OUT:
            players["fluidsynth"] = config.sounds.fluidsynth
        for player, count in players.items():
            for sound in sounds.instruments(player, program, count, config.seed):
                yield sound, program


def _spoken(config, words: tuple[str, ...]) -> Iterator[tuple[sounds.Sound, int]]:
    for label, word in enumerate(words):
        count = config.sounds.digit if word in DIGITS else config.sounds.word
        for sound in sounds.speech(word, count, config.seed):
            yield sound, label
