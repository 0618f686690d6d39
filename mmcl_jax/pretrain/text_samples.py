"""The sentences of every kind that the text tower learns, with their targets."""

import pathlib
from typing import NamedTuple

import numpy as np
import tokenizers

from mmcl_jax.modalities.base import InputSpec, TokenizerSpec
from mmcl_jax.models import tokenizer
from mmcl_jax.models.pretrained.efficientnet import TRUNK
from mmcl_jax.models.specs import (
    EncoderSpec,
    TextSpec,
    TowerSpec,
    VisualSpec,
    two_towers,
)
from mmcl_jax.pretrain import sentences, space, teachers
from mmcl_jax.pretrain.sounds import INSTRUMENTS
from mmcl_jax.pretrain.text_tower import Sentences, encode, in_templates
from mmcl_jax.streams.world.concepts import BASE, MANNERS, PROBES, SHAPES
from mmcl_jax.streams.world.render import render

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight")
DIGITS += ("nine",)
# of rendered samples, disjoint from those of streams
TRAIN_SEED, PROBE_SEED = 2_000_000_000, 2_100_000_000
# tokens of a long sentence, of a short one, and of a name in a template
_LONG, _SHORT, _NAME = 40, 20, 16
_PER_NAME = {"nouns": 4, "pictures": 24, "world_names": 24}


class Targets(NamedTuple):
    """Unit vectors of the joint space.

    Attributes:
        pictures: Of the classifier's classes.
        concepts: Of the base concepts of the world.
        probes: Of the concepts that training is watched on.
        shapes: Of its shapes.
        manners: Of its manners.
        instruments: Of the instruments.
        words: Of the spoken words.
    """

    pictures: np.ndarray
    concepts: np.ndarray
    probes: np.ndarray
    shapes: np.ndarray
    manners: np.ndarray
    instruments: np.ndarray
    words: np.ndarray


class Lessons(NamedTuple):
    """What the text tower is trained and evaluated on, and what it fixes.

    Attributes:
        spec: Shape of the encoder.
        inputs: Its inputs.
        kinds: Sentences of each kind.
        probes: Sentences to evaluate on.
        targets: Targets of what the visual tower sees.
        spoken: The spoken words.
    """

    spec: EncoderSpec
    inputs: InputSpec
    kinds: dict[str, Sentences]
    probes: dict[str, Sentences]
    targets: Targets
    spoken: tuple[str, ...]


def make_spec(config) -> EncoderSpec:
    """Returns the shape of the encoder of a config."""

    def tower(of) -> TowerSpec:
        return TowerSpec(
            of.width, of.layers, of.heads, of.mlp_width, "quick_gelu", 1e-5
        )

    sides = (config.image_size, config.image_size)
    visual = VisualSpec(
        tower(config.visual), sides, config.patch_size, config.patch_stride, stem=TRUNK
    )
    end = tokenizer.SPECIAL_TOKENS.index("<end>")
    words = TextSpec(tower(config.text), config.vocabulary, config.context_length, end)
    return two_towers(visual, words, config.embedding)


def prepare(
    config, taught_by: teachers.Teachers, work: pathlib.Path, output: pathlib.Path
) -> Lessons:
    """Draws sentences, asks the teacher, and fits the space and the tokenizer.

    Args:
        config: Result of `configs/pretrain.py`.
        taught_by: The teachers.
        work: Folder in which the teacher's answers are kept.
        output: Folder to which the tokenizer is written.
    """
    folder = pathlib.Path(config.sources.wordnet)
    corpus = sentences.corpus(folder, **config.corpus, seed=config.seed)
    spoken = (*DIGITS, *corpus.nouns[: config.spoken_words])
    world = [c.name for c in (*BASE, *PROBES)] + [*SHAPES, *MANNERS]
    asked = {
        "sentences": corpus.sentences,
        "nouns": corpus.nouns,
        "pictures": taught_by.names,
        "world": world,
        "sounds": (*INSTRUMENTS, *spoken),
    }
    told = {
        name: teachers.embeddings(work / f"told.{name}.npy", taught_by.embed, texts)
        for name, texts in asked.items()
    }
    # names of pictures count four times: they must stay apart
    basis = [told["sentences"][::4], told["nouns"], *[told["pictures"]] * 4]
    joint = space.fit(np.concatenate(basis), config.embedding)
    placed = {name: joint(embedded) for name, embedded in told.items()}
    ends = np.cumsum([len(BASE), len(PROBES), len(SHAPES)])
    concepts, probes, shapes, manners = np.split(placed["world"], ends)
    instruments, words = np.split(placed["sounds"], [len(INSTRUMENTS)])
    targets = Targets(
        placed["pictures"],
        concepts,
        probes,
        shapes,
        manners,
        instruments,
        words,
    )
    return _lessons(config, corpus, taught_by.names, placed, targets, spoken, output)


def _lessons(
    config,
    corpus: sentences.Corpus,
    names: tuple[str, ...],
    placed: dict[str, np.ndarray],
    targets: Targets,
    spoken: tuple[str, ...],
    output: pathlib.Path,
) -> Lessons:
    parts = [*(concept.name for concept in BASE), *SHAPES, *MANNERS]
    named = {"nouns": corpus.nouns, "pictures": names, "world_names": parts}
    drawn = {
        kind: in_templates(of, _PER_NAME[kind], config.seed)
        for kind, of in named.items()
    }
    told = {seed: TRAIN_SEED + seed for seed in range(config.world.text)}
    stories = [render(c, "text", seed) for seed in told.values() for c in BASE]
    fitted = tokenizer.train(
        [*corpus.sentences, *corpus.nouns, *stories]
        + [sentence for texts, _ in drawn.values() for sentence in texts],
        config.vocabulary,
    )
    path = output / "tokenizer.json"
    fitted.save(str(path))
    at = {
        "nouns": placed["nouns"],
        "pictures": targets.pictures,
        "world_names": np.concatenate(
            [targets.concepts, targets.shapes, targets.manners]
        ),
    }
    kinds = {
        kind: Sentences(encode(fitted, texts, _NAME), at[kind], owner)
        for kind, (texts, owner) in drawn.items()
    }
    ids, cut = encode(fitted, corpus.sentences, _LONG), -config.held_out_sentences
    rows = np.arange(len(ids))
    is_short = (ids[:cut, _SHORT:] == 0).all(1)
    for kind, some, length in (
        ("short", rows[:cut][is_short], _SHORT),
        ("long", rows[:cut][~is_short], _LONG),
    ):
        kinds[kind] = Sentences(ids[some, :length], placed["sentences"], some)
    owner = np.tile(np.arange(len(BASE)), len(told))
    kinds["world"] = Sentences(encode(fitted, stories, _LONG), targets.concepts, owner)
    held = Sentences(ids[cut:], placed["sentences"][cut:], rows[:-cut])
    probes = {"held_out": held} | _world_probes(fitted, targets, config.probes)
    settings = config.preprocessing.to_dict()
    inputs = InputSpec(
        image_size=config.image_size,
        context_length=config.context_length,
        tokenizer=TokenizerSpec(str(path)),
        **settings,
    )
    return Lessons(make_spec(config), inputs, kinds, probes, targets, spoken)


def _world_probes(
    fitted: tokenizers.Tokenizer, targets: Targets, count: int
) -> dict[str, Sentences]:
    names = [f"a {concept.name}" for concept in PROBES]
    stories = [
        render(concept, "text", PROBE_SEED + seed)
        for seed in range(count)
        for concept in PROBES
    ]
    rows = np.arange(len(names))
    return {
        "development_names": Sentences(
            encode(fitted, names, _NAME), targets.probes, rows
        ),
        "development_sentences": Sentences(
            encode(fitted, stories, _LONG), targets.probes, np.tile(rows, count)
        ),
    }
