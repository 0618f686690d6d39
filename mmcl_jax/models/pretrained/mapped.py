"""Tensors that stay in their files until they are used."""

import math
import pathlib
from collections.abc import Callable, Iterator, Mapping

import jax.numpy as jnp
import numpy as np

from mmcl_jax.errors import DataError, reading

# Allowed types of the numbers of a tensor.
DTYPES = tuple(
    np.dtype(name)
    for name in (
        *("bool", "int8", "int16", "int32", "int64"),
        *("uint8", "uint16", "uint32", "uint64"),
        *("float16", jnp.bfloat16, "float32", "float64"),
    )
)

MAX_AXES = 32

# A small file must not claim to hold tensors of any size: trained numbers hardly
# compress, and only a few tensors share a storage.
_MAX_GROWTH = 16
_FREE_BYTES = 64 * 2**20  # below this any growth is allowed, as for files of zeros


# Without type arguments: a type checker at run time would take a tensor to check them.
class MappedTensors(Mapping):
    """Tensors by name; each is read when it is taken, and again the next time.

    Taking a tensor raises `DataError`, which names the file and the tensor, if its
    bytes cannot be read.
    """

    def __init__(
        self, path: pathlib.Path, takes: Mapping[str, Callable[[], np.ndarray]]
    ) -> None:
        """Keeps a function for each tensor of the file `path` that reads it."""
        self._path = path
        self._takes = takes

    def __getitem__(self, name: str) -> np.ndarray:
        """Reads a tensor."""
        take = self._takes[name]
        with reading(str(self._path), f"tensor {name!r}"):
            return take()

    def __contains__(self, name: object) -> bool:
        """Returns whether there is a tensor of that name; reads nothing."""
        return name in self._takes

    def __iter__(self) -> Iterator[str]:
        """Iterates over the names; reads nothing."""
        return iter(self._takes)

    def __len__(self) -> int:
        """Returns the number of tensors."""
        return len(self._takes)


def view(
    path: pathlib.Path,
    offset: int,
    dtype: np.dtype,
    shape: tuple[int, ...],
    strides: tuple[int, ...] | None = None,
) -> np.ndarray:
    """Maps a tensor into memory, read-only; its bytes are read when they are used.

    Each tensor has a map of its own, so that its memory is released with the array. As
    with every map, using it after the file was truncated kills the process.

    Args:
        path: Path of the file.
        offset: Offset of the first number, bytes.
        dtype: Type of the numbers.
        shape: Shape of the tensor.
        strides: Steps along each axis, in numbers and not negative; None: contiguous in
            C order.

    Raises:
        ValueError: The file ends before the tensor does.
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
    """Returns the count of numbers from the first to the last, both included."""
    last = sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
    return 0 if 0 in shape else 1 + last


def check_growth(path: pathlib.Path, size: int) -> None:
    """Raises `DataError` if `size` bytes of tensors are too many to be in the file."""
    file_size = path.stat().st_size
    if size > _FREE_BYTES + _MAX_GROWTH * file_size:
        raise DataError(
            f"{path}: {size} bytes of tensors in a file of {file_size}, more than "
            f"{_MAX_GROWTH} times as many; the file is damaged or forged"
        )
