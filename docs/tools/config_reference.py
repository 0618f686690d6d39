"""Writes docs/config.md: `python docs/tools/config_reference.py`.

The page is made of the dataclasses that `config.py` is made of: types and defaults of
their fields, and the meanings that their docstrings give.
"""

import argparse
import inspect
import pathlib
import re

from mmcl_jax.cli.reference import sections, summary
from mmcl_jax.cli.shorthand import SHORT_KEYS
from mmcl_jax.models.adapters import ADAPTERS

ROOT = pathlib.Path(__file__).parents[2]
PAGE = "docs/config.md"

_HEAD = """\
# Every key of a config

Written by `python docs/tools/config_reference.py` from the dataclasses that
`mmcl_jax/config.py` is made of; a test checks that it is up to date.

Any key can be set by a flag after `--config=FILE.py`, for instance
`--config.train.epochs=4`. `None` is written as such
(`--config.method.comm.self_weight=None`), a list with quotes
(`--config.stream.modalities="('image', 'audio')"`) or with commas
(`--config.stream.modalities=image,audio`); a text that contains a comma needs quotes
(`--config.encoder.templates="'a photo of a {}, a type of pet.'"`). The defaults below
are those of the code; a config file may set others, and it alone determines the kind of
stream. An unknown key, a value out of range or of another type is an error that names
the key, before anything starts. The config of a run is `config.json` in its workdir.

Short arguments follow the file's name after a colon, as in
`--config=configs/demo.py:smoke,method=ridge`:

| short | sets |
|---|---|
"""


def page() -> str:
    """Returns what docs/config.md holds."""
    short = [f"| `{key}=` | `config.{path}` |" for key, path in SHORT_KEYS.items()]
    short.append("| `seed=` | all keys of `config.seeds` |")
    text = _HEAD + "\n".join(short) + "\n"
    for path, about, rows in sections():
        kinds = [row.default for row in rows if row.key == "config.stream.kind"]
        text += f"\n## {path}{''.join(f', {kind[1:-1]}' for kind in kinds)}\n\n"
        text += f"{about}\n\n| key | values | default | meaning |\n|---|---|---|---|\n"
        for row in rows:
            name = row.key.removeprefix(f"{path}.")
            text += f"| `{name}` | {row.kind} | `{row.default}` | {row.meaning} |\n"
        if path == "config.method.adapter":
            text += _adapters()
    return re.sub(r"`docs/(\w+\.md)`", r"[\1](\1)", text)


def _adapters() -> str:
    """Returns a table of the kinds of adapters and the keys that each reads."""
    text = "\n| kind | is | reads |\n|---|---|---|\n"
    for name, make in ADAPTERS.items():
        about = summary(make).removeprefix("Returns ")
        reads = ", ".join(f"`{key}`" for key in inspect.signature(make).parameters)
        text += f"| `{name}` | {about} | {reads} |\n"
    return text


def main() -> None:
    """Writes the page."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    (ROOT / PAGE).write_text(page(), "utf-8")


if __name__ == "__main__":
    main()
