"""The figures of docs are those that their script draws, and can be read."""

import functools
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
# of the benchmark, where all others are of the method
MEASURED = {"transfer"}


@functools.cache
def of_method(name: str) -> str:
    """Returns a figure as SVG, drawn once."""
    return DRAW.FIGURES[name]()


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_up_to_date(name: str) -> None:
    is_up_to_date(name, of_method(name))


def is_up_to_date(name: str, drawn: str) -> None:
    stored = (FOLDER / f"{name}.svg").read_text("utf-8")
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
    root = ET.fromstring(of_method(name))
    *_, width, height = map(float, root.attrib["viewBox"].split())
    for word in root.iter("{http://www.w3.org/2000/svg}text"):
        letters = 8.5 * len(word.text or "")
        kind = word.attrib["class"]
        left = float(word.attrib["x"])
        left -= letters / 2 if "middle" in kind else letters if "end" in kind else 0
        assert left >= 0, word.text
        assert left + letters <= width + letters / 5, word.text
        assert 12 < float(word.attrib["y"]) < height, word.text


def test_charts_of_the_benchmark_are_those_of_its_stored_runs() -> None:
    charts = DRAW.charts()
    for name, drawn in charts.items():
        is_up_to_date(name, drawn)
        assert len(drawn) < 36_000
        ET.fromstring(drawn)
        assert "prefers-color-scheme:dark" in drawn and "--ink:#e8ebef" in drawn
        assert set(re.findall(r"https?://[^\"<]*", drawn)) == {
            "http://www.w3.org/2000/svg",
            "http://www.w3.org/1999/xlink",
        }
    assert shown("benchmark") == set(charts) | MEASURED


def shown(page: str) -> set[str]:
    text = (DOCS / f"{page}.md").read_text("utf-8")
    return set(re.findall(r"\(figures/([\w-]+)\.svg\)", text))


def test_all_are_shown_where_the_method_is_explained() -> None:
    assert shown("method") == set(FIGURES) - MEASURED
    stored = {path.stem for path in FOLDER.glob("*.svg")}
    assert stored == set(FIGURES) | shown("benchmark")


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
