"""Samples that an earlier run has decoded without an error, known by their content.

Every run decodes its files once before it starts. The runs of a sweep share their
files, and methods on frozen features need to know no more of them than that they are as
they were, which a hash says. What was seen of the samples of a part of a task is stored
beside the cached features, see `feature_cache`.
"""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Iterator, Sequence

from absl import logging

from mmcl_jax import __version__
from mmcl_jax.errors import DataError
from mmcl_jax.files import read_json
from mmcl_jax.modalities import BUILT_IN, MODALITIES
from mmcl_jax.modalities.base import InputSpec
from mmcl_jax.streams.base import Record, Stream
from mmcl_jax.streams.loader import Examined
from mmcl_jax.streams.verification import Verified
from mmcl_jax.training import feature_cache

_FOLDER = "verified"


def known(stream: Stream, inputs: InputSpec) -> dict[int, Examined]:
    """Returns what earlier runs have seen of samples of a stream, by id.

    Args:
        stream: Stream whose samples are looked for.
        inputs: Input of the encoder.
    """
    found: dict[int, Examined] = {}
    for path, rows in _files(stream, inputs):
        seen = _read(path, len(rows))
        found |= zip((row.id for row in rows), seen, strict=True) if seen else ()
    return found


def store(stream: Stream, inputs: InputSpec, verified: Verified) -> None:
    """Stores what was seen of the parts of tasks that could be decoded whole."""
    for path, rows in _files(stream, inputs):
        if path.exists() or any(row.id in verified.failures for row in rows):
            continue
        samples = [
            [
                verified.oddities.get(row.id, ()),
                verified.contents.get(row.id, b"").hex(),
            ]
            for row in rows
        ]
        content = json.dumps({"samples": samples}).encode()
        feature_cache.store(path, content, "names of samples that can be decoded")


def _files(
    stream: Stream, inputs: InputSpec
) -> Iterator[tuple[pathlib.Path, Sequence[Record]]]:
    """Yields each part of a task, after the file that says what was seen of it."""
    for task in (*stream.tasks, *stream.control_sets):
        # how a user-defined modality decodes may change without a new version
        for rows in (task.train, task.test) if task.modality in BUILT_IN else ():
            try:
                path = _path(inputs, task.modality, rows)
            except DataError:  # of a file that cannot be read, which decoding reports
                continue
            if rows:
                yield path, rows


def _read(path: pathlib.Path, rows: int) -> list[Examined] | None:
    if not path.exists():
        return None
    try:
        found = [
            Examined(tuple(map(str, oddities)), bytes.fromhex(content) or None)
            for oddities, content in read_json(path)["samples"]
        ]
    except (DataError, KeyError, TypeError, ValueError) as error:
        logging.warning("%s: damaged (%s); samples are decoded again", path, error)
        path.unlink(missing_ok=True)
        return None
    return found if len(found) == rows else None


def _path(inputs: InputSpec, modality: str, rows: Sequence[Record]) -> pathlib.Path:
    """Returns the file whose name says what was decoded, and by what."""
    facts = {
        "version": [__version__, MODALITIES[modality].version(inputs)],
        "inputs": dataclasses.asdict(inputs) | {"tokenizer": None},
        "modality": modality,
        "samples": [row.reference.identity() for row in rows],
    }
    name = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    return feature_cache.default_folder() / _FOLDER / f"{name}.json"
