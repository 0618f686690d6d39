"""The benches of feed and growth run, and what they count is so."""

import json
import pathlib
from typing import Any

import pytest

from tests import helpers
from tests.bench import feed, growth, table


def _measured(bench: str, path: pathlib.Path, *flags: str) -> dict[str, Any]:
    """Returns what a bench writes, run as a program on one device."""
    flags = ("--size=tiny", f"--out={path}", *flags)
    started = helpers.start(
        "-m", f"tests.bench.{bench}", flags=flags, workdir=path.parent
    )
    done = started.finish()
    assert done.code == 0, done.errors
    return json.loads(path.read_text())


def test_growth_counts_bytes_and_programs(tmp_path: pathlib.Path):
    path = tmp_path / "growth.json"
    found = _measured("growth", path, "--method=ridge")
    short, long = found["memory"]
    assert long["tasks"] == 2 * short["tasks"]
    assert short["programs"] == long["programs"]
    for row in (short, long):
        assert row["bytes"] == row["bytes said"]
    # there is room for 64 classes from the start
    assert long["bytes"] == short["bytes"]
    assert short["per class"] > 0 == short["per task"]
    assert {"prepare", "end_task", "predict", "task"} <= set(found["along"])


@pytest.mark.full("benches")
def test_feed_measures_every_modality(tmp_path: pathlib.Path):
    feed.write_files(tmp_path / "files", samples=1)
    there = {path.parts[-5] for path in (tmp_path / "files").glob("*/*/*/*/*")}
    assert there == set(feed.MODALITIES)
    path = tmp_path / "feed.json"
    found = _measured("feed", path)["feed"]
    assert list(found) == list(feed.MODALITIES)
    for row in found.values():
        assert all(row[kind][1] > 0 for kind in feed.KINDS)


def test_medians_stand_between_quartiles():
    assert table.spread([4.0, 1.0, 2.0, 3.0, 5.0]) == (2.0, 3.0, 4.0)
    assert growth.exponent([10, 50, 200], [1.0, 25.0, 400.0]) == pytest.approx(2)
    assert growth.exponent([10, 10], [1.0, 2.0]) is None
