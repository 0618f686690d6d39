"""What teachers say, computed once and kept: a classifier and a sentence encoder."""

import pathlib
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from jaxtyping import Array, Float

from mmcl_jax.errors import ConfigError
from mmcl_jax.modalities.base import InputSpec
from mmcl_jax.modalities.image import normalize
from mmcl_jax.modalities.text import TEXT
from mmcl_jax.models import convolutional, pretrained
from mmcl_jax.models import encoder as encoders
from mmcl_jax.models.pretrained.efficientnet import TRUNK
from mmcl_jax.models.specs import ConseSpec, EncoderSpec
from mmcl_jax.models.tower import linear
from mmcl_jax.pretrain import pictures
from mmcl_jax.pretrain.visual_tower import Taught
from mmcl_jax.training import class_slots
from mmcl_jax.types import PyTree

Classify = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
Embed = Callable[[Sequence[str]], np.ndarray]

_CHUNK = 64


class Teachers(NamedTuple):
    """The teachers.

    Attributes:
        stem: Weights of the classifier's first stages, see `efficientnet.TRUNK`.
        classes: The classifier's classes.
        classify: From uint8 pictures `[n side side 3]` to features and logits.
        embed: From sentences to unit embeddings `[n t]`.
    """

    stem: PyTree
    classes: pictures.ClassTable
    classify: Classify
    embed: Embed

    @property
    def names(self) -> tuple[str, ...]:
        """Returns the names of the classifier's classes."""
        return self.classes.names


def load(config) -> Teachers:
    """Reads the teachers.

    Args:
        config: Result of `configs/pretrain.py`.

    Raises:
        ConfigError: No pictures are named, or the teacher is no classifier.
        DataError: Weights or the table of classes are missing or damaged.
    """
    sources = config.sources
    if not sources.pictures:
        raise ConfigError(
            "config.sources.pictures: name the folder of the pictures, see "
            "docs/encoders.md"
        )
    encoder = pretrained.load(sources.teacher)
    tower = encoder.spec.reader(encoder.spec.tower_of("image"))
    if not isinstance(tower, ConseSpec):
        raise ConfigError(
            f"config.sources.teacher: {sources.teacher!r} is no classifier beside an "
            "encoder of sentences; give 'lite0+minilm'"
        )
    frozen = jax.tree.map(jnp.asarray, encoder.frozen)
    stem = frozen["visual"]["stem"]
    blocks = len(TRUNK.blocks())
    table = pathlib.Path(sources.pictures) / "samples.csv"
    return Teachers(
        {"first": stem["first"], "residuals": stem["residuals"][:blocks]},
        pictures.read_classes(table),
        _classifier(tower, frozen["visual"], encoder.inputs),
        _sentence_encoder(encoder.spec, frozen, encoder.inputs, tower.words),
    )


def _classifier(tower: ConseSpec, weights: PyTree, inputs: InputSpec) -> Classify:
    @jax.jit
    def compiled(weights: PyTree, pixels: Array) -> tuple[Array, Array]:
        features = convolutional.stem(tower.stem, weights["stem"], pixels)
        features = features.mean((1, 2))
        return features, linear(features, weights["head"]["classes"])

    def classify(squares: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        padded = np.resize(squares, (_CHUNK, *squares.shape[1:]))
        found = compiled(weights, jnp.asarray(normalize(padded, inputs)))
        features, logits = (np.asarray(x)[: len(squares)] for x in found)
        return features, logits

    return classify


def _sentence_encoder(
    spec: EncoderSpec, frozen: PyTree, inputs: InputSpec, width: int
) -> Embed:
    @jax.jit
    def compiled(frozen: PyTree, tokens: Array) -> Array:
        return encoders.embed(spec, frozen, "text", {"tokens": tokens})

    def embed(sentences: Sequence[str]) -> np.ndarray:
        tokens = np.stack([TEXT.preprocess(s, inputs)["tokens"] for s in sentences])
        embedded = np.zeros((len(tokens), width))
        # sentences of about one length go together, without the padding behind them
        order = np.argsort([len(sentence) for sentence in sentences])
        for i in range(0, len(order), _CHUNK):
            rows = order[i : i + _CHUNK]
            read = class_slots.cut(tokens[rows], spec.text, inputs)
            # zeros pad the vectors to the width of the teacher's joint space
            embedded[rows] = compiled(frozen, read)[:, :width]
        return embedded.astype(np.float32)

    return embed


def embeddings(
    path: pathlib.Path, embed: Embed, sentences: Sequence[str]
) -> Float[np.ndarray, "n t"]:
    """Returns unit embeddings of sentences, from a file if it exists.

    Args:
        path: The file, `.npy`.
        embed: The sentence encoder.
        sentences: The sentences, always the same for one file.
    """
    if not path.exists():
        np.save(path, embed(sentences))
        logging.info("%s: %d sentences", path.name, len(sentences))
    return np.load(path)


def judgements(
    path: pathlib.Path,
    classify: Classify,
    samples: Iterable[tuple[np.ndarray, int]],
    side: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Returns a classifier's features `[n f]` and logits `[n classes]`, float16.

    Args:
        path: Prefix of the files in which they are kept.
        classify: Function of uint8 pictures `[n side side 3]`.
        samples: Pictures and labels, as `pictures.read` yields them.
        side: Side that pictures are scaled to.
    """
    files = [path.with_name(f"{path.name}.{x}.npy") for x in ("features", "logits")]
    if not files[1].exists():
        parts, waiting = [], []
        for picture, _ in samples:
            waiting.append(pictures.square(picture, side))
            if len(waiting) == _CHUNK:
                parts.append(classify(np.stack(waiting)))
                waiting = []
        if waiting:
            parts.append(classify(np.stack(waiting)))
        for file, columns in zip(files, zip(*parts, strict=True), strict=True):
            np.save(file, np.concatenate(columns).astype(np.float16))
        logging.info("%s: judged", path.name)
    features, logits = (np.load(file) for file in files)
    return features, logits


def taught(features: np.ndarray, logits: np.ndarray, components: int) -> Taught:
    """Returns logits, and the principal components of features.

    Each component is divided by the fourth root of its variance, half-way to equal
    variances: the many small ones tell classes apart, too.
    """
    centred = features.astype(np.float32) - features.astype(np.float32).mean(0)
    some = centred[::4]
    variance, vectors = np.linalg.eigh(some.T @ some / len(some))
    variance, vectors = variance[::-1][:components], vectors[:, ::-1][:, :components]
    projected = centred @ (vectors / variance**0.25)
    return Taught(logits, projected.astype(np.float16))
