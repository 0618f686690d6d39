"""Every key of a config: the values that it may have, its default and its meaning.

Read from the dataclasses that `config.py` is made of, and from their docstrings.
"""

import dataclasses
import inspect
import math
import re
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

from ml_collections import ConfigDict

from mmcl_jax.cli import screens
from mmcl_jax.config import Config
from mmcl_jax.fields import Range
from mmcl_jax.methods.registry import METHODS
from mmcl_jax.modalities import MODALITIES
from mmcl_jax.models.adapters import ADAPTERS
from mmcl_jax.streams.base import ORDERS
from mmcl_jax.streams.protocols import PROTOCOLS
from mmcl_jax.streams.registry import SOURCES

# keys of text that `config.resolve` takes from a registry
REGISTRIES: Mapping[str, Iterable[str]] = {
    "config.stream.kind": SOURCES,
    "config.stream.modalities": MODALITIES,
    "config.stream.order": ORDERS,
    "config.stream.protocol": PROTOCOLS,
    "config.method.name": METHODS,
    "config.method.adapter.kind": ADAPTERS,
}
_TYPES = {
    int: "whole number",
    float: "number",
    bool: "`True` or `False`",
    str: "text",
    Any: "list of texts",  # typed by the file that they are of
}


class Row(typing.NamedTuple):
    """A key.

    Attributes:
        key: its path, from `config` on.
        kind: the values that it may have.
        default: as it is written in Python.
        meaning: what the docstring of its dataclass says.
    """

    key: str
    kind: str
    default: str
    meaning: str


def sections() -> Iterator[tuple[str, str, list[Row]]]:
    """Yields path, summary and keys of each section that has keys of its own."""
    yield from _sections("config", Config())


def _sections(path: str, value: Any) -> Iterator[tuple[str, str, list[Row]]]:
    hints = typing.get_type_hints(type(value), include_extras=True)
    meanings = attributes(type(value))
    rows, below = [], []
    for field in dataclasses.fields(value):
        key, item = f"{path}.{field.name}", getattr(value, field.name)
        if key == "config.stream":
            below += [(key, source.options()) for source in SOURCES.values()]
        elif dataclasses.is_dataclass(item):
            below.append((key, item))
        else:
            kind = _kind(hints[field.name], REGISTRIES.get(key, ()))
            rows.append(Row(key, kind, repr(item), meanings[field.name]))
    if rows:
        yield path, summary(type(value)), rows
    for key, item in below:
        yield from _sections(key, item)


def attributes(kind: type) -> dict[str, str]:
    """Returns what the part `Attributes` of a docstring says of each name.

    Names that a class has from another one are explained there.

    >>> attributes(Row)["default"]
    'as it is written in Python.'
    """
    found: dict[str, str] = {}
    for each in reversed(kind.__mro__):
        below = inspect.cleandoc(each.__doc__ or "").partition("\nAttributes:\n")[2]
        entries = re.findall(r"^    (\w+): (.*(?:\n     +.*)*)", below, re.MULTILINE)
        found |= {name: " ".join(text.split()) for name, text in entries}
    return found


def summary(documented: type | Callable) -> str:
    """Returns the first line of a docstring."""
    return inspect.cleandoc(documented.__doc__ or "").partition("\n")[0]


def _kind(hint: Any, names: Iterable[str]) -> str:
    """Returns the values that a type allows, in words."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        (some,) = (a for a in arguments if a is not type(None))
        return f"{_kind(some, names)}, or `None`"
    if origin is Annotated:
        number, allowed = arguments
        if not isinstance(allowed, Range):
            return "path"
        return f"{_TYPES[number]} {_range(*allowed)}"
    if origin is Literal:
        names = arguments
    choices = ", ".join(f"`{name}`" for name in names)
    if origin is tuple:
        return f"some of {choices}" if choices else "list of texts"
    return f"one of {choices}" if choices else _TYPES[hint]


def _range(low: float, high: float, is_open: bool) -> str:
    if math.isinf(high):
        return f"above {low}" if is_open else f"from {low}"
    return f"between {low} and {high}" if is_open else f"from {low} to {high}"


def of_config(tree: ConfigDict, words: Sequence[str] = ()) -> str:
    """Returns the keys of a config with their values, for people, in lines.

    Of streams and methods, only the sections of those that are chosen.

    Args:
        tree: What `get_config` of a config file returns, with the flags after it.
        words: Words of which a key or its meaning has at least one; empty: all keys.
    """
    values = flat(tree)
    kind, method = values.get("config.stream.kind"), values.get("config.method.name")
    parts = []
    for path, about, rows in sections():
        kinds = [row.default for row in rows if row.key == "config.stream.kind"]
        of_other = path.startswith("config.method.") and path.split(".")[2] in METHODS
        if kinds not in ([], [repr(kind)]) or of_other and path.split(".")[2] != method:
            continue
        found = [row for row in rows if row.key in values and _about(row, words)]
        lines = [line for row in found for line in _lines(row, values[row.key])]
        if lines:
            parts.append("\n".join([f"{path}: {about}".replace("`", ""), *lines]))
    if not parts and not words:  # of a program with a config of its own
        parts = ["\n".join(f"{key}={value!r}" for key, value in values.items())]
    return "\n\n".join(parts)


def flat(tree: ConfigDict) -> dict[str, Any]:
    """Returns the values of a config by the path of their key."""
    items = tree.items(preserve_field_references=False)
    found: dict[str, Any] = {}
    for name, value in items:
        if isinstance(value, ConfigDict):
            inner = flat(value)
            found |= {
                f"config.{name}.{k.removeprefix('config.')}": inner[k] for k in inner
            }
        else:
            found[f"config.{name}"] = value
    return found


def _about(row: Row, words: Sequence[str]) -> bool:
    text = f"{row.key} {row.meaning}".lower()
    return not words or any(word.lower() in text for word in words)


def _lines(row: Row, value: Any) -> list[str]:
    name = row.key.rpartition(".")[2]
    default = "" if repr(value) == row.default else f" Default: {row.default}."
    return [
        f"  {name}={value!r}".replace("=''", "="),
        screens.wrapped(f"{row.kind}: {row.meaning}{default}".replace("`", ""), 6),
    ]
