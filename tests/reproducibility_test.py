"""REPRODUCIBILITY.md says of every method what was reproduced, and is up to date."""

import json
import pathlib
import re
import shutil

import pytest

from mmcl_jax import reproducibility
from mmcl_jax.methods import METHODS
from mmcl_jax.sweeps import aggregate
from tests import aggregate_test

ROOT = reproducibility.ROOT
TABLE = reproducibility.read_methods(ROOT)


def test_every_method_has_a_row() -> None:
    assert set(TABLE) == set(METHODS)


@pytest.mark.parametrize("name", TABLE)
def test_rows_are_whole(name: str) -> None:
    row = TABLE[name]
    assert row.keys() == {"paper", "published", "checked", "deviations"}
    assert row["checked"]
    for path in row["checked"]:
        assert (ROOT / path).is_file(), path
    for key in ("paper", "published", "deviations"):
        assert row[key]
        # a cell of a table
        assert not set(row[key]) & {"|", "\n"}


def test_the_page_is_up_to_date() -> None:
    stored = (ROOT / reproducibility.PAGE).read_text("utf-8")
    assert stored == reproducibility.page(ROOT), (
        "run `python -m mmcl_jax.reproducibility`"
    )


def test_stored_sweeps_are_shown(tmp_path: pathlib.Path) -> None:
    (tmp_path / "docs" / "results").mkdir(parents=True)
    shutil.copy(ROOT / "docs" / "reproduced.toml", tmp_path / "docs")
    assert "No sweep is stored yet." in reproducibility.page(tmp_path)
    report = aggregate.aggregate(aggregate_test.ENDED, "comm", "mine.py")
    path = tmp_path / "docs" / "results" / "mine.json"
    path.write_text(json.dumps(report))
    text = reproducibility.page(tmp_path)
    assert "### mine\n\n`--sweep=mine.py`, 7 runs, on jax 1.\n" in text
    assert "#### recurring" in text
    assert "60.0 ± 14.1<br>[50.0, 70.0]<br>50.0 70.0 |" in text


def test_the_readme_says_what_is_stored() -> None:
    report = json.loads((ROOT / "docs/results/interleaved.json").read_text("utf-8"))
    summaries = report["summaries"]["interleaved"]
    table = (ROOT / "README.md").read_text("utf-8").split("\n## Results\n", 1)[1]
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \| (.*?) \|$", table, re.MULTILINE)
    rows = [row for row in rows if "±" in row[1]]
    assert len(rows) > 4
    for name, *said in rows:
        keys = "last_average_accuracy", "forgetting_chaudhry"
        for value, key in zip(said, keys, strict=True):
            found = summaries[name][f"predicted/{key}"]
            mean, deviation = found["mean"], found["deviation"]
            assert value == (
                "-" if mean is None else f"{100 * mean:.1f} ± {100 * deviation:.1f}"
            )


def test_the_benchmarks_page_says_what_is_stored() -> None:
    report = json.loads((ROOT / "docs/results/interleaved.json").read_text("utf-8"))
    summaries = report["summaries"]["interleaved"]
    page = (ROOT / "docs" / "benchmark.md").read_text("utf-8")
    table = page.split("| method | runs |", 1)[1].split("\n\n", 1)[0]
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in table.splitlines()[2:]
    ]
    assert {row[0].strip("`") for row in rows} == summaries.keys()
    columns = {
        2: "predicted/last_average_accuracy",
        3: "given/last_average_accuracy",
        4: "within/last_average_accuracy",
        6: "predicted/forgetting_chaudhry",
        7: "predicted/excess_forgetting",
    }
    for row in rows:
        found = summaries[row[0].strip("`")]
        for column, name in columns.items():
            mean, deviation = found[name]["mean"], found[name]["deviation"]
            said = "-" if mean is None else f"{100 * mean:.1f} ± {100 * deviation:.1f}"
            assert row[column] == said, (row[0], name)
        assert int(row[1]) == len(found["predicted/last_average_accuracy"]["values"])
        name = row[0].strip("`")
        if name != report["baseline"]:
            less = report["differences"]["interleaved"][name][
                "predicted/last_average_accuracy"
            ]
            mean, low, high = (100 * less[key] for key in ("mean", "low", "high"))
            assert row[5] == f"{mean:+.1f} [{low:+.1f}, {high:+.1f}]", name
        for column, key in ((8, "bytes_remembered"), (9, "bytes_per_class")):
            assert row[column] == _bytes(report["cost"][name][key]), (name, key)


def _bytes(number: float) -> str:
    for unit, size in (("MiB", 2**20), ("KiB", 2**10)):
        if number > size:
            return f"{number / size:.1f} {unit}"
    return f"{number:.0f} B"
