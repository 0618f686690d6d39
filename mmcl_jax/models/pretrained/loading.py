"""Loads an encoder by its name: its weights, and everything needed to use it."""

import dataclasses
import hashlib
import os
import pathlib
from typing import Any, NamedTuple

import numpy as np

from mmcl_jax.errors import DataError, reading
from mmcl_jax.files import read_json
from mmcl_jax.modalities.base import InputSpec
from mmcl_jax.modalities.tokenization import tokenizer_hash
from mmcl_jax.models.pretrained import (
    big_vision,
    hub,
    huggingface,
    image_bind,
    inputs,
    language_bind,
    lite0_minilm,
    open_clip,
    packages,
    random_weights,
    sentence_bert,
    summary,
)
from mmcl_jax.models.pretrained import tensors as tensor_files
from mmcl_jax.models.pretrained import weights_by_layout as layouts
from mmcl_jax.models.pretrained.family import Checkpoint, Family
from mmcl_jax.models.pretrained.weight_layout import Place
from mmcl_jax.models.specs import EncoderSpec, ReaderSpec, TextSpec
from mmcl_jax.types import PyTree

_CHUNK = 2**22

# the first that recognizes a file reads it: the last takes whatever is left
FAMILIES: tuple[Family, ...] = (
    big_vision.FAMILY,
    image_bind.FAMILY,
    lite0_minilm.FAMILY,
    open_clip.FAMILY,
    language_bind.FAMILY,
    sentence_bert.FAMILY,
    huggingface.FAMILY,
)
# encoders in installed packages, and the package by whose weights each is recognized
_INSTALLED = {"minilm": packages.MINILM, "lite0+minilm": packages.LITE0}


class Encoder(NamedTuple):
    """A frozen encoder and everything needed to use it.

    Attributes:
        spec: Shape of its towers.
        inputs: Input that it expects.
        frozen: Weights, float32.
        fingerprint: SHA-256 of its files, one after the other.
        summary: Lines on its origin and contents.
    """

    spec: EncoderSpec
    inputs: InputSpec
    frozen: PyTree
    fingerprint: str
    summary: tuple[str, ...]


def on_host(path: str, leaf: np.ndarray) -> np.ndarray:
    """Leaves a weight in host memory."""
    del path
    return leaf


def load(name: str | pathlib.Path, place: Place = on_host) -> Encoder:
    """Reads an encoder; every tensor is used and every weight is filled.

    Args:
        name: A folder, a file of weights, or a repository of a hub, see `hub.resolve`;
            or several of them separated by `+`, whose visual towers are joined and
            whose text towers must be equal; or `random:SIZE`, see `sizes.SIZES`; or
            `minilm` or `lite0+minilm`, of installed packages, see `packages`.
        place: Function `(path, leaf) -> array` that moves a leaf as soon as it is made.

    Raises:
        DataError: A file is missing or has unexpected contents; the message names the
            file and the field or the tensors.
    """
    if str(name).startswith(random_weights.PREFIX):
        spec, fed, frozen, fingerprint = random_weights.load(str(name), place)
        lines = (f"{name}: random weights", *summary.towers(spec, frozen), fingerprint)
        return Encoder(spec, fed, frozen, fingerprint, lines)
    parts, sources = _find(name)
    spec = _joined([part.spec for part in parts])
    leaves: dict[str, Any] = {}
    # The shared text tower is read from the first checkpoint alone.
    for part in parts:
        _check_text(part, parts[0])
        with reading(str(part.weights), "the weights of an encoder"):
            leaves |= layouts.read(
                part.spec,
                part.layout,
                part.tensors,
                str(part.weights),
                place,
                part.unused,
                without=leaves.keys(),
            )
    first = parts[0]
    inputs.check_tokenizer(first.inputs.tokenizer, spec.text)
    digest = hashlib.sha256()
    for part in parts:
        for file in part.files:
            _hash(file, digest)
        if not part.inputs.tokenizer.path.endswith("tokenizer.json"):
            # It may consist of several files.
            digest.update(tokenizer_hash(part.inputs.tokenizer).encode())
    frozen = layouts.tree(spec, leaves)
    fingerprint = digest.hexdigest()
    lines = []
    for part, source in zip(parts, sources, strict=True):
        lines.append(f"{part.family}: {source} ({part.weights.name})")
        lines += part.notes
    lines += summary.towers(spec, frozen)
    lines += summary.preprocessing(first.inputs, spec)
    lines.append(f"fingerprint {fingerprint}")
    return Encoder(spec, _inputs(parts), frozen, fingerprint, tuple(lines))


def read_inputs(name: str | pathlib.Path) -> InputSpec:
    """Returns the input that an encoder expects; reads no weights.

    Raises:
        DataError: As in `load`, except for the weights.
    """
    if str(name).startswith(random_weights.PREFIX):
        return random_weights.describe(str(name))[1]
    return _inputs(_find(name)[0])


def is_here(name: str) -> bool:
    """Returns whether an encoder is on this machine, so that nothing is downloaded."""
    return all(
        os.path.exists(part)
        or part in _INSTALLED
        or part.startswith(random_weights.PREFIX)
        for part in _parts(name)
    )


def _parts(name: str) -> list[str]:
    """Returns the names of the encoders that a name joins."""
    if os.path.exists(name) or name in _INSTALLED:
        return [name]
    return [part.strip() for part in name.split("+")]


def _find(name: str | pathlib.Path) -> tuple[list[Checkpoint], list[str]]:
    """Returns the checkpoints of a name and the source of each."""
    names = _parts(str(name))
    if not all(names):
        raise DataError(f"{name!r}: no encoder on one side of a '+'")
    parts, sources = [], []
    for one in names:
        if os.path.isfile(one):
            parts.append(_open(pathlib.Path(one)))
            sources.append(one)
        elif one in _INSTALLED and not os.path.exists(one):
            parts.append(_open(packages.weights_of(_INSTALLED[one])))
            sources.append(one)
        else:
            located = hub.resolve(one)
            parts.append(_open(hub.find_weights(located.folder)))
            sources.append(f"{located.source} {located.revision or ''}".strip())
    _check_readers(parts)
    return parts, sources


def _check_readers(parts: list[Checkpoint]) -> None:
    """Raises `DataError` if two checkpoints read the same modality."""
    owner: dict[str, pathlib.Path] = {}
    for part in parts:
        for modality, _ in part.spec.readers:
            if modality != "text" and modality in owner:
                raise DataError(
                    f"{part.weights}: reads {modality}, as {owner[modality]} does; "
                    "leave one of them out"
                )
            owner[modality] = part.weights


def _open(weights: pathlib.Path) -> Checkpoint:
    """Returns the checkpoint that the first family to recognize a file reads."""
    tensors = tensor_files.read(weights)
    family = next(each for each in FAMILIES if each.recognizes(weights, tensors))
    return family.open(weights, tensors)


def _joined(specs: list[EncoderSpec]) -> EncoderSpec:
    """Returns the encoder with all towers; of equal names the first is taken."""
    towers: dict[str, ReaderSpec] = {}
    readers: dict[str, str] = {}
    for spec in specs:
        towers = dict(spec.towers) | towers
        readers = dict(spec.readers) | readers
    return EncoderSpec(
        tuple(towers.items()), tuple(readers.items()), specs[0].embedding
    )


def _check_text(part: Checkpoint, first: Checkpoint) -> None:
    """Raises `DataError` if two checkpoints do not share a text tower."""
    if part is first:
        return
    same = _rule(part.spec.text) == _rule(first.spec.text)
    for name in ("text_projection.weight", "text_model.final_layer_norm.weight"):
        both = [p.tensors[name] for p in (part, first) if name in p.tensors]
        same = same and len(both) == 2 and _alike(both[0], both[1])
    if not same:
        raise DataError(
            f"{part.weights}: its text tower is not that of {first.weights}; only "
            "encoders that share one can be joined"
        )


def _rule(text: TextSpec) -> TextSpec:
    """Returns the tower with the id of its end token cleared if pooling ignores it."""
    return dataclasses.replace(text, end_token=0) if text.pool == "argmax" else text


def _alike(one: np.ndarray, other: np.ndarray) -> bool:
    """Returns whether tensors are equal in float16, the least precision of files."""
    return np.array_equal(one.astype(np.float16), other.astype(np.float16))


def _inputs(parts: list[Checkpoint]) -> InputSpec:
    """Returns the input of the joined encoder: for each modality, that of its part."""
    fed = parts[0].inputs
    for part in parts[1:]:
        fed = language_bind.joined_inputs(fed, part.inputs, part.spec)
    return fed


def _hash(path: pathlib.Path, digest: "hashlib._Hash") -> None:
    files = [path]
    if path.name.endswith(".index.json"):
        index = read_json(path, "an index of weights")
        files += sorted({path.parent / name for name in index["weight_map"].values()})
    for file in files:
        with file.open("rb") as stream:
            while chunk := stream.read(_CHUNK):
                digest.update(chunk)
