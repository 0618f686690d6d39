"""Reads tensors from the files that `torch.save` writes, without torch.

Such a file is a zip archive of a file of bytes for each storage, and of `data.pkl`: a
program for the stack machine of Python's pickles that describes the tensors. Before
torch 1.6 there was no archive: programs precede the storages, which follow one another.
Unpickling would run any function that a program names, so nothing is unpickled here.
Programs are interpreted by a machine that knows only the instructions that `torch.save`
writes, and whose values are text, numbers, lists, dictionaries and descriptions of
tensors.
"""

import contextlib
import dataclasses
import functools
import io
import math
import pathlib
import pickletools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from mmcl_jax.errors import DataError, reading
from mmcl_jax.models.pretrained.archives import Entry, read_directory
from mmcl_jax.models.pretrained.mapped import (
    MAX_AXES,
    MappedTensors,
    check_growth,
    span,
    view,
)

_EXPECTED = "a file that torch.save wrote"
_REMEDY = "save its tensors as safetensors, and give that file"
_MAX_PROGRAM_BYTES = 4 * 2**20  # a thousand tensors take a quarter of a megabyte
_MAX_INSTRUCTIONS = 500_000  # a tensor takes about fifty

_STORAGES = {
    f"torch.{name}Storage": np.dtype(dtype)
    for name, dtype in {
        "Double": "float64",
        "Float": "float32",
        "Half": "float16",
        "BFloat16": jnp.bfloat16,
        "Long": "int64",
        "Int": "int32",
        "Short": "int16",
        "Char": "int8",
        "Byte": "uint8",
        "Bool": "bool",
    }.items()
}
_GLOBALS = (
    "collections.OrderedDict",
    "torch._utils._rebuild_tensor_v2",
    "torch._utils._rebuild_parameter",
    *_STORAGES,
)
_ZIP = b"PK\x03\x04"
# A file of torch before 1.6 begins with a program that leaves this number.
_OLD = 0x1950A86A20F9469CFC6C
_COUNT_BYTES = 8  # before each storage of such a file: how many numbers it has
# Keys under which checkpoints of a training hold the weights.
_NESTS = ("state_dict", "model")


# Classes, not tuples: a program can make tuples, and could forge these values.
@dataclasses.dataclass(frozen=True)
class _Global:
    """A name in a module that the program refers to; it is never imported."""

    name: str


@dataclasses.dataclass(frozen=True)
class _Storage:
    """Numbers of one or more tensors; `key` names their entry in the archive."""

    dtype: np.dtype
    key: str
    elements: int


@dataclasses.dataclass(frozen=True)
class _Tensor:
    """A view of a storage; offset and strides are counted in elements."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read(path: pathlib.Path) -> MappedTensors:
    """Returns the tensors of a state dict; their bytes stay in the file.

    The state dict is the content of the file, or its entry "state_dict" or "model".
    Other contents of a checkpoint, such as the number of an epoch, are ignored.

    Raises:
        DataError: The file was not written by `torch.save` with tensors alone, or is
            damaged; the message names it.
    """
    with reading(str(path), _EXPECTED):
        with path.open("rb") as file:
            start = file.read(32)
        if _OLD.to_bytes(10, "little") in start:
            found, entries = _open_old(path)
        elif start.startswith(_ZIP):
            found, entries = _open(path)
        else:
            raise DataError(f"{path}: it begins unlike {_EXPECTED}: {_REMEDY}")
        takes = {name: _take(path, name, t, entries) for name, t in found.items()}
        size = sum(
            math.prod(t.shape) * t.storage.dtype.itemsize for t in found.values()
        )
        check_growth(path, size)
        return MappedTensors(path, takes)


_Opened = tuple[dict[str, "_Tensor"], Mapping[str, Entry]]


def _open(path: pathlib.Path) -> _Opened:
    """Returns the tensors of an archive, and the entries of their storages by key."""
    directory = read_directory(path)
    programs = [name for name in directory if name.split("/")[1:] == ["data.pkl"]]
    if len(programs) != 1:
        raise DataError(
            f"{path}: {len(programs)} entries data.pkl; expected {_EXPECTED}"
        )
    root = programs[0].removesuffix("data.pkl")
    inside = {name.removeprefix(root): entry for name, entry in directory.items()}
    if "constants.pkl" in inside or any(name.startswith("code/") for name in inside):
        raise DataError(f"{path}: a TorchScript program, which is not run: {_REMEDY}")
    if "byteorder" in inside and inside["byteorder"].start(9) != b"little":
        raise DataError(f"{path}: its numbers are not little-endian: {_REMEDY}")
    program = inside["data.pkl"]
    if program.size > _MAX_PROGRAM_BYTES:
        raise DataError(
            f"{path}: data.pkl of {program.size} bytes, more than the limit of "
            f"{_MAX_PROGRAM_BYTES}"
        )
    with _running(path, "data.pkl"):
        found = _state_dict(_run(program.read(), {}))
    return found, {
        name.removeprefix("data/"): entry
        for name, entry in inside.items()
        if name.startswith("data/")
    }


def _open_old(path: pathlib.Path) -> _Opened:
    """Returns the tensors of a file without an archive, and the places of storages.

    Three programs leave a number, a version and facts about the machine; two more, the
    state dict and the keys of the storages in their order.
    """
    with path.open("rb") as file:
        head = io.BytesIO(file.read(_MAX_PROGRAM_BYTES))
    storages: dict[str, _Storage] = {}
    with _running(path, "its programs"):
        values = [_run(head, storages) for _ in range(5)]
        _, _, machine, weights, keys = values
        if not isinstance(machine, dict) or machine.get("little_endian") is not True:
            raise ValueError(f"its numbers are not little-endian: {_REMEDY}")
        _check_kind(keys, list)
        entries, offset, size = {}, head.tell(), path.stat().st_size
        for key in keys:
            if key not in storages or key in entries:
                raise ValueError(f"a storage {key!r}, of no tensor or twice")
            offset += _COUNT_BYTES
            length = storages[key].elements * storages[key].dtype.itemsize
            entries[key] = Entry(path, offset, length, length, 0, False)
            offset += length
        if offset != size:
            raise ValueError(f"storages up to byte {offset} in a file of {size}")
        return _state_dict(weights), entries


@contextlib.contextmanager
def _running(path: pathlib.Path, what: str) -> Iterator[None]:
    """Turns what goes wrong in a program into a `DataError` that names the file."""
    try:
        yield
    except (ValueError, LookupError) as error:
        raise DataError(f"{path}: {what}: {error}") from error


_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_LITERALS = ("BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT")
_LITERALS += ("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8")
_LITERALS += ("BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES")


def _run(program: bytes | io.BytesIO, storages: dict[str, _Storage]) -> Any:
    """Returns the value that the program of a pickle leaves on its stack.

    Args:
        program: The program; of several in a row the next one is run.
        storages: Receives each storage that the program refers to, by its key.

    Raises:
        ValueError: The program has an instruction or a global that no state dict needs.
        LookupError: The stack is empty, or a value was not stored before it is used.
    """
    stack, below, memo = [], [], {}
    for count, (opcode, argument, _) in enumerate(pickletools.genops(program)):
        if count == _MAX_INSTRUCTIONS:
            raise ValueError(f"more than {_MAX_INSTRUCTIONS} instructions")
        match opcode.name:
            case "PROTO" | "FRAME":
                pass
            case "STOP":
                return stack.pop()
            case "MARK":
                below.append(stack)
                stack = []
            case "BINPUT" | "LONG_BINPUT" | "MEMOIZE" as name:
                index = len(memo) if name == "MEMOIZE" else argument
                # Real indices are consecutive; a huge one would fill the memory.
                if index is None or index > _MAX_INSTRUCTIONS:
                    raise ValueError(f"value {index} of a short program")
                memo[index] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "TUPLE" | "APPENDS" | "SETITEMS" as name:
                items, stack = stack, below.pop()
                _put(stack, name, items)
            case "TUPLE1" | "TUPLE2" | "TUPLE3" | "APPEND" | "SETITEM" as name:
                taken = {"TUPLE2": 2, "TUPLE3": 3, "SETITEM": 2}.get(name, 1)
                items = [stack.pop() for _ in range(taken)][::-1]
                _put(stack, name, items)
            case "EMPTY_DICT":
                stack.append({})
            case "EMPTY_LIST":
                stack.append([])
            case "GLOBAL":
                stack.append(_global(str(argument).replace(" ", ".", 1)))
            case "STACK_GLOBAL":
                name, module = stack.pop(), stack.pop()
                stack.append(_global(f"{_text(module)}.{_text(name)}"))
            case "BINPERSID":
                storage = _storage(stack.pop())
                if storages.setdefault(storage.key, storage) != storage:
                    raise ValueError(f"two storages with the key {storage.key!r}")
                stack.append(storage)
            case "REDUCE":
                arguments, function = stack.pop(), stack.pop()
                stack.append(_call(function, arguments))
            case "BUILD":
                stack.pop()  # the versions of modules, which a state dict carries
                _check_kind(stack[-1], dict)
            case name if name in _CONSTANTS:
                stack.append(_CONSTANTS[name])
            case name if name in _LITERALS:
                stack.append(argument)
            case name:
                raise ValueError(f"instruction {name} does not occur in a state dict")
    raise ValueError("the program has no end")


def _put(stack: list[Any], name: str, items: list[Any]) -> None:
    """Makes a tuple of items, or adds them to the list or dictionary on the stack."""
    if name.startswith("TUPLE"):
        stack.append(tuple(items))
    elif name.startswith("APPEND"):
        _check_kind(stack[-1], list)
        stack[-1].extend(items)
    else:
        _check_kind(stack[-1], dict)
        for key, value in zip(items[::2], items[1::2], strict=True):
            # Only text names a tensor, and hashing other keys may take very long.
            if isinstance(key, str):
                stack[-1][key] = value


def _check_kind(value: Any, kind: type) -> None:
    if type(value) is not kind:
        raise ValueError(f"a {type(value).__name__} where a {kind.__name__} belongs")


def _text(value: Any) -> str:
    _check_kind(value, str)
    return value


def _size(value: Any) -> int:
    _check_kind(value, int)
    if not 0 <= value < 2**63:
        raise ValueError("a size that is negative or larger than any file")
    return value


def _sizes(value: Any) -> tuple[int, ...]:
    _check_kind(value, tuple)
    if len(value) > MAX_AXES:
        raise ValueError(f"a tensor of {len(value)} axes")
    return tuple(_size(n) for n in value)


def _global(name: str) -> _Global:
    if name not in _GLOBALS:
        raise ValueError(
            f"global {name!r} is not part of a tensor, and no code is run: {_REMEDY}"
        )
    return _Global(name)


def _storage(value: Any) -> _Storage:
    match value:
        # without a view of another storage, which torch before 0.4 had at the end
        case ("storage", _Global(kind), str(key), str(_), elements) | (
            "storage",
            _Global(kind),
            str(key),
            str(_),
            elements,
            None,
        ):
            if kind in _STORAGES:
                return _Storage(_STORAGES[kind], key, _size(elements))
    raise ValueError("a reference that is not one to a storage")


def _call(function: Any, arguments: Any) -> Any:
    _check_kind(function, _Global)
    _check_kind(arguments, tuple)
    match function.name, arguments:
        # State dicts are OrderedDicts, and so are the hooks of a tensor.
        case ("collections.OrderedDict", ()):
            return {}
        case (
            "torch._utils._rebuild_tensor_v2",
            (_Storage() as storage, offset, shape, strides, _, _, *more),
        ) if more in ([], [None]):
            shape, strides = _sizes(shape), _sizes(strides)
            if len(shape) != len(strides):
                raise ValueError(f"{len(strides)} strides of a tensor {shape}")
            return _Tensor(storage, _size(offset), shape, strides)
        case ("torch._utils._rebuild_parameter", (_Tensor() as tensor, _, _)):
            return tensor
    raise ValueError(f"{function.name} with arguments that torch does not write")


def _state_dict(value: Any) -> dict[str, _Tensor]:
    if not isinstance(value, dict):
        raise ValueError(f"it holds no state dict: {_REMEDY}")
    nests = [name for name in _NESTS if isinstance(value.get(name), dict)]
    if len(nests) > 1:
        raise ValueError(f"it holds weights as {' and as '.join(nests)}: {_REMEDY}")
    if nests:
        value = value[nests[0]]
    found = {name: t for name, t in value.items() if isinstance(t, _Tensor)}
    if not found:
        raise ValueError(f"it holds no tensors by name: {_REMEDY}")
    return found


def _take(
    path: pathlib.Path, name: str, tensor: _Tensor, entries: Mapping[str, Entry]
) -> Callable[[], np.ndarray]:
    """Returns the function that reads a tensor, after checks of all its places.

    Raises:
        DataError: The tensor exceeds its storage, or the storage exceeds its entry.
    """
    storage, shape, strides = tensor.storage, tensor.shape, tensor.strides
    culprit = f"{path}: tensor {name!r}"
    entry = entries.get(storage.key)
    if entry is None:
        raise DataError(f"{culprit}: there is no entry data/{storage.key!r}")
    if entry.is_deflated:
        raise DataError(f"{culprit}: its entry is compressed, which torch never does")
    size = storage.dtype.itemsize
    if storage.elements * size > entry.size:
        raise DataError(
            f"{culprit}: a storage of {storage.elements} x {size} bytes in an entry of "
            f"{entry.size}"
        )
    # The product too: with strides of 0 one number can claim to be any number of them.
    reach = tensor.offset + span(shape, strides)
    if max(reach, math.prod(shape)) > storage.elements:
        raise DataError(
            f"{culprit}: shape {shape}, strides {strides} and offset {tensor.offset} "
            f"do not fit in its storage of {storage.elements}"
        )
    offset = entry.offset + tensor.offset * size
    return functools.partial(view, path, offset, storage.dtype, shape, strides)
