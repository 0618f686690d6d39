"""Frozen features stored on disk, so that later runs need not decode samples for them.

A file holds the features of the training or the test samples of one task. Its name is a
hash of everything that decides their bits: the encoder and its inputs, the
preprocessing of the modality, every sample's identity, and the kind of device and the
batch size that computed them. The file says the same about itself, under a checksum,
so a damaged or a renamed entry is noticed and computed again. Nothing protects from
whoever can write to the folder and wants to deceive: share it only with those whom you
trust. It may be deleted at any time.
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
from typing import NamedTuple

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


class Entry(NamedTuple):
    """What a file of features says about itself.

    Attributes:
        producer: Result of the function `producer`.
        modality: Modality of the samples.
        version: Version of its preprocessing, see `Modality.version`.
        samples: Hash of the identities of all samples in their order.
        shape: Number of samples and of features.
    """

    producer: str
    modality: str
    version: str
    samples: str
    shape: tuple[int, int]

    @property
    def name(self) -> str:
        """Returns the name of its file, 64 hex digits."""
        return _CHECKSUM(self._content()).hexdigest()

    def _content(self) -> bytes:
        return json.dumps([*self[:-1], *self.shape]).encode()

    def sealed(self, array: bytes) -> bytes:
        """Returns the content of its file: an `.npy`, this entry, and a checksum."""
        content = array + self._content()
        return content + _CHECKSUM(content).digest()

    def unsealed(self, content: bytes) -> bytes | None:
        """Returns the `.npy` of a file's content, or None if it is damaged."""
        array = content[: -_CHECKSUM().digest_size - len(self._content())]
        return array if self.sealed(array) == content else None


def entry(
    producer: str, modality: str, version: str, rows: Sequence[Record], width: int
) -> Entry:
    """Returns what describes the features of `rows`; their files are looked at.

    Args:
        producer: Result of the function `producer`.
        modality: Modality of the samples.
        version: Version of its preprocessing, see `Modality.version`.
        rows: Samples of one part of one task.
        width: Number of features of a sample.
    """
    digest = _CHECKSUM()
    for row in rows:
        digest.update(json.dumps(row.reference.identity()).encode() + b"\n")
    return Entry(producer, modality, version, digest.hexdigest(), (len(rows), width))


def read(folder: pathlib.Path, wanted: Entry) -> Float[np.ndarray, "n d"] | None:
    """Returns stored features, or None if they are missing or cannot be believed.

    A file that is damaged, or is not what its name says, is logged.
    """
    path = _path(folder, wanted.name)
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        logging.warning("%s: cannot be read (%s); computed again", path, error)
        return None
    features = _parse(wanted, content)
    if features is None:
        logging.warning("%s: damaged or of other samples; computed again", path)
    return features


def _parse(wanted: Entry, content: bytes) -> Float[np.ndarray, "n d"] | None:
    # nothing is parsed unless its checksum is right
    if (array := wanted.unsealed(content)) is None:
        return None
    try:
        features = np.load(io.BytesIO(array), allow_pickle=False)
    except (ValueError, EOFError, OSError, MemoryError):
        return None
    right = features.shape == wanted.shape and features.dtype == np.float32
    return features if right and np.isfinite(features).all() else None


def write(
    folder: pathlib.Path, described: Entry, features: Float[np.ndarray, "n d"]
) -> None:
    """Stores features atomically.

    Several runs may write the same file. A cache that cannot be written is logged and
    does not end a run.
    """
    buffer = io.BytesIO()
    np.save(buffer, np.asarray(features, np.float32), allow_pickle=False)
    content = described.sealed(buffer.getvalue())
    store(_path(folder, described.name), content, "features")


def store(path: pathlib.Path, content: bytes, what: str) -> None:
    """Writes a file atomically, which other runs may write at the same time.

    Args:
        path: Path of the file.
        content: Its content.
        what: What a warning calls it, if it cannot be written.
    """
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
        logging.warning("%s are not stored for later runs: %s", what, error)


def _path(folder: pathlib.Path, name: str) -> pathlib.Path:
    return folder / name[:2] / f"{name}.npy"
