"""Tensors that stay in their files until they are taken."""

import math
import pathlib
from collections.abc import Callable, Iterator, Mapping

import jax.numpy as jnp
import numpy as np

from mmcl_jax.errors import DataError, reading

# what a tensor may consist of
DTYPES = tuple(
    np.dtype(name)
    for name in (
        *("bool", "int8", "int16", "int32", "int64"),
        *("uint8", "uint16", "uint32", "uint64"),
        *("float16", jnp.bfloat16, "float32", "float64"),
    )
)

MAX_AXES = 32

# trained numbers hardly compress, and no more than a few tensors share a storage
_MAX_GROWTH = 16
_FREE_BYTES = 64 * 2**20  # small files of zeros may grow more than that


# of no types, which a checker at run time would look for in a tensor that it takes
class MappedTensors(Mapping):
    """Tensors by their name, each read when it is taken, and again the next time.

    Taking one raises `DataError` naming the file and the tensor if its bytes cannot be
    read.
    """

    def __init__(
        self, path: pathlib.Path, takes: Mapping[str, Callable[[], np.ndarray]]
    ) -> None:
        """Holds how each tensor of the file `path` is read."""
        self._path = path
        self._takes = takes

    def __getitem__(self, name: str) -> np.ndarray:
        """Reads a tensor."""
        take = self._takes[name]
        with reading(str(self._path), f"tensor {name!r}"):
            return take()

    def __contains__(self, name: object) -> bool:
        """Says whether there is a tensor of that name; reads nothing."""
        return name in self._takes

    def __iter__(self) -> Iterator[str]:
        """Goes through the names; reads nothing."""
        return iter(self._takes)

    def __len__(self) -> int:
        """Counts the tensors."""
        return len(self._takes)


def view(
    path: pathlib.Path,
    offset: int,
    dtype: np.dtype,
    shape: tuple[int, ...],
    strides: tuple[int, ...] | None = None,
) -> np.ndarray:
    """Maps a tensor into memory, read-only; its bytes are read when they are used.

    A map of its own, so that what was read is given back with the array. As with every
    map, who uses it after the file was cut is killed.

    Args:
        path: of the file.
        offset: of its first number, bytes.
        dtype: of its numbers.
        shape: of the tensor.
        strides: steps along each axis, in numbers and not negative; None = the last
            axis is contiguous.

    Raises:
        ValueError: the file ends before the tensor does.
    """
    if 0 in shape:
        return np.empty(shape, dtype)
    if strides is None:
        strides = tuple(math.prod(shape[i + 1 :]) for i in range(len(shape)))
    length = span(shape, strides) * dtype.itemsize
    data = np.memmap(path, np.uint8, "r", offset, (length,))
    steps = tuple(step * dtype.itemsize for step in strides)
    return np.ndarray(shape, dtype, data, strides=steps)


def span(shape: tuple[int, ...], strides: tuple[int, ...]) -> int:
    """Returns how many numbers lie between the first and the last, both included."""
    last = sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
    return 0 if 0 in shape else 1 + last


def check_growth(path: pathlib.Path, size: int) -> None:
    """Raises `DataError` if `size` bytes of tensors are too many to be in the file."""
    file_size = path.stat().st_size
    if size > _FREE_BYTES + _MAX_GROWTH * file_size:
        raise DataError(
            f"{path}: {size} bytes of tensors in a file of {file_size}; more than "
            f"{_MAX_GROWTH} times as many are no weights"
        )
