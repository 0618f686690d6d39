"""Small files that a run, a user or another program has written."""

import json
import pathlib
import traceback
from typing import Any

from mmcl_jax.errors import DataError, check_bytes, reading

# of such text some thirty times as much memory is needed at worst
MAX_JSON_BYTES = 16 * 2**20

# in a clone, a link to the folder of the repository
CONFIGS = pathlib.Path(__file__).parent / "configs"


def shipped(path: str | pathlib.Path) -> pathlib.Path:
    """Returns `configs/...` of the package where there is no such file, else `path`.

    So that a command reads in a folder of one's own as it does in a clone.
    """
    given = pathlib.Path(path)
    if given.is_file() or given.parts[:1] != ("configs",):
        return given
    own = CONFIGS.joinpath(*given.parts[1:])
    return own if own.is_file() else given


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


def raised_in(path: str | pathlib.Path, error: BaseException) -> str | None:
    """Says on which line of a user's Python file an error was raised; None: outside."""
    file = pathlib.Path(path).resolve()
    frames = traceback.extract_tb(error.__traceback__)
    lines = [f.lineno for f in frames if pathlib.Path(f.filename).resolve() == file]
    if isinstance(error, SyntaxError) and error.filename:
        if pathlib.Path(error.filename).resolve() == file:
            lines = [error.lineno]
    if not lines:
        return None
    what = error.msg if isinstance(error, SyntaxError) else error
    return f"{path}, line {lines[-1]}: {type(error).__name__}: {what}"


def write_json(path: pathlib.Path, value: Any) -> None:
    """Writes a JSON file at once; what is not finite raises `ValueError`."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def write_text(path: pathlib.Path, text: str) -> None:
    """Writes a file at once, so that a reader never finds half of it."""
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
