"""The benches of feed and growth run, and what they count is so."""

import json
import pathlib

import pytest

from tests.bench import feed, growth, table


def test_growth_counts_bytes_and_programs(tmp_path: pathlib.Path):
    path = tmp_path / "growth.json"
    growth.main(["--size=tiny", "--method=ridge", f"--out={path}"])
    found = json.loads(path.read_text())
    short, long = found["memory"]
    assert long["tasks"] == 2 * short["tasks"]
    assert short["programs"] == long["programs"]
    for row in (short, long):
        assert row["bytes"] == row["bytes said"]
    more = 2 * 2 * short["per class"] + 2 * short["per task"]
    assert long["bytes"] - short["bytes"] == more
    assert {"prepare", "end_task", "predict", "task"} <= set(found["along"])


def test_feed_measures_every_modality(tmp_path: pathlib.Path):
    feed.write_files(tmp_path / "files", samples=1)
    there = {path.parts[-5] for path in (tmp_path / "files").glob("*/*/*/*/*")}
    assert there == set(feed.MODALITIES)
    path = tmp_path / "feed.json"
    feed.main(["--size=tiny", f"--out={path}"])
    found = json.loads(path.read_text())["feed"]
    assert list(found) == list(feed.MODALITIES)
    for row in found.values():
        assert all(row[kind][1] > 0 for kind in feed.KINDS)


def test_medians_stand_between_quartiles():
    assert table.spread([4.0, 1.0, 2.0, 3.0, 5.0]) == (2.0, 3.0, 4.0)
    assert growth.exponent([10, 50, 200], [1.0, 25.0, 400.0]) == pytest.approx(2)
    assert growth.exponent([10, 10], [1.0, 2.0]) is None
