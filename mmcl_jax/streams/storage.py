"""How the files of each data set are stored, as a config or a table says it.

A text has one value for all data sets, or one for each: `5000`, `tum=5000,kitti=256`.
"""

import dataclasses
import math
from collections.abc import Collection, Mapping
from typing import Any, Literal

from mmcl_jax.errors import DataError
from mmcl_jax.modalities.base import Storage

# The value of a scale that stands for a layout of bits.
ROTATED = "sunrgbd"


def parse_scale(where: str, text: str) -> dict[str, float | bool | None]:
    """Returns the fields of `Storage` that a scale of depth stands for.

    Args:
        where: Origin of the text, for messages.
        text: Stored units in a metre, such as `5000`; or `sunrgbd` for the rotated
            bits of SUN RGB-D.

    Raises:
        DataError: The text is neither.
    """
    if text.strip().lower() == ROTATED:
        return {"depth_scale": 1000.0, "depth_rotated": True}
    value = _number(text)
    if value and 0 < value < 1:
        raise DataError(
            f"{where}: {text!r}; expected the stored units in a metre, not metres in a "
            f"unit; write {1 / value:g}"
        )
    if value is None or not math.isfinite(value) or value <= 0:
        raise DataError(
            f"{where}: {text!r}; expected the stored units in a metre, such as 1000 "
            f"for millimetres or 5000 as TUM stores them, or {ROTATED!r} for the "
            "rotated bits of SUN RGB-D"
        )
    return {"depth_scale": value}


def parse_invalid(where: str, text: str) -> tuple[float, ...]:
    """Returns the stored values that stand for "no reading", separated by blanks.

    Raises:
        DataError: One of them is not a number.
    """
    values = [_number(word) for word in text.split()]
    if not values or None in values:
        raise DataError(
            f"{where}: {text!r}; expected the stored value of no reading, such as "
            "65535; several are separated by blanks"
        )
    return tuple(value for value in values if value is not None)


def by_name(field: str, text: str, names: Collection[str]) -> Mapping[str, str]:
    """Returns the values of data sets, of a text such as `5000` or `a=5000,b=256`.

    Args:
        field: Name of the option, for messages.
        text: One value for all, or one for each named data set; empty: none.
        names: Names of the data sets.

    Raises:
        DataError: A name is that of no data set, or a value is missing.
    """
    if not text.strip():
        return {}
    if "=" not in text:
        return dict.fromkeys(names, text)
    pairs = [part.partition("=") for part in text.split(",")]
    values = {name.strip(): value.strip() for name, _, value in pairs}
    for name, value in values.items():
        if name not in names:
            known = ", ".join(names)
            raise DataError(f"{field}: no data set {name!r}; there are {known}")
        if not value:
            raise DataError(f"{field}: {text!r}; expected name=value,name=value")
    return values


def merged(own: Storage | None, default: Storage) -> Storage:
    """Returns the storage of a sample: its own where it says something."""
    if own is None:
        return default
    if own.depth_scale is not None:
        default = dataclasses.replace(
            default, depth_scale=own.depth_scale, depth_rotated=own.depth_rotated
        )
    if own.depth_invalid:
        default = dataclasses.replace(default, depth_invalid=own.depth_invalid)
    return default


def per_data_set(
    names: Collection[str],
    depth_scale: str,
    depth_invalid: str,
    transparency: Literal["white", "drop"],
) -> dict[str, Storage]:
    """Returns how the files of each data set are stored.

    Args:
        names: Names of the data sets.
        depth_scale: A value of `parse_scale` for all of them, or `name=value` pairs
            separated by commas; empty: the default.
        depth_invalid: The same for `parse_invalid`.
        transparency: See `Storage`.

    Raises:
        DataError: A value is invalid, or a name is that of no data set.
    """
    scales = by_name("config.stream.depth_scale", depth_scale, names)
    invalid = by_name("config.stream.depth_invalid", depth_invalid, names)
    found = {}
    for name in names:
        storage = Storage(transparency=transparency)
        if name in scales:
            fields = parse_scale("config.stream.depth_scale", scales[name])
            storage = dataclasses.replace(storage, **fields)
        if name in invalid:
            values = parse_invalid("config.stream.depth_invalid", invalid[name])
            storage = dataclasses.replace(storage, depth_invalid=values)
        found[name] = storage
    return found


def for_all(stream: Any) -> Storage:
    """Returns how files are stored that belong to no data set of a stream.

    Args:
        stream: Options of a source; what they say of single data sets does not count.
    """
    scale, invalid = (
        "" if "=" in (text := getattr(stream, name, "")) else text
        for name in ("depth_scale", "depth_invalid")
    )
    transparency: Any = getattr(stream, "transparency", Storage.transparency)
    return per_data_set([""], scale, invalid, transparency)[""]


def differs(stream: Any) -> bool:
    """Returns whether data sets of a stream may store depth in different ways."""
    return "=" in getattr(stream, "depth_scale", "") + getattr(
        stream, "depth_invalid", ""
    )


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
