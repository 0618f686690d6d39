"""Small files written by a run, a user or another program."""

import json
import os
import pathlib
import re
import traceback
from collections.abc import Callable, Iterator
from typing import IO, Annotated, Any

from mmcl_jax.errors import ConfigError, DataError, check_bytes, reading

# an untrusted file: parsed JSON takes up to some thirty times its size in memory
MAX_JSON_BYTES = 16 * 2**20

# of a YAML text with everything that it refers to written out
_MAX_YAML_NODES = 2**20
_MAX_YAML_NUMBER = 100  # characters

# in a clone of the repository, a link to its folder `configs`
CONFIGS = pathlib.Path(__file__).parent / "configs"

# What file managers and file servers leave everywhere, and nobody means as data.
_JUNK = (
    *(".ds_store", "__macosx", "icon\r"),
    *("thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin"),
    *("system volume information", ".directory", "lost+found", "__pycache__"),
    *("@eadir", "#recycle"),
)


def expanded(text: str, before: str = "") -> str:
    """Returns a path that a user has written, with `~` replaced by the home folder.

    Shells do that in few places: not in `--workdir=~/runs`.

    Args:
        text: The path, or a text that holds paths.
        before: Regular expression of what may precede a path in the text, besides its
            beginning.

    Raises:
        ConfigError: There is no such user as in `~user`; otherwise a folder of that
            name would be made.
    """

    def expand(match: re.Match[str]) -> str:
        front, home = match.groups()
        found = os.path.expanduser(home)
        if found.startswith("~") and not os.path.lexists(home):
            raise ConfigError(
                f"{text!r}: no user has the home folder {home!r}; write './{home}' for "
                "a file or folder of that name"
            )
        return front + found

    start = f"^(?:{before})?|(?:{before})" if before else "^"
    return re.sub(f"({start})(~[^/]*)", expand, text)


# a field of a config that is a path
Path = Annotated[str, expanded]


def split_argument(
    text: str, find: Callable[[str], pathlib.Path] | None = None
) -> tuple[pathlib.Path, str]:
    """Returns the file and the argument of `FILE.py:ARGUMENT`.

    Both may contain colons: the file is the longest beginning that is one.

    Args:
        text: What a user has written.
        find: Function that finds a file by its name; None: `shipped`.
    """
    find, pieces = find or shipped, text.split(":")
    for n in range(len(pieces), 0, -1):
        path = find(":".join(pieces[:n]))
        if path.is_file():
            return path, ":".join(pieces[n:])
    return find(pieces[0]), ":".join(pieces[1:])


def split_paths(text: str) -> list[str]:
    """Returns the paths in a list with commas between them.

    A path may itself have commas: the longest part of the list that exists is one.
    """
    pieces, found = text.split(","), []
    while pieces:
        n, path = len(pieces), ""
        for n in range(len(pieces), 0, -1):
            path = expanded(",".join(pieces[:n]).strip())
            if os.path.exists(path):
                break
        pieces = pieces[n:]
        if path:
            found.append(path)
    return found


def shipped(path: str | pathlib.Path) -> pathlib.Path:
    """Returns `configs/...` of the package where there is no such file, else `path`.

    So a command works in any folder as it does in a clone of the repository.
    """
    given = pathlib.Path(expanded(str(path)))
    if given.is_file() or given.parts[:1] != ("configs",):
        return given
    own = CONFIGS.joinpath(*given.parts[1:])
    return own if own.is_file() else given


def read_json(path: pathlib.Path, expected: str = "a JSON object") -> dict[str, Any]:
    """Reads a JSON file whose outermost value is an object.

    Args:
        path: Path of the file.
        expected: What the file should be, for the message.

    Raises:
        DataError: The file is absent, unreadable, damaged, larger than 16 MiB, or of
            another kind; the message names it.
    """
    with reading(str(path), expected):
        check_bytes(path, MAX_JSON_BYTES)
        value = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(value, dict):
            raise DataError(f"{path}: a {type(value).__name__}; expected {expected}")
        return value


def parse_yaml(text: str) -> Any:
    """Returns what a YAML text holds, built of plain types alone.

    Each of a row of names for parts of the text, or of keys that merge such parts, may
    double what the one before has made: a kilobyte holds more than any memory. And a
    long number to the base 60, such as 1:30:00, takes quadratic time.

    Raises:
        ValueError, yaml.YAMLError: It is not YAML, or is made to grow like that.
    """
    import yaml  # takes a while, and is rarely needed

    node = yaml.compose(text, Loader=yaml.SafeLoader)
    if node is None:
        return None
    if _written_out(node, {}) > _MAX_YAML_NODES:
        raise ValueError(
            f"more than {_MAX_YAML_NODES} values once its aliases (*name) and merge "
            "keys (<<) are written out; write fewer"
        )
    return yaml.SafeLoader("").construct_document(node)


def _written_out(node: Any, known: dict[int, float]) -> float:
    """Returns how many values a node of YAML holds, infinity if it holds itself."""
    if id(node) not in known:
        known[id(node)] = float("inf")
        parts = node.value
        if isinstance(parts, str):
            number = node.tag.endswith((":int", ":float"))
            if number and len(parts) > _MAX_YAML_NUMBER:
                raise ValueError(f"a number of {len(parts)} characters; quote it")
            parts = []
        elif node.id == "mapping":
            parts = [part for pair in parts for part in pair]
        known[id(node)] = 1.0 + sum(_written_out(part, known) for part in parts)
    return known[id(node)]


def raised_in(path: str | pathlib.Path, error: BaseException) -> str | None:
    """Returns the line of a user's file that raised an error; None: outside of it."""
    file = pathlib.Path(path).resolve()
    frames = traceback.extract_tb(error.__traceback__)
    lines = [f.lineno for f in frames if pathlib.Path(f.filename).resolve() == file]
    # a syntax error in the file itself has no frame there
    if isinstance(error, SyntaxError) and error.filename:
        if pathlib.Path(error.filename).resolve() == file:
            lines = [error.lineno]
    if not lines:
        return None
    what = error.msg if isinstance(error, SyntaxError) else error
    return f"{path}, line {lines[-1]}: {type(error).__name__}: {what}"


def write_json(path: pathlib.Path, value: Any) -> None:
    """Writes a JSON file atomically; a number that is not finite is a `ValueError`."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def write_text(path: pathlib.Path, text: str) -> None:
    """Writes a file atomically, so that a reader never finds half of it."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: pathlib.Path, content: bytes) -> None:
    """Writes a file atomically, so that a reader never finds half of it."""
    # beside the file, since a rename is atomic within one file system only
    temporary = path.with_name(f"{path.name}.tmp")
    with temporary.open("wb") as file:
        file.write(content)
        keep(file)
    temporary.replace(path)


def keep(file: IO[Any]) -> None:
    """Waits until what was written is on the disk.

    A rename may otherwise be there after a power cut, and the content not.
    """
    file.flush()
    os.fsync(file.fileno())


def is_junk(name: str) -> bool:
    """Returns whether file managers and servers leave entries of this name."""
    return name.lower() in _JUNK or name.startswith("._")


def files_below(path: str) -> Iterator[str]:
    """Yields a file, or all below a folder, sorted, except hidden ones and junk."""
    path = expanded(path)
    if not os.path.isdir(path):
        yield path
        return
    for folder, folders, names in os.walk(path):
        folders[:] = sorted(name for name in folders if _meant(name))
        for name in sorted(names):
            if _meant(name):
                yield os.path.join(folder, name)


def _meant(name: str) -> bool:
    return not name.startswith(".") and not is_junk(name)
