"""Lists of files in published data sets."""

import pathlib
from collections.abc import Collection, Iterable, Iterator

from mmcl_jax.errors import DataError, Faults, check_bytes, reading
from mmcl_jax.streams.manifest import Row

_MAX_BYTES = 64 * 2**20


def read_lines(path: pathlib.Path, expected: str) -> Iterator[tuple[str, str]]:
    """Yields the place of each line that is not empty, as `path:number`, and its text.

    Raises:
        DataError: The file is missing, too large or no UTF-8.
    """
    with reading(str(path), expected):
        check_bytes(path, _MAX_BYTES)
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    for number, line in enumerate(lines, 1):
        if line.strip():
            yield f"{path}:{number}", line.strip()


def relative(where: str, path: str, faults: Faults) -> str | None:
    """Returns a listed path if it stays in its folder; else None, and a fault."""
    parts = pathlib.PurePosixPath(path).parts
    if not parts or ".." in parts or parts[0] == "/":
        faults.errors.append(f"{where}: {path!r}; expected a path inside of the data")
        return None
    return "/".join(parts)


def present(root: pathlib.Path, rows: Iterable[Row], faults: Faults) -> list[Row]:
    """Returns the rows whose files are there, sorted by path; others are faults.

    A file that is listed twice for one class is taken once.
    """
    kept: dict[str, Row] = {}
    for row in rows:
        other = kept.setdefault(row.path, row)
        if other != row:
            faults.errors.append(
                f"{root / row.path}: listed as {other.label!r} of {other.split!r} and "
                f"as {row.label!r} of {row.split!r}; remove one of the lines"
            )
        elif other is row and not (root / row.path).is_file():
            faults.errors.append(
                f"{root / row.path}: listed, but there is no such file"
            )
    return [kept[path] for path in sorted(kept) if (root / path).is_file()]


def one_of(root: pathlib.Path, names: Collection[str], what: str) -> pathlib.Path:
    """Returns the first of several folders that is there.

    Raises:
        DataError: None is.
    """
    for name in names:
        if (root / name).is_dir():
            return root / name
    raise DataError(f"{root}: no folder {' or '.join(names)} with {what}")
