"""Frozen features kept on disk, so that a second run does not decode for them again.

A file holds the features of the training or the test samples of one task. Its name is a
hash of everything that decides their bits: the encoder and what it is fed, how the
modality is preprocessed, every sample's identity, and the kind of device and the rows
of a batch that computed them. So an entry is never wrong, only unused; the folder may
be deleted at any time.
"""

import contextlib
import dataclasses
import hashlib
import io
import json
import os
import pathlib
import tempfile
from collections.abc import Sequence

import jax
import numpy as np
from absl import logging
from jaxtyping import Float

from mmcl_jax.modalities.tokenization import tokenizer_hash
from mmcl_jax.models.pretrained import Encoder
from mmcl_jax.streams.base import Record

FOLDER_VARIABLE = "MMCL_JAX_FEATURES"
_CHECKSUM = hashlib.sha256


def default_folder() -> pathlib.Path:
    """Returns what `MMCL_JAX_FEATURES` says, else `~/.cache/mmcl_jax/features`."""
    if folder := os.environ.get(FOLDER_VARIABLE):
        return pathlib.Path(folder)
    return pathlib.Path.home() / ".cache" / "mmcl_jax" / "features"


def producer(encoder: Encoder, mesh: jax.sharding.Mesh, batch_size: int) -> str:
    """Returns a hash of what computes features: weights, their input, the machine.

    Args:
        encoder: the frozen encoder.
        mesh: the devices; another kind of them rounds differently.
        batch_size: rows over all devices; so may another shape of a batch.
    """
    inputs = dataclasses.asdict(encoder.inputs)
    inputs["tokenizer"] = tokenizer_hash(encoder.inputs.tokenizer)
    device = mesh.devices.flat[0]
    facts = {
        "encoder": encoder.fingerprint,
        "spec": dataclasses.asdict(encoder.spec),
        "inputs": inputs,
        "dtype": sorted({str(x.dtype) for x in jax.tree.leaves(encoder.frozen)}),
        "device": [device.platform, device.device_kind, *mesh.devices.shape],
        "jax": jax.__version__,
        "batch_size": batch_size,
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def key(producer: str, modality: str, version: str, rows: Sequence[Record]) -> str:
    """Returns the name of the features of `rows` in their order, 64 hex digits.

    Args:
        producer: what the function of this name gives.
        modality: of the samples.
        version: of its preprocessing, see `Modality.version`.
        rows: samples of one part of one task.
    """
    digest = hashlib.sha256()
    for value in (
        producer,
        modality,
        version,
        *(row.reference.identity() for row in rows),
    ):
        digest.update(json.dumps(value).encode() + b"\n")
    return digest.hexdigest()


def read(
    folder: pathlib.Path, name: str, shape: tuple[int, int]
) -> Float[np.ndarray, "n d"] | None:
    """Returns stored features, or None where they are missing or damaged."""
    try:
        content = _path(folder, name).read_bytes()
    except OSError:
        return None
    size = _CHECKSUM().digest_size
    array, checksum = content[:-size], content[-size:]
    if _CHECKSUM(array).digest() != checksum:
        return None
    features = np.load(io.BytesIO(array), allow_pickle=False)
    return features if features.shape == shape else None


def write(folder: pathlib.Path, name: str, features: Float[np.ndarray, "n d"]) -> None:
    """Stores features as `.npy` with a checksum behind it, at once.

    Runs may write the same file together. A cache that cannot be written is no reason
    to end a run.
    """
    buffer = io.BytesIO()
    np.save(buffer, np.asarray(features, np.float32), allow_pickle=False)
    content = buffer.getvalue() + _CHECKSUM(buffer.getvalue()).digest()
    path = _path(folder, name)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
            try:
                file.write(content)
                file.flush()
                os.replace(file.name, path)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.remove(file.name)
                raise
    except OSError as error:
        logging.warning("features are not kept for later runs: %s", error)


def _path(folder: pathlib.Path, name: str) -> pathlib.Path:
    return folder / name[:2] / f"{name}.npy"
