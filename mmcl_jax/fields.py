"""Options as frozen dataclasses whose types define the values that are allowed.

A type such as `Positive` or `Count` limits a number, a choice among names is a
`typing.Literal`. `build` turns nested dicts, as users write them, into dataclasses and
checks every field.
"""

import dataclasses
import difflib
import math
import sys
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, NamedTuple

from mmcl_jax.errors import ConfigError

Number = float | int


class Range(NamedTuple):
    """The numbers from `low` to `high`, without these two if `is_open`."""

    low: Number
    high: Number = math.inf
    is_open: bool = False

    def complaint(self, value: Number) -> str | None:
        """Returns what is wrong with `value`, or None.

        >>> Range(0, 1).complaint(2)
        '2 is not between 0 and 1'
        """
        low, high, is_open = self
        # written so that NaN, which fails every comparison, is outside
        inside = low < value < high if is_open else low <= value <= high
        if inside:
            return None
        if not math.isinf(high):
            return f"{value} is not between {low} and {high}"
        return (
            f"{value} is not above {low}" if is_open else f"{value} is less than {low}"
        )


Positive = Annotated[float, Range(0, is_open=True)]
NonNegative = Annotated[float, Range(0)]
Share = Annotated[float, Range(0, 1)]
Fraction = Annotated[float, Range(0, 1, is_open=True)]
Count = Annotated[int, Range(1)]
NonNegativeInt = Annotated[int, Range(0)]
# JAX keeps the lower 32 bits of a seed, so two larger ones could give equal keys
Seed = Annotated[int, Range(0, 2**32 - 1)]

Sharing = Literal["shared", "per_modality_given", "per_modality_routed"]


def check_name(
    what: str, value: str, names: Iterable[str], otherwise: str = ""
) -> None:
    """Raises `ConfigError` with the nearest name unless `value` is one of `names`.

    The message ends with `otherwise`, what else may be done.
    """
    names = list(names)
    if value in names:
        return
    near = difflib.get_close_matches(str(value), names, 1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    hint += f"; {otherwise}" if otherwise else ""
    raise ConfigError(f"{what}: {value!r} is not one of {', '.join(names)}{hint}")


def build(
    kind: type,
    tree: Any,
    path: str,
    chosen: Mapping[str, Any] = types.MappingProxyType({}),
) -> Any:
    """Returns a dataclass from nested dicts that must have exactly its fields.

    Args:
        kind: Dataclass to build.
        tree: Nested dicts.
        path: Path of the tree, with which messages begin.
        chosen: Types of the fields that may have one of several, by path.

    Raises:
        ConfigError: There is an unknown or missing key, a wrong type or a value out of
            range.
    """
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: {tree!r} is not a section")
    hints = typing.get_type_hints(kind, include_extras=True)
    for key in tree:
        check_name(f"unknown key {path}.{key}", key, hints)
    values = {}
    for name, hint in hints.items():
        at = f"{path}.{name}"
        if name not in tree:
            raise ConfigError(f"{at}: missing")
        hint = chosen.get(at, hint)
        if isinstance(hint, type) and dataclasses.is_dataclass(hint):
            values[name] = build(hint, tree[name], at, chosen)
        else:
            values[name] = checked(tree[name], hint, at)
    return kind(**values)


def with_defaults(kind: type, tree: Any, path: str, chosen: Mapping[str, Any]) -> Any:
    """Returns nested dicts with the default of each field that is missing.

    Args:
        kind: Dataclass that the tree is of.
        tree: Nested dicts.
        path: Path of the tree.
        chosen: Types of the fields that may have one of several, by path.
    """
    if not isinstance(tree, dict):
        return tree
    hints, filled = typing.get_type_hints(kind, include_extras=True), dict(tree)
    for field in dataclasses.fields(kind):
        at, name = f"{path}.{field.name}", field.name
        hint = chosen.get(at, hints[name])
        if isinstance(hint, type) and dataclasses.is_dataclass(hint):
            filled[name] = with_defaults(hint, tree.get(name, {}), at, chosen)
        elif field.default is not dataclasses.MISSING:
            filled.setdefault(name, field.default)
    return filled


def checked(value: Any, hint: Any, path: str) -> Any:
    """Returns a value converted to its type: lists to tuples, whole numbers to floats.

    A type may name a function that converts it further, as `files.Path` does.

    Args:
        value: Value as a user has written it.
        hint: Type of the field.
        path: Path of the field, with which messages begin.

    Raises:
        ConfigError: The value is of another type, or out of range.
    """
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        if value is None:
            return None
        hint = next(a for a in typing.get_args(hint) if a is not type(None))
    if typing.get_origin(hint) is Annotated:
        hint, allowed = typing.get_args(hint)
        value = checked(value, hint, path)
        if not isinstance(allowed, Range):
            try:
                return allowed(value)
            except ConfigError as error:
                raise ConfigError(f"{path}: {error}") from error
        if complaint := allowed.complaint(value):
            raise ConfigError(f"{path}: {complaint}")
        return value
    if typing.get_origin(hint) is Literal:
        check_name(path, value, typing.get_args(hint))
        return value
    if typing.get_origin(hint) is tuple:
        item = typing.get_args(hint)[0]
        if isinstance(value, (list, tuple)):
            return tuple(checked(v, item, f"{path}[{i}]") for i, v in enumerate(value))
    elif hint is float and type(value) in (int, float):
        if not abs(value) <= sys.float_info.max:  # true for NaN, too
            raise ConfigError(f"{path}: {value} is not a finite number")
        return float(value)
    # a bool is an int for Python, but `epochs=True` is a mistake
    elif isinstance(value, hint) and not (hint is int and isinstance(value, bool)):
        return value
    wanted = getattr(hint, "__name__", str(hint))
    raise ConfigError(f"{path}: {value!r} is not of type {wanted}")
