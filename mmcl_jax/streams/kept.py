"""Test samples as a run keeps them, for the day on which their files are gone."""

import dataclasses
import functools
import pathlib
from collections.abc import Mapping, Sequence

import jax.numpy as jnp
import numpy as np

from mmcl_jax.errors import DataError, check_bytes, reading
from mmcl_jax.files import keep
from mmcl_jax.modalities.base import Inputs, InputSpec, Media, Modality, Reference
from mmcl_jax.streams.base import Record

_EXPECTED = "test samples that a run has kept"
_MAX_BYTES = 8 * 2**30
_FEATURES, _CONTENT, _INPUT = "features", "content", "inputs/"
_PLACE, _PRODUCER = "place", "producer"
_HALVED = " of "


@dataclasses.dataclass(frozen=True)
class KeptReference:
    """A sample of which a run has kept what the encoder takes.

    Attributes:
        path: File with the inputs of a test set.
        index: Index of the sample in it.
        place: Description of the sample before.
        content: Identity of the sample before.
    """

    path: str
    index: int
    place: str
    content: str

    def load(self, modality: Modality, spec: InputSpec) -> Media:
        """Raises `DataError`: only the inputs are left, see `inputs`."""
        del modality, spec
        raise DataError(f"{self.place}: gone; only what the encoder takes was kept")

    def describe(self) -> str:
        """Returns the description of the sample that was."""
        return self.place

    def identity(self) -> str:
        """Returns the identity of the sample that was."""
        return self.content

    def inputs(self) -> Inputs:
        """Returns its inputs, as `Modality.preprocess` gave them."""
        found = {}
        for name, values in _read(self.path).items():
            if name.startswith(_INPUT):
                name, _, halved = name.removeprefix(_INPUT).partition(_HALVED)
                one = values[self.index]
                found[name] = one.view(jnp.bfloat16) if halved else one
        return found


def write(
    path: pathlib.Path,
    records: Sequence[Record],
    features: np.ndarray,
    inputs: Sequence[Inputs] | None,
    producer: str,
) -> None:
    """Writes what is kept of a test set, unless it is there.

    Args:
        path: File to write.
        records: The samples.
        features: Features `[n d]` of the frozen encoder.
        inputs: Inputs of each sample; None: they are not kept.
        producer: What the features depend on besides: encoder and preprocessing.
    """
    if path.exists():
        return
    columns: dict[str, np.ndarray] = {
        _FEATURES: features,
        _CONTENT: np.array([record.reference.identity() for record in records]),
        _PLACE: np.array([record.reference.describe() for record in records]),
        _PRODUCER: np.array(producer),
    }
    for name in inputs[0] if inputs else ():
        values = np.stack([each[name] for each in inputs or ()])
        if values.dtype == jnp.bfloat16:  # which files of NumPy do not know
            name, values = f"{name}{_HALVED}bfloat16", values.view(np.uint16)
        columns[_INPUT + name] = values
    path.parent.mkdir(exist_ok=True)
    temporary = path.with_name(f"{path.name}.tmp")
    with temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, **columns)
        keep(file)
    temporary.replace(path)


def check(path: pathlib.Path, records: Sequence[Record], producer: str) -> None:
    """Raises `DataError` if a file is of other samples, or of another encoder."""
    columns = _read(str(path))
    places = [record.reference.describe() for record in records]
    if columns[_PLACE].tolist() != places or str(columns[_PRODUCER]) != producer:
        raise DataError(
            f"{path}: of other samples, or of another encoder; restore it or delete it"
        )


def features(path: pathlib.Path, samples: int) -> np.ndarray:
    """Returns the features `[n d]` that were kept of a test set.

    Raises:
        DataError: The file is damaged, or of another number of samples.
    """
    found = _read(str(path))[_FEATURES]
    if found.ndim != 2 or len(found) != samples or not np.isfinite(found).all():
        raise DataError(f"{path}: not {_EXPECTED}; restore it or delete it")
    return found


def references(
    path: pathlib.Path, records: Sequence[Record]
) -> tuple[Record, ...] | None:
    """Returns the records with their kept inputs; None: these were not kept.

    Raises:
        DataError: The file is damaged, or of another number of samples.
    """
    columns = _read(str(path))
    if not any(name.startswith(_INPUT) for name in columns):
        return None
    if any(len(v) != len(records) for v in columns.values() if v.ndim):
        raise DataError(f"{path}: not {_EXPECTED}; restore it or delete it")

    def kept(i: int, reference: Reference) -> Reference:
        content = str(columns[_CONTENT][i])
        return KeptReference(str(path), i, reference.describe(), content)

    return tuple(
        record._replace(reference=kept(i, record.reference))
        for i, record in enumerate(records)
    )


@functools.lru_cache(maxsize=4)
def _read(path: str) -> Mapping[str, np.ndarray]:
    with reading(path, _EXPECTED):
        check_bytes(path, _MAX_BYTES)
        # zip archives have a checksum of each array, which is compared
        with np.load(path, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
