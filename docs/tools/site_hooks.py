"""Hooks of MkDocs: the pages of the repository at their places, and an API reference.

Links work on the site as they do in the repository, where a page links files beside
`docs/`: pages keep their paths, and files that they link come along.
"""

# the type checker need not have the extra `docs`
# pyright: reportMissingImports=false

import pathlib
import re
from collections.abc import Iterator
from typing import Any

import griffe
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = pathlib.Path(__file__).parents[2]
# rooms of the package that others import, in the order of docs/design.md
ROOMS = (
    *("types", "errors", "config", "plugins", "modalities", "models", "streams"),
    *("methods", "ops", "evaluation", "analysis", "serving", "sweeps", "workdir"),
)
_FENCE = re.compile(r"^```(\w+) (\S+)$", re.MULTILINE)
_DOCTEST = re.compile(r"^(?:>>> .*\n?)(?:.+\n?)*", re.MULTILINE)
_LINK = re.compile(r"\]\(([^)\s#]+)(?:#[^)\s]*)?\)")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Adds the pages of the API reference to the navigation."""
    pages = [{"mmcl_jax": "api/index.md"}]
    pages += [{room: f"api/{room}.md"} for room in ROOMS]
    config.nav = [*(config.nav or []), {"API": pages}]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Returns the files of the site."""
    found = {path.relative_to(ROOT).as_posix(): path for path in pages()}
    for path in list(found.values()):
        for linked in linked_files(path):
            found.setdefault(linked.relative_to(ROOT).as_posix(), linked)
    made = [
        File.generated(config, name, abs_src_path=str(path))
        for name, path in found.items()
    ]
    made += [
        File.generated(config, f"api/{name}.md", content=text)
        for name, text in reference().items()
    ]
    folder = str(ROOT / "docs")
    of_theme = [f for f in files if not (f.abs_src_path or "").startswith(folder)]
    return Files([*of_theme, *made])


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Returns a page whose blocks of code have the names of their files as titles."""
    return _FENCE.sub(r'```\1 title="\2"', markdown)


class Doctests(griffe.Extension):
    """Makes blocks of code of examples in docstrings, which Markdown would quote."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Changes the docstring of an object."""
        if obj.docstring is not None:
            text = _DOCTEST.sub(r"```pycon\n\g<0>\n```\n", obj.docstring.value)
            obj.docstring.value = text


def pages() -> list[pathlib.Path]:
    """Returns the pages of the repository."""
    card = ROOT / "mmcl_jax" / "models" / "assets" / "README.md"
    in_docs = sorted([*ROOT.glob("docs/*.md"), *ROOT.glob("docs/results/*.md")])
    return [*sorted(ROOT.glob("*.md")), *in_docs, card]


def linked_files(page: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields the files of the repository that a page links, besides pages."""
    for target in _LINK.findall(page.read_text(encoding="utf-8")):
        path = (page.parent / target).resolve()
        if "://" not in target and path.is_file() and path.is_relative_to(ROOT):
            yield path


def reference() -> dict[str, str]:
    """Returns the pages of the API reference, in Markdown of mkdocstrings."""
    found = {"index": "# mmcl_jax\n\n::: mmcl_jax\n"}
    for room in ROOMS:
        parts = "".join(f"\n::: mmcl_jax.{name}\n" for name in modules(room))
        found[room] = f"# {room}\n{parts}"
    return found


def modules(room: str) -> list[str]:
    """Returns the names of a room's modules, without those that others do not use."""
    package = ROOT / "mmcl_jax"
    if (package / f"{room}.py").is_file():
        return [room]
    names = (
        path.relative_to(package).with_suffix("").as_posix().replace("/", ".")
        for path in sorted((package / room).rglob("*.py"))
    )
    return [name for name in names if not name.rpartition(".")[2].startswith("_")]
