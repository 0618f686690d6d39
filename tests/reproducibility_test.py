"""REPRODUCIBILITY.md says of every method what was reproduced, and is up to date."""

import json
import pathlib
import re
import shutil

import pytest

from mmcl_jax.methods.registry import METHODS
from mmcl_jax.sweeps import aggregate
from tests import aggregate_test, helpers

reproducibility = helpers.load_tool("reproducibility")
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


def test_the_pages_are_up_to_date() -> None:
    made = reproducibility.pages(ROOT)
    tables = {str(p.relative_to(ROOT)) for p in (ROOT / "docs/results").glob("*.md")}
    assert made.keys() == {reproducibility.PAGE} | tables
    for path, text in made.items():
        advice = f"{path}: run `python docs/tools/reproducibility.py`"
        assert (ROOT / path).read_text("utf-8") == text, advice


def test_the_page_is_short() -> None:
    assert (ROOT / reproducibility.PAGE).stat().st_size < 15_000


def test_stored_sweeps_are_shown(tmp_path: pathlib.Path) -> None:
    (tmp_path / "docs" / "results").mkdir(parents=True)
    shutil.copy(ROOT / "docs" / "reproduced.toml", tmp_path / "docs")
    (text,) = reproducibility.pages(tmp_path).values()
    assert "No sweep is stored yet." in text
    report = aggregate.aggregate(aggregate_test.ENDED, "comm", "mine.py")
    path = tmp_path / "docs" / "results" / "mine.json"
    path.write_text(json.dumps(report))
    made = reproducibility.pages(tmp_path)
    assert "| [mine](docs/results/mine.md) | 7 | jax 1 |" in made["REPRODUCIBILITY.md"]
    text = made["docs/results/mine.md"]
    assert "`--sweep=mine.py`, 7 runs, on jax 1.\n" in text
    assert "\n## recurring\n" in text
    assert "60.0 ± 14.1<br>[-67.1, 187.1]<br>50.0 70.0 |" in text


def test_the_readme_says_what_is_stored() -> None:
    report = json.loads((ROOT / "docs/results/interleaved.json").read_text("utf-8"))
    summaries = report["summaries"]["interleaved"]
    page = (ROOT / "README.md").read_text("utf-8")
    table = page.split("\n## Methods\n", 1)[1].split("\n## ", 1)[0]
    rows = re.findall(r"^\| `(\w+)` \| .*? \| (.*?) \| .*\|$", table, re.MULTILINE)
    assert {name for name, _ in rows} == set(METHODS)
    for name, said in rows:
        if name not in summaries:
            assert said == "–", name
            continue
        found = summaries[name]["predicted/last_average_accuracy"]
        assert said == f"{100 * found['mean']:.1f} ± {100 * found['deviation']:.1f}"


@pytest.mark.parametrize(
    ("sweep", "first"), [("ablations", 1), ("ablations_prompts", 4)]
)
def test_the_ablations_say_what_is_stored(sweep: str, first: int) -> None:
    report = json.loads((ROOT / f"docs/results/{sweep}.json").read_text("utf-8"))
    summaries = report["summaries"]["interleaved"]
    page = (ROOT / "docs" / "benchmark.md").read_text("utf-8")
    table = page.split("| what is changed |", 1)[1].split("\n\n", 1)[0]
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in table.splitlines()[2:]
    ]
    assert len(rows) > 15
    for row in rows:
        name = {"the base": "comm"}.get(row[0], row[0].strip("`"))
        last, less, forgetting = row[first : first + 3]
        if name not in summaries:
            assert not last + less + forgetting
            continue
        keys = "predicted/last_average_accuracy", "predicted/forgetting_chaudhry"
        for said, key in zip((last, forgetting), keys, strict=True):
            found = summaries[name][key]
            mean, deviation = 100 * found["mean"], 100 * found["deviation"]
            assert said == f"{mean:.1f} ± {deviation:.1f}", (name, key)
        if name != report["baseline"]:
            found = report["differences"]["interleaved"][name][keys[0]]
            mean, low, high = (100 * found[key] for key in ("mean", "low", "high"))
            assert less == f"{mean:+.1f} [{low:+.1f}, {high:+.1f}]", name


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
