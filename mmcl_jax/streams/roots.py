"""The folder that paths in a table are relative to, and may not lead out of."""

import os
import pathlib
import re
import unicodedata

# of the web or of a store; of its two slashes, one is left in a normalized path
_ADDRESS = re.compile(r"[a-z][a-z0-9+]+:/", re.IGNORECASE)


class Root:
    """A folder of files that a table lists."""

    def __init__(self, folder: pathlib.Path, follow_links: bool = False) -> None:
        """Stores the folder.

        Args:
            folder: The folder.
            follow_links: Whether links may lead out of it.
        """
        self._real = os.path.realpath(folder)
        self._follow_links = follow_links
        # Resolved folders: a folder has many files, and resolving one takes many calls.
        self._folders: dict[str, str] = {}

    def complaint(self, path: str) -> str | None:
        """Returns the fault of a normalized path, or None."""
        if any(unicodedata.category(character) == "Cc" for character in path):
            return f"{path!r} has a control character; rename the file"
        if _ADDRESS.match(path):
            return f"{path}: an address; download the file and write its path"
        if os.path.isabs(path):
            return f"{path}: expected a path relative to the folder of the table"
        if path.split(os.sep)[0] == os.pardir:
            return f"{path}: leads out of {self._real}; copy the file there"
        parent, name = os.path.split(os.path.join(self._real, path))
        if parent not in self._folders:
            self._folders[parent] = os.path.realpath(parent)
        file = os.path.join(self._folders[parent], name)
        if os.path.islink(file):
            file = os.path.realpath(file)
        inside = os.path.commonpath([self._real, file]) == self._real
        if not inside and not self._follow_links:
            return (
                f"{path}: a link that leads out of {self._real}; copy the file there, "
                "or allow such links by --config.stream.follow_links=True"
            )
        if not os.path.isfile(file):
            return f"{path}: {_absence(file)}"
        return None


def _absence(file: str) -> str:
    if os.path.isdir(file):
        return "a folder; expected a file"
    if "\\" in file and os.path.isfile(file.replace("\\", "/")):
        return "no such file; write / in place of \\ between folders"
    for form in ("NFC", "NFD"):
        other = unicodedata.normalize(form, file)
        if other != file and os.path.isfile(other):
            return (
                "no such file, but one of the same name in another Unicode form "
                f"({form}); write its name in that form"
            )
    return "no such file"
