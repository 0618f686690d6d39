"""References of samples as plain JSON values, and back.

So a run can keep lists of its samples: where they are, never what they hold.
"""

import dataclasses
import os
from collections.abc import Callable, Sequence
from typing import Any

from mmcl_jax.modalities.base import (
    FileReference,
    Reference,
    Storage,
    TextReference,
    UnreadableReference,
)
from mmcl_jax.streams.base import Record
from mmcl_jax.streams.procedural import WorldReference
from mmcl_jax.streams.shards import RowReference
from mmcl_jax.streams.tfds import RecordReference

# by the name that is stored: each class, and the field that is a place on disk
_KINDS: dict[str, tuple[type, str | None]] = {
    "file": (FileReference, "path"),
    "row": (RowReference, "path"),
    "record": (RecordReference, "folder"),
    "text": (TextReference, None),
    "world": (WorldReference, None),
    "unreadable": (UnreadableReference, None),
}
_NAMES = {kind: name for name, (kind, _) in _KINDS.items()}


def to_json(records: Sequence[Record]) -> list[list[Any]]:
    """Returns a list `[kind, fields, label, id]` for each record; paths are absolute.

    Raises:
        TypeError: A reference is of a class that cannot be stored.
    """
    rows = []
    for record in records:
        reference: Any = record.reference
        name = _NAMES.get(type(reference))
        if name is None:
            raise TypeError(f"{type(reference).__name__}: not a stored reference")
        fields = dataclasses.asdict(reference)
        if (place := _KINDS[name][1]) is not None:
            fields[place] = os.path.abspath(fields[place])
        plain = {f.name: f.default for f in dataclasses.fields(reference)}
        kept = {key: value for key, value in fields.items() if value != plain[key]}
        rows.append([name, kept, record.label, record.id])
    return rows


def from_json(
    rows: Sequence[Sequence[Any]], relocate: Callable[[str], str] = lambda path: path
) -> tuple[Record, ...]:
    """Returns the records that `to_json` stored.

    Args:
        rows: What `to_json` has returned.
        relocate: Function from a stored place to where it is now.

    Raises:
        KeyError, TypeError, ValueError: It is not what `to_json` has returned.
    """
    return tuple(
        Record(_reference(name, fields, relocate), int(label), int(number))
        for name, fields, label, number in rows
    )


def _reference(
    name: str, fields: dict[str, Any], relocate: Callable[[str], str]
) -> Reference:
    kind, place = _KINDS[name]
    fields = dict(fields)
    if fields.get("storage") is not None:
        storage = fields["storage"]
        invalid = tuple(storage.get("depth_invalid", ()))
        fields["storage"] = Storage(**storage | {"depth_invalid": invalid})
    if place is not None:
        fields[place] = relocate(fields[place])
    return kind(**fields)


def is_there(reference: Reference) -> bool:
    """Returns whether what a reference points to exists, without reading it."""
    place = _KINDS[_NAMES[type(reference)]][1]
    return place is None or os.path.exists(getattr(reference, place))
