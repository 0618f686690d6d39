"""The figures of the pages are those that their script draws, and can be read."""

import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from tests import helpers

DOCS = helpers.REPOSITORY / "docs"
FOLDER = DOCS / "figures"
NUMBER = r"-?\d+\.\d+"
DRAW = helpers.load_tool("figures")
FIGURES = sorted(DRAW.FIGURES)


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_up_to_date(name: str) -> None:
    stored = (FOLDER / f"{name}.svg").read_text("utf-8")
    drawn = DRAW.FIGURES[name]()
    advice = "run `python docs/tools/figures.py`"
    assert re.sub(NUMBER, "#", stored) == re.sub(NUMBER, "#", drawn), advice
    # another machine may round the last digit otherwise
    places = [np.array(re.findall(NUMBER, svg), float) for svg in (stored, drawn)]
    assert places[0] == pytest.approx(places[1], abs=0.11), advice


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_small_and_for_dark_screens_too(name: str) -> None:
    path = FOLDER / f"{name}.svg"
    svg = path.read_text("utf-8")
    assert path.stat().st_size < 10_000
    assert "prefers-color-scheme: dark" in svg
    # what is written is in the reader's colour
    words = ET.fromstring(svg).findall("{http://www.w3.org/2000/svg}text")
    assert words and all("fill" not in word.attrib for word in words)
    # nothing is fetched
    assert re.findall(r"https?://[^\"<]*", svg) == ["http://www.w3.org/2000/svg"]


@pytest.mark.parametrize("name", FIGURES)
def test_nothing_is_written_outside_of_a_figure(name: str) -> None:
    root = ET.fromstring(DRAW.FIGURES[name]())
    *_, width, height = map(float, root.attrib["viewBox"].split())
    for word in root.iter("{http://www.w3.org/2000/svg}text"):
        letters = 8.5 * len(word.text or "")
        kind = word.attrib["class"]
        left = float(word.attrib["x"])
        left -= letters / 2 if "middle" in kind else letters if "end" in kind else 0
        assert left >= 0, word.text
        assert left + letters <= width + letters / 5, word.text
        assert 12 < float(word.attrib["y"]) < height, word.text


def test_all_are_shown_where_they_belong() -> None:
    shown = {
        page: set(re.findall(r"\(figures/(\w+)\.svg\)", (DOCS / page).read_text()))
        for page in ("method.md", "benchmark.md")
    }
    measured = {"transfer"}
    assert shown == {"method.md": set(FIGURES) - measured, "benchmark.md": measured}
    assert {path.stem for path in FOLDER.glob("*.svg")} == set(FIGURES)


def test_each_part_of_the_window_is_of_the_class_that_wins_there() -> None:
    logits = np.array([[1.0, 0.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 1.0, -0.5]])
    window = [(-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0)]
    found = [np.array(polygon) for polygon in DRAW.regions(logits, window)]
    areas = [
        abs(np.sum(p[:, 0] * np.roll(p[:, 1], -1) - p[:, 1] * np.roll(p[:, 0], -1))) / 2
        for p in found
    ]
    # the third is above the lines y = 0.5 + |x|, a triangle of height and half base 0.5
    assert areas == pytest.approx([1.875, 1.875, 0.25])
