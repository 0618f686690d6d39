"""REPRODUCIBILITY.md says of every method what was reproduced, and is up to date."""

import json
import pathlib
import re
import shutil
from typing import Any

import pytest

from mmcl_jax.methods.registry import METHODS
from mmcl_jax.sweeps import aggregate, transfer
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
    pages = {reproducibility.PAGE, reproducibility.TABLES}
    assert made.keys() == pages | tables
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


def measured(part: str) -> dict[str, Any]:
    """Returns what sweeps of the benchmark's stream found of each variant."""
    found: dict[str, Any] = {}
    # where a variant is in both, that with more seeds
    for name in (reproducibility.TRAINED, reproducibility.BENCHMARK):
        report = json.loads((ROOT / f"docs/results/{name}.json").read_text("utf-8"))
        assert report["baseline"] == "comm"
        (of_variants,) = report[part].values()
        found |= of_variants
    return found


def test_the_readme_says_what_is_stored() -> None:
    summaries = measured("summaries")
    page = (ROOT / "README.md").read_text("utf-8")
    table = page.split("\n## Methods\n", 1)[1].split("\n## ", 1)[0]
    rows = re.findall(r"^\| `(\w+)` \| .* \| (.*?) \|$", table, re.MULTILINE)
    assert {name for name, _ in rows} == set(METHODS)
    for name, said in rows:
        if name not in summaries:
            assert said == "–", name
            continue
        found = summaries[name]["routed/last_average_accuracy"]
        value = f"{100 * found['mean']:.1f} ± {100 * found['deviation']:.1f}"
        assert said == value + {5: "", 3: " *"}[len(found["values"])], name


def test_tables_of_the_benchmark_are_made_after_their_markers(
    tmp_path: pathlib.Path,
) -> None:
    (tmp_path / "docs" / "results").mkdir(parents=True)
    shutil.copy(ROOT / "docs" / "reproduced.toml", tmp_path / "docs")
    ended = [e for e in aggregate_test.ENDED if e[0].stream == "random"]
    report = aggregate.aggregate(ended, "comm", "mine.py")
    (tmp_path / "docs/results/mine.json").write_text(json.dumps(report))
    page = tmp_path / "docs" / "benchmark.md"
    page.write_text("a\n\n<!-- mine.json -->\n\n| old |\n\nb\n")
    made = reproducibility.pages(tmp_path)["docs/benchmark.md"]
    assert made.startswith("a\n\n<!-- mine.json -->\n\n|  | n | modality predicted |")
    assert made.endswith(" |\n\nb\n") and "old" not in made
    assert "| `ridge` | 2 | 60.0 ± 0.0 | +0.0 [-127.1, +127.1] |" in made
    page.write_text(made)
    assert reproducibility.pages(tmp_path)["docs/benchmark.md"] == made


def test_gains_that_the_benchmark_names_were_measured() -> None:
    page = (ROOT / "docs" / "benchmark.md").read_text("utf-8")
    section = page.split("\n## Transfer across modalities\n", 1)[1].split("\n## ", 1)[0]
    interval = r"[+-]\d+\.\d \[[+-]\d+\.\d, [+-]\d+\.\d\]"
    said = set(re.findall(interval, " ".join(section.split())))
    report = json.loads((ROOT / "docs/results/transfer.json").read_text("utf-8"))
    measured = {
        transfer.gain(entry).removesuffix(" *")
        for streams in report["transfer"].values()
        for variants in streams.values()
        for views in variants.values()
        for entry in views.values()
    }
    assert said and said <= measured


def test_sentences_of_the_benchmark_follow_from_its_intervals() -> None:
    """What a page calls ahead, behind or level is so by Holm's correction."""
    page = (ROOT / "docs" / "benchmark.md").read_text("utf-8")
    text = " ".join(page.split())  # wherever lines are broken
    said = re.findall(r"`(\w+)` is (ahead of|behind|level with) `(\w+)`", text)
    assert said
    path = ROOT / "docs/results/world_development.json"
    (on_world,) = json.loads(path.read_text("utf-8"))["differences"].values()
    differences = {"comm": measured("differences"), "comm_plus": on_world}
    # every method of the tables has a verdict
    for baseline, of_variants in differences.items():
        rivals = (set(METHODS) & set(of_variants)) - {baseline}
        assert {name for name, _, other in said if other == baseline} == rivals
    for variant, verdict, baseline in said:
        found = differences[baseline][variant]["routed/last_average_accuracy"]
        clear = found["p_holm"] < 0.05
        expected = {(True, True): "ahead of", (True, False): "behind"}
        assert verdict == expected.get((clear, found["mean"] > 0), "level with"), (
            variant
        )
