"""What `mmcl_jax.export` has written, ready to label ordinary files.

An export contains a copy of this file and of those that it imports. They need JAX,
NumPy, safetensors, and the libraries that decode files (its `requirements.txt`), but
neither the rest of the package nor the run.
"""

import dataclasses
import functools
import hashlib
import json
import os
import pathlib
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import safetensors

from mmcl_jax.errors import ConfigError, DataError, check_bytes, reading
from mmcl_jax.modalities import MODALITIES
from mmcl_jax.modalities.base import InputSpec, Reference, Storage, TokenizerSpec
from mmcl_jax.serving import answers
from mmcl_jax.serving import reading as samples_of
from mmcl_jax.serving.answers import Labelled
from mmcl_jax.serving.reading import Group, Read
from mmcl_jax.serving.sample_files import Sample

DESCRIPTION, TOKENIZER = "model.json", "tokenizer"
FORMAT = 1
# samples whose inputs are in memory at once
_ROWS = 16
_THREADS = 4
_MAX_BYTES = 64 * 2**20  # of model.json
_EXPECTED = "an export, as mmcl_jax.export writes it"
# What a program may call besides itself: marks, and solvers of JAX's own. Anything
# else, such as a Python function, would run whatever the program's author likes.
_CALL = re.compile(r"custom_call @([\w.]+)|custom_call")
_OWN = re.compile(
    r"Sharding|shape_assertion|annotate_device_placement|lapack_\w+_ffi|"
    r"cu(solver|blas)_\w+_ffi|cu_lu_pivots_to_permutation|cu_threefry2x32_ffi|"
    r"stablehlo\.dynamic_\w+|ApproxTopK|Eigh|Qr|LuDecomposition|"
    r"ProductOfElementaryHouseholderReflectors"
)


@dataclasses.dataclass(frozen=True)
class Exported:
    """An export that was read.

    Attributes:
        described: Contents of `model.json`.
        notes: Remarks for the user.
    """

    described: dict[str, Any]
    notes: tuple[str, ...]
    _spec: InputSpec
    _weights: dict[str, jax.Array]
    _programs: dict[str, Callable[..., dict[str, jax.Array]]]

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes learnt, each once."""
        met = np.unique(self._canonical[self._learnt])
        return tuple(self._names[i] for i in met.tolist())

    @property
    def modalities(self) -> tuple[str, ...]:
        """Modalities that there is a program for."""
        return tuple(self._programs)

    def predict(
        self,
        samples: Iterable[Sample],
        modality: str | None = None,
        top: int = 5,
        reject: float | None = None,
    ) -> list[Labelled]:
        """Labels samples, as `Classifier.predict` of the run does.

        Args:
            samples: Paths, sentences as `TextReference`, or samples in memory, of the
                kinds that `sample_files.write` takes.
            modality: Modality of all samples, of which only classes can win; None: the
                modality of each file is recognized by its content, and the model
                predicts it.
            top: Number of labels of a sample.
            reject: Share of samples of learnt classes that may be called unknown by
                mistake; None: nothing is rejected.

        Raises:
            ConfigError: There is no program for the modality, or nothing can be
                rejected.
            DataError: A sample cannot be read; the message names it.
        """
        said = self.predict_each(samples, modality, top, reject)
        return samples_of.all_of(said)

    def predict_each(
        self,
        samples: Iterable[Sample],
        modality: str | None = None,
        top: int = 5,
        reject: float | None = None,
    ) -> samples_of.Said:
        """Yields the source of each sample and its prediction, in order.

        As `predict`, but a sample that cannot be read yields its error and does not
        stop the others.
        """
        self._check(modality, reject)
        yield from samples_of.labelled(
            samples,
            _ROWS,
            lambda reference: self._decode(reference, modality),
            _THREADS,
            lambda group, sources: self._label(group, sources, modality, top, reject),
        )

    def _check(self, modality: str | None, reject: float | None) -> None:
        if modality is not None and (unknown := self._unknown(modality)):
            raise ConfigError(f"modality: {unknown}")
        if reject is None:
            return
        answers.check_reject(reject)
        if not self.described["rejects"]:
            raise ConfigError(
                "reject: the run had no novelty quantiles when it was exported, so "
                "nothing is known to reject by; learn it with this version"
            )

    def _unknown(self, modality: str) -> str | None:
        if modality in self._programs:
            return None
        return (
            f"this export has no program for {modality}, but for "
            f"{', '.join(self._programs)}"
        )

    def _decode(self, reference: Reference, given: str | None) -> Read:
        modality = samples_of.modality_of(reference, given)
        if unknown := self._unknown(modality):
            raise DataError(f"{reference.describe()}: {unknown}")
        kind = MODALITIES[modality]
        media = reference.load(kind, self._spec)
        odd = kind.oddities(media, self._spec) if kind.oddities else ()
        return Read(modality, kind.preprocess(media, self._spec), odd)

    def _label(
        self,
        group: Group,
        sources: list[str],
        given: str | None,
        top: int,
        reject: float | None,
    ) -> Iterator[Labelled]:
        said = self._run(group)
        names = self.described["modalities"]
        route = "probabilities" if given else "routed_probabilities"
        for row, (source, odd) in enumerate(zip(sources, group.oddities, strict=True)):
            took = given or names[said["routed_modality"][row]]
            allowed = self._learnt & (self._modality == took)
            unlike = None
            if reject is not None:
                share = float(said["percentile"][row])
                unlike = answers.judged(float(said["novelty"][row]), share, reject)
            yield Labelled(
                source,
                group.modality,
                took,
                answers.likeliest(
                    said[route][row], allowed, self._canonical, self._names, top
                ),
                odd,
                unlike,
            )

    def _run(self, group: Group) -> dict[str, np.ndarray]:
        """Returns what the program says of samples.

        Their number is rounded up to a power of two, so that few shapes are compiled;
        a prediction depends on its own sample alone.
        """
        (values,) = group.inputs.values()
        total = len(values)
        more = (1 << (total - 1).bit_length()) - total
        values = np.concatenate([values, np.repeat(values[-1:], more, axis=0)])
        said = self._programs[group.modality](self._weights, values)
        return {name: np.asarray(array)[:total] for name, array in said.items()}

    @functools.cached_property
    def _learnt(self) -> np.ndarray:
        return np.array([slot["learnt"] for slot in self.described["slots"]])

    @functools.cached_property
    def _modality(self) -> np.ndarray:
        return np.array([slot["modality"] for slot in self.described["slots"]])

    @functools.cached_property
    def _canonical(self) -> np.ndarray:
        return np.array([slot["class"] for slot in self.described["slots"]])

    @functools.cached_property
    def _names(self) -> dict[int, str]:
        # reversed, so that the first of several slots of equal names gives the name
        return {s["class"]: s["name"] for s in reversed(self.described["slots"])}


def load(folder: str | os.PathLike[str]) -> Exported:
    """Reads an export; every file is compared with its hash in `model.json`.

    No code of the folder is run but its programs, which may call nothing but JAX's own
    solvers.

    Raises:
        DataError: The folder is no export of this format, a file is missing or damaged,
            or this version preprocesses samples in another way.
    """
    folder = pathlib.Path(folder)
    path = folder / DESCRIPTION
    with reading(str(path), _EXPECTED):
        check_bytes(path, _MAX_BYTES)
        described = json.loads(path.read_text(encoding="utf-8"))
        if described.get("format") != FORMAT:
            raise DataError(
                f"{path}: format {described.get('format')}, expected {FORMAT}; export "
                "the run with this version, or load it with the copy in the export"
            )
        for name, digest in described["files"].items():
            _check_file(folder, name, digest)
        spec = _input_spec(described["inputs"], folder)
        _check_preprocessing(described, spec, path)
        weights: dict[str, jax.Array] = {}
        for file in described["weights"]:
            weights |= _tensors(_checked(folder, file, described), described["tensors"])
        return Exported(
            described,
            tuple(described["notes"]),
            spec,
            {name: weights[name] for name in described["taken"]},
            {
                modality: _program(_checked(folder, about["file"], described))
                for modality, about in described["programs"].items()
            },
        )


def _check_file(folder: pathlib.Path, name: str, digest: str) -> None:
    parts = pathlib.PurePosixPath(name)
    if parts.is_absolute() or ".." in parts.parts or "\\" in name:
        raise DataError(f"{folder / DESCRIPTION}: {name!r} is no file of the folder")
    path = folder / name
    with reading(str(path), "a file of an export"):
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != digest:
            raise DataError(
                f"{path}: its SHA-256 is {found}, expected {digest}; copy it again"
            )


def _checked(
    folder: pathlib.Path, name: str, described: dict[str, Any]
) -> pathlib.Path:
    """Returns the path of a file whose hash was compared."""
    if name not in described["files"]:
        raise DataError(f"{folder / DESCRIPTION}: {name!r} is not among its files")
    return folder / name


def _tensors(path: pathlib.Path, described: dict[str, Any]) -> dict[str, jax.Array]:
    """Reads a file of tensors; safetensors itself has no bfloat16 without PyTorch."""
    return {
        # `jnp.asarray` would compile a program for every shape
        name: jax.device_put(
            np.frombuffer(view["data"], jnp.dtype(described[name]["dtype"])).reshape(
                view["shape"]
            )
        )
        for name, view in safetensors.deserialize(path.read_bytes())
    }


def _input_spec(stored: dict[str, Any], folder: pathlib.Path) -> InputSpec:
    plain: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in stored.items()
    }
    tokenizer, storage = dict(stored["tokenizer"]), dict(stored["storage"])
    name = pathlib.PurePosixPath(tokenizer["path"]).name
    tokenizer["path"] = str(folder / TOKENIZER / name)
    storage["depth_invalid"] = tuple(storage["depth_invalid"])
    plain |= {"tokenizer": TokenizerSpec(**tokenizer), "storage": Storage(**storage)}
    return InputSpec(**plain)


def _check_preprocessing(
    described: dict[str, Any], spec: InputSpec, path: pathlib.Path
) -> None:
    for modality, about in described["programs"].items():
        if modality not in MODALITIES:
            raise DataError(
                f"{path}: {modality} is a modality of its owner's own, of which the "
                "export holds no preprocessing; name its file by MMCL_JAX_MODULES, or "
                "call the program with tensors"
            )
        here = MODALITIES[modality].version(spec)
        if here != about["preprocessing"]:
            raise DataError(
                f"{path}: {modality} is preprocessed as {about['preprocessing']}, by "
                f"this version as {here}; load it with the copy in the export"
            )


def _program(path: pathlib.Path) -> Callable[..., dict[str, jax.Array]]:
    program = jax.export.deserialize(bytearray(path.read_bytes()))
    for target in sorted(set(_CALL.findall(program.mlir_module()))):
        if not _OWN.fullmatch(target):
            raise DataError(
                f"{path}: it calls {target or 'a function'}, which is no solver of "
                "JAX's own; get the export from its owner again"
            )
    return jax.jit(program.call)
