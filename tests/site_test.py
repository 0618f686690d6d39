"""The documentation builds as a site, without a warning, and links nothing outside."""

import os
import pathlib
import re
import subprocess
import sys
from importlib.util import find_spec

import pytest

from tests import helpers

ROOT = helpers.REPOSITORY
CONFIG = ROOT / "docs" / "tools" / "mkdocs.yml"
NEEDS = ("mkdocs", "material", "mkdocstrings", "mkdocstrings_handlers")


def test_every_page_has_its_place_in_the_navigation() -> None:
    listed = re.findall(r": (\S+\.md)$", CONFIG.read_text("utf-8"), re.MULTILINE)
    assert len(set(listed)) == len(listed)
    found = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("docs/results/*")]
    pages = {str(p.relative_to(ROOT)) for p in found if p.suffix == ".md"}
    assert set(listed) == pages | {"mmcl_jax/models/assets/README.md"}


@pytest.mark.full("pages")
@pytest.mark.skipif(
    not all(map(find_spec, NEEDS)), reason="the extra `docs` is not installed"
)
def test_the_site_builds_without_a_warning(tmp_path: pathlib.Path) -> None:
    site = tmp_path / "site"
    words = ["-m", "mkdocs", "build", "--strict", "-f", str(CONFIG), "-d", str(site)]
    done = subprocess.run(
        [sys.executable, *words], env=os.environ, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    texts = {p: p.read_text("utf-8") for p in site.rglob("*.html")}
    of_api = texts[site / "api" / "methods" / "index.html"]
    assert 'id="mmcl_jax.methods.base.Method"' in of_api
    guide = texts[site / "docs" / "extending" / "index.html"]
    assert "my_method.py</span>" in guide and "```" not in guide
    # doctests are code, no quotations
    summary = texts[site / "api" / "analysis" / "index.html"]
    assert "<blockquote>" not in summary
    for path, text in texts.items():
        parts = re.findall(
            r"<(?:script|img|link)[^>]* (?:src|href)=\"?([^\"> ]+)", text
        )
        for target in parts if path.name != "404.html" else ():
            assert (path.parent / target).exists(), (path, target)
