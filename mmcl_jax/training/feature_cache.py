"""Frozen features stored on disk, so that later runs need not decode samples for them.

A file holds the features of the training or the test samples of one task. Its name is a
hash of everything that decides their bits: the encoder and its inputs, the
preprocessing of the modality, every sample's identity, and the kind of device and the
batch size that computed them. So an entry is never wrong, only unused; the folder may
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

from mmcl_jax.files import expanded
from mmcl_jax.modalities.tokenization import tokenizer_hash
from mmcl_jax.models.pretrained import Encoder
from mmcl_jax.streams.base import Record

FOLDER_VARIABLE = "MMCL_JAX_FEATURES"
_CHECKSUM = hashlib.sha256


def default_folder() -> pathlib.Path:
    """Returns the folder `MMCL_JAX_FEATURES`, else `~/.cache/mmcl_jax/features`."""
    if folder := os.environ.get(FOLDER_VARIABLE):
        return pathlib.Path(expanded(folder))
    return pathlib.Path.home() / ".cache" / "mmcl_jax" / "features"


def producer(encoder: Encoder, mesh: jax.sharding.Mesh, batch_size: int) -> str:
    """Returns a hash of what computes features: weights, their inputs, the machine.

    Args:
        encoder: The frozen encoder.
        mesh: The devices; another kind rounds differently.
        batch_size: Rows over all devices; another batch shape may round differently.
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
        producer: Result of the function `producer`.
        modality: Modality of the samples.
        version: Version of its preprocessing, see `Modality.version`.
        rows: Samples of one part of one task.
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
    """Returns stored features, or None if they are missing or damaged."""
    try:
        content = _path(folder, name).read_bytes()
    except OSError:
        return None
    # the folder may be shared: nothing is parsed unless its checksum is right
    size = _CHECKSUM().digest_size
    array, checksum = content[:-size], content[-size:]
    if _CHECKSUM(array).digest() != checksum:
        return None
    features = np.load(io.BytesIO(array), allow_pickle=False)
    return features if features.shape == shape else None


def write(folder: pathlib.Path, name: str, features: Float[np.ndarray, "n d"]) -> None:
    """Stores features atomically, as `.npy` followed by a checksum.

    Several runs may write the same file. A cache that cannot be written is logged and
    does not end a run.
    """
    buffer = io.BytesIO()
    np.save(buffer, np.asarray(features, np.float32), allow_pickle=False)
    content = buffer.getvalue() + _CHECKSUM(buffer.getvalue()).digest()
    path = _path(folder, name)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # a rename within one folder is atomic: a reader finds a whole file or none
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
        logging.warning("features are not stored for later runs: %s", error)


def _path(folder: pathlib.Path, name: str) -> pathlib.Path:
    return folder / name[:2] / f"{name}.npy"
