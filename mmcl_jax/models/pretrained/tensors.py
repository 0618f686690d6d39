"""Reads the tensors of published weight files of all formats."""

import functools
import io
import json
import math
import pathlib
from typing import Any

import jax.numpy as jnp
import numpy as np
import safetensors

from mmcl_jax.errors import DataError, reading
from mmcl_jax.files import read_json
from mmcl_jax.modalities.signatures import found_in, require_content
from mmcl_jax.models.pretrained import torch_archive
from mmcl_jax.models.pretrained.archives import Entry, read_directory
from mmcl_jax.models.pretrained.mapped import (
    DTYPES,
    MAX_AXES,
    MappedTensors,
    check_growth,
    view,
)

# A model of a billion parameters has a header of a few hundred kilobytes.
_MAX_HEADER_BYTES = 16 * 2**20
_CODES = {
    **{"F64": "float64", "F32": "float32", "F16": "float16", "BF16": jnp.bfloat16},
    **{"I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8"},
    **{"U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8"},
    "BOOL": "bool",
}
_EXPECTED = "a file of weights"
_NPY_HEADER_BYTES = 12 + 10_000  # NumPy reads no more
_INDEX = ".index.json"


def read(path: str | pathlib.Path) -> MappedTensors:
    """Returns the tensors of a file by name.

    The suffix tells the format: `.safetensors`; `.bin`, `.pth` or `.pt` for files of
    `torch.save`; `.npz`; and `.safetensors.index.json` or `.bin.index.json` for an
    index of several files beside it.

    Names, shapes and places of tensors are checked at once. The bytes of a tensor are
    read when it is taken from the mapping, or later still: most tensors are read-only
    maps of the file. Taking a tensor twice reads it twice.

    Raises:
        DataError: The file is damaged, of another format, or holds numbers of a type
            that is not in `mapped.DTYPES`; the message names the file and, where there
            is one, the tensor.
    """
    path = pathlib.Path(path)
    for suffixes, reader in _READERS.items():
        if path.name.endswith(suffixes):
            with reading(str(path), _EXPECTED):
                require_content(str(path), _EXPECTED)
            return reader(path)
    known = ", ".join(suffix for suffixes in _READERS for suffix in suffixes)
    raise DataError(f"{path}: no file of weights; expected one that ends in {known}")


def _read_safetensors(path: pathlib.Path) -> MappedTensors:
    with reading(str(path), "weights as safetensors", found_in):
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            if size > _MAX_HEADER_BYTES:
                raise DataError(
                    f"{path}: a header of {size} bytes, more than the limit of "
                    f"{_MAX_HEADER_BYTES}"
                )
            header = file.read(size)
        # Checks that types, shapes and places agree with each other and with the file.
        with safetensors.safe_open(path, framework="numpy"):
            pass
        tensors = json.loads(header, object_pairs_hook=_without_doubles)
        tensors.pop("__metadata__", None)
        takes = {}
        for name, tensor in tensors.items():
            code, shape = tensor["dtype"], tuple(tensor["shape"])
            if len(shape) > MAX_AXES:
                raise DataError(f"{path}: tensor {name!r} has {len(shape)} axes")
            if code not in _CODES:
                raise DataError(
                    f"{path}: tensor {name!r} is of type {code}, expected one of "
                    f"{', '.join(_CODES)}"
                )
            offset = 8 + size + tensor["data_offsets"][0]
            dtype = np.dtype(_CODES[code])
            takes[name] = functools.partial(view, path, offset, dtype, shape)
        return MappedTensors(path, takes)


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # Of equal names json keeps the last, while other readers may keep the first.
    found = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"{name!r} twice")
        found[name] = value
    return found


def _read_index(path: pathlib.Path) -> MappedTensors:
    expected = "an index of files of weights"
    shard_of = read_json(path, expected).get("weight_map")
    if not isinstance(shard_of, dict) or not shard_of:
        raise DataError(f"{path}: no block 'weight_map'; expected {expected}")
    suffix = path.name.removesuffix(_INDEX).rpartition(".")[2]
    names: dict[str, set[str]] = {}
    for name, shard in shard_of.items():
        if not isinstance(shard, str) or not _is_beside(shard, suffix):
            raise DataError(
                f"{path}: tensor {name!r} is in {shard!r}; expected the name of a "
                f".{suffix} file beside the index"
            )
        names.setdefault(shard, set()).add(name)
    takes = {}
    for shard, expected_names in names.items():
        tensors = read(path.parent / shard)
        for name in sorted(expected_names ^ tensors.keys()):
            raise DataError(
                f"{path}: the index and {shard} do not agree on tensor {name!r}"
            )
        takes |= {
            name: functools.partial(tensors.__getitem__, name) for name in tensors
        }
    return MappedTensors(path, takes)


def _is_beside(name: str, suffix: str) -> bool:
    # An index must not lead to files elsewhere. Only names are checked, since the files
    # of a cache are links.
    is_plain = name.isprintable() and not set(name) & set("/\\")
    return is_plain and name.endswith(f".{suffix}")


def _read_npz(path: pathlib.Path) -> MappedTensors:
    with reading(str(path), "arrays that numpy.savez wrote"):
        takes, total = {}, 0
        for file, entry in read_directory(path).items():
            name = file.removesuffix(".npy")
            try:
                offset, dtype, shape, is_fortran = _npy_header(entry)
            except Exception as error:  # Python's parser raises many kinds of errors
                raise DataError(f"{path}: tensor {name!r}: {error!r}") from error
            size = math.prod(shape) * dtype.itemsize
            if file == name or offset + size != entry.size:
                raise DataError(
                    f"{path}: tensor {name!r} {shape} of {dtype} does not fit in entry "
                    f"{file!r} of {entry.size} bytes"
                )
            total += size
            takes[name] = functools.partial(
                _take_npy, entry, offset, dtype, shape, is_fortran
            )
        check_growth(path, total)
        return MappedTensors(path, takes)


def _npy_header(entry: Entry) -> tuple[int, np.dtype, tuple[int, ...], bool]:
    """Returns offset, type, shape, and whether the order is that of Fortran."""
    file = io.BytesIO(entry.start(_NPY_HEADER_BYTES))
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(file)
    elif version == (2, 0):
        shape, is_fortran, dtype = np.lib.format.read_array_header_2_0(file)
    else:
        raise ValueError(f"version {version} of the format")
    if dtype == np.dtype("V2"):
        # NumPy has no bfloat16 and stores it as this type.
        dtype = np.dtype(jnp.bfloat16)
    if dtype not in DTYPES:
        raise ValueError(f"numbers of type {dtype}")
    if len(shape) > MAX_AXES or any(n < 0 for n in shape):
        raise ValueError(f"shape {shape}")
    return file.tell(), dtype, shape, is_fortran


def _take_npy(
    entry: Entry,
    offset: int,
    dtype: np.dtype,
    shape: tuple[int, ...],
    is_fortran: bool,
) -> np.ndarray:
    if is_fortran:
        return _take_npy(entry, offset, dtype, shape[::-1], False).T
    if not entry.is_deflated:
        return view(entry.path, entry.offset + offset, dtype, shape)
    return np.frombuffer(entry.read(), dtype, offset=offset).reshape(shape)


_READERS = {
    (".safetensors" + _INDEX, ".bin" + _INDEX): _read_index,
    (".safetensors",): _read_safetensors,
    (".bin", ".pth", ".pt"): torch_archive.read,
    (".npz",): _read_npz,
}
