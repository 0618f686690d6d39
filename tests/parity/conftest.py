"""Doctests are looked for in every module; those that need torch have none."""

import pathlib
import re

_NEEDS = re.compile(r"^import (torch|transformers)\b", re.M)
collect_ignore = [
    path.name
    for path in pathlib.Path(__file__).parent.glob("*.py")
    if _NEEDS.search(path.read_text(encoding="utf-8"))
]
