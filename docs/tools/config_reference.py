"""Writes docs/config.md: `python docs/tools/config_reference.py`.

The page is made of the dataclasses that `config.py` is made of: types and defaults of
their fields, and the meanings that their docstrings give.
"""

import argparse
import dataclasses
import inspect
import math
import pathlib
import re
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Annotated, Any, Literal

from mmcl_jax.cli.shorthand import SHORT_KEYS
from mmcl_jax.config import Config
from mmcl_jax.fields import Range
from mmcl_jax.methods.registry import METHODS
from mmcl_jax.modalities import MODALITIES
from mmcl_jax.models.adapters import ADAPTERS
from mmcl_jax.streams.base import ORDERS
from mmcl_jax.streams.protocols import PROTOCOLS
from mmcl_jax.streams.registry import SOURCES

ROOT = pathlib.Path(__file__).parents[2]
PAGE = "docs/config.md"

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

_HEAD = """\
# Every key of a config

Written by `python docs/tools/config_reference.py` from the dataclasses that
`mmcl_jax/config.py` is made of; a test checks that it is up to date.

Any key can be set by a flag after `--config=FILE.py`, for instance
`--config.train.epochs=4`. `None` is written as such
(`--config.method.comm.self_weight=None`), a list with quotes
(`--config.stream.modalities="('image', 'audio')"`) or with commas
(`--config.stream.modalities=image,audio`); a text that contains a comma needs quotes
(`--config.encoder.templates="'a photo of a {}, a type of pet.'"`). The defaults below
are those of the code; a config file may set others, and it alone determines the kind of
stream. An unknown key, a value out of range or of another type is an error that names
the key, before anything starts. The config of a run is `config.json` in its workdir.

Short arguments follow the file's name after a colon, as in
`--config=configs/demo.py:smoke,method=ridge`:

| short | sets |
|---|---|
"""


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


def page() -> str:
    """Returns what docs/config.md holds."""
    short = [f"| `{key}=` | `config.{path}` |" for key, path in SHORT_KEYS.items()]
    short.append("| `seed=` | all keys of `config.seeds` |")
    text = _HEAD + "\n".join(short) + "\n"
    for path, about, rows in sections():
        kinds = [row.default for row in rows if row.key == "config.stream.kind"]
        text += f"\n## {path}{''.join(f', {kind[1:-1]}' for kind in kinds)}\n\n"
        text += f"{about}\n\n| key | values | default | meaning |\n|---|---|---|---|\n"
        for row in rows:
            name = row.key.removeprefix(f"{path}.")
            text += f"| `{name}` | {row.kind} | `{row.default}` | {row.meaning} |\n"
        if path == "config.method.adapter":
            text += _adapters()
    return re.sub(r"`docs/(\w+\.md)`", r"[\1](\1)", text)


def _adapters() -> str:
    """Returns a table of the kinds of adapters and the keys that each reads."""
    text = "\n| kind | is | reads |\n|---|---|---|\n"
    for name, make in ADAPTERS.items():
        about = summary(make).removeprefix("Returns ")
        reads = ", ".join(f"`{key}`" for key in inspect.signature(make).parameters)
        text += f"| `{name}` | {about} | {reads} |\n"
    return text


def main() -> None:
    """Writes the page."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    (ROOT / PAGE).write_text(page(), "utf-8")


if __name__ == "__main__":
    main()
