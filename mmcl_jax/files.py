"""Small files that a run, or another program, has written."""

import json
import pathlib
from typing import Any

from mmcl_jax.modalities.base import DataError, check_bytes, reading

# of such text some thirty times as much memory is needed at worst
MAX_JSON_BYTES = 16 * 2**20


def read_json(path: pathlib.Path, expected: str = "a JSON object") -> dict[str, Any]:
    """Reads a JSON file whose outermost value is an object.

    Args:
        path: of the file.
        expected: what the file should be, for the message.

    Raises:
        DataError: absent, unreadable, damaged, larger than 16 MiB, or of another kind;
            the message names the file.
    """
    with reading(str(path), expected):
        check_bytes(path, MAX_JSON_BYTES)
        value = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(value, dict):
            raise DataError(f"{path}: a {type(value).__name__}; expected {expected}")
        return value


def write_text(path: pathlib.Path, text: str) -> None:
    """Writes a file at once, so that a reader never finds half of it."""
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
