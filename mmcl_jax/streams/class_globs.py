"""Globs on `<modality>/<dataset>/<class>`, by which options choose classes."""

import fnmatch
from collections.abc import Sequence


def globs(value: str | Sequence[str] | None) -> list[str]:
    """Returns the globs of an option, given as a sequence or separated by commas."""
    items = value.split(",") if isinstance(value, str) else value or ()
    return [item.strip().rstrip("/") for item in items if item.strip()]


def matches(glob: str, path: str, name: str) -> bool:
    """Returns whether a glob matches a class, or all of its data set or modality.

    Args:
        glob: Pattern of `<modality>`, `<modality>/<dataset>` or
            `<modality>/<dataset>/<class>`.
        path: `<modality>/<dataset>` of the class.
        name: Name of the class, in which brackets may stand for themselves.
    """
    paths = (path.split("/")[0], path, f"{path}/{name}")
    return glob in paths or any(fnmatch.fnmatchcase(p, glob) for p in paths)
