"""From results of runs to tables, by hand."""

import csv
import io
import json
import pathlib
from typing import Any

import pytest

from mmcl_jax.analysis import measures
from mmcl_jax.analysis.measures import COSTS, METRICS
from mmcl_jax.config import Config, MethodOptions
from mmcl_jax.evaluation.label_spaces import ROUTES, SPACES
from mmcl_jax.sweeps import aggregate
from mmcl_jax.sweeps.aggregate import CHOSEN_BY
from mmcl_jax.sweeps.runs import SweepRun
from mmcl_jax.workdir import schema

LAST = "given/last_average_accuracy"


def _results(value: float | None, seconds: float = 2.0) -> dict[str, Any]:
    found = dict.fromkeys(METRICS, value)
    costs = dict.fromkeys(COSTS, 8) | {"seconds": {"train": seconds, "text": 1.0}}
    return {
        "metrics": dict.fromkeys(SPACES, dict.fromkeys(ROUTES, found)),
        "cost": costs,
        "environment": {"jax": "1"},
    }


def _run(variant: str, stream: str, seed: int, **values: float) -> SweepRun:
    config = Config(method=MethodOptions(name=variant.partition(" ")[0]))
    return SweepRun(variant, stream, seed, config, values)


# two streams; under seed 1 the second method lacks a run
VALUES = {
    ("comm", "random", 0): 0.5,
    ("comm", "random", 1): 0.7,
    ("comm", "recurring", 0): 0.9,
    ("comm", "recurring", 1): 0.8,
    ("ridge", "random", 0): 0.6,
    ("ridge", "random", 1): 0.6,
    ("ridge", "recurring", 0): 0.7,
}
ENDED = [(_run(*place), _results(value)) for place, value in VALUES.items()]
REPORT = aggregate.aggregate(ENDED, "comm")


def test_summaries_are_over_the_runs_of_a_stream_and_of_all() -> None:
    summaries = REPORT["summaries"]
    assert list(summaries) == ["random", "recurring", aggregate.ALL_STREAMS]
    entry = summaries["random"]["comm"][LAST]
    assert entry["mean"] == pytest.approx(0.6)
    assert entry["deviation"] == pytest.approx(0.02**0.5)
    # 0.6 ± t, where t of one degree of freedom is 12.7062
    assert (entry["low"], entry["high"]) == pytest.approx((-0.67062, 1.87062))
    assert entry["values"] == [0.5, 0.7]
    assert summaries["recurring"]["ridge"][LAST]["deviation"] is None
    # streams of a seed share classes and samples: the seed counts once
    over_all = summaries[aggregate.ALL_STREAMS]
    assert over_all["comm"][LAST]["values"] == pytest.approx([0.7, 0.75])
    assert over_all["ridge"][LAST]["values"] == pytest.approx([0.65])


def test_what_is_compared_is_what_the_reader_asks_for() -> None:
    assert tuple(METRICS) == schema.METRICS
    assert tuple(COSTS) == (*schema.COSTS, "seconds")


def test_each_view_is_of_its_label_space_and_route() -> None:
    results = _results(None)
    results["metrics"] = {
        space: {
            route: dict.fromkeys(METRICS, 10 * s + r) for r, route in enumerate(ROUTES)
        }
        for s, space in enumerate(SPACES)
    }
    found = {
        view: measures.measured(results)[f"{view}/learning_accuracy"]
        for view in measures.VIEWS
    }
    routed, union, modality = (
        10 * SPACES.index(space) for space in ("routed", "union", "modality")
    )
    given, predicted = ROUTES.index("given"), ROUTES.index("predicted")
    assert found == {
        "routed": routed + predicted,
        "predicted": union + predicted,
        "given": union + given,
        "within": modality + given,
    }


def test_a_single_stream_is_not_shown_twice() -> None:
    report = aggregate.aggregate(ENDED[:2], "comm")
    assert list(report["summaries"]) == ["random"]
    assert report["differences"] == {"random": {}}
    # nor all streams, where no seed has them
    report = aggregate.aggregate([ENDED[0], ENDED[3]], "comm")
    assert list(report["summaries"]) == ["random", "recurring"]


def test_differences_are_to_the_run_of_one_order_and_seed() -> None:
    (entry,) = REPORT["differences"]["random"].values()
    assert entry[LAST]["values"] == pytest.approx([0.1, -0.1])
    assert entry[LAST]["mean"] == pytest.approx(0)
    for stream, difference in (("recurring", -0.2), (aggregate.ALL_STREAMS, -0.05)):
        (entry,) = REPORT["differences"][stream].values()
        assert entry[LAST]["values"] == pytest.approx([difference])


def test_a_difference_is_clear_after_correction_for_all_of_a_table() -> None:
    gains = {
        "comm": (0, 0, 0, 0),
        "a": (5, 6, 5, 6),
        "b": (1, 2, 3, 1),
        "c": (9, 0, 1, 2),
    }
    ended = [
        (_run(name, "random", seed), _results(0.5 + 0.01 * own[seed]))
        for name, own in gains.items()
        for seed in range(4)
    ]
    report = aggregate.aggregate(ended, "comm")
    found = report["differences"]["random"]
    p = {name: entry[LAST]["p_value"] for name, entry in found.items()}
    adjusted = {name: entry[LAST]["p_holm"] for name, entry in found.items()}
    # t = 19.05, 3.656 and 1.470 with 3 degrees of freedom
    assert p == pytest.approx({"a": 0.000316, "b": 0.0354, "c": 0.238}, rel=0.01)
    assert adjusted == pytest.approx({"a": 3 * p["a"], "b": 2 * p["b"], "c": p["c"]})
    text = aggregate.to_markdown(report)
    assert "[+4.6, +6.4] *" in text and "[+0.2, +3.3]<br>" in text


def test_ranks_are_over_runs_that_all_have_and_less_forgetting_is_better() -> None:
    for key in (LAST, "given/forgetting_chaudhry"):
        ranks = REPORT["ranks"][key]
        assert ranks["random"] == {"runs": 2, "mean": {"comm": 1.5, "ridge": 1.5}}
        assert ranks[aggregate.ALL_STREAMS]["runs"] == 1
    one = [ENDED[0], ENDED[4]]
    ranks = aggregate.aggregate(one, "comm")["ranks"]
    assert ranks[LAST]["random"]["mean"] == {"comm": 2, "ridge": 1}
    for name in ("forgetting_chaudhry", "excess_forgetting"):
        found = ranks[f"predicted/{name}"]["random"]["mean"]
        assert found == {"comm": 1, "ridge": 2}


def test_cost_is_a_mean_over_runs() -> None:
    ended = [
        (_run("comm", "random", seed), _results(0.5, seconds))
        for seed, seconds in enumerate([2.0, 4.0])
    ]
    (found,) = aggregate.aggregate(ended, "comm")["cost"].values()
    assert found == dict.fromkeys(COSTS, 8) | {"seconds": 4}


def test_what_is_not_defined_stays_so() -> None:
    ended = [(_run("joint", "random", seed), _results(None)) for seed in (0, 1)]
    report = aggregate.aggregate(ended, "comm")
    json.dumps(report, allow_nan=False)
    assert report["summaries"]["random"]["joint"][LAST]["mean"] is None
    # not ranks over 0 runs
    assert report["ranks"][LAST] == {}
    shown = aggregate.to_markdown(report)
    assert "| `joint` | 2 | - | - | - | - | - |" in shown
    assert "None: no order and seed has a finished run of every variant." in shown
    assert not [
        line for line in aggregate.csv_of(report).splitlines() if "ranks" in line
    ]


def test_markdown_shows_percent_interval_and_few_values() -> None:
    text = aggregate.to_markdown(REPORT)
    assert "60.0 ± 14.1<br>[-67.1, 187.1]<br>50.0 70.0 |" in text
    assert "+0.0 ± 14.1<br>[-127.1, +127.1]<br>+10.0 -10.0 |" in text
    assert "| `ridge` | 1 | 70.0 | 70.0 |" in text
    assert "# recurring" in text
    assert "| `ridge` | 1.50 |" in text
    many = [(_run("comm", "random", seed), _results(0.1 * seed)) for seed in range(5)]
    text = aggregate.to_markdown(aggregate.aggregate(many, "comm"))
    assert "20.0 ± 15.8<br>[0.4, 39.6] |" in text


def test_every_row_of_a_table_has_as_many_cells() -> None:
    table: list[str] = []
    for line in [*aggregate.to_markdown(REPORT).splitlines(), ""]:
        if line.startswith("|"):
            table.append(line)
        else:
            assert len({row.count("|") for row in table}) <= 1
            table = []


def test_csv_has_the_same_numbers() -> None:
    rows = list(csv.DictReader(io.StringIO(aggregate.csv_of(REPORT))))
    assert {row["table"] for row in rows} == {
        "summaries",
        "differences",
        "ranks",
        "cost",
    }
    (row,) = [
        row
        for row in rows
        if (row["table"], row["stream"], row["variant"], row["metric"])
        == ("summaries", "random", "comm", LAST)
    ]
    assert float(row["mean"]) == pytest.approx(0.6)
    assert (row["n"], row["values"]) == ("2", "0.5 0.7")


def test_the_best_mean_is_chosen_by_method() -> None:
    ended = [
        (_run(f"{method} {value}", "random", seed, value=value), _results(score))
        for method, value, scores in (
            ("comm", 1.0, (0.5, 0.5)),
            ("comm", 2.0, (0.3, 0.8)),  # better by 0.05, and no better for sure
            ("ridge", 1.0, (0.3, 0.3)),
            ("ridge", 2.0, (0.1 + 0.2, 0.1 + 0.2)),
            ("ewc", 1.0, (0.3, 0.5)),
            ("ewc", 2.0, (0.31, 0.511)),
            ("ewc", 3.0, (0.41, 0.611)),
        )
        for seed, score in enumerate(scores)
    ]
    choice = aggregate.choose(ended)
    # the first of those that are equal but for rounding, or cannot be told from it
    chosen = {"comm": {"value": 1.0}, "ridge": {"value": 1.0}, "ewc": {"value": 3.0}}
    assert choice["chosen"] == chosen
    assert choice["metric"] == CHOSEN_BY
    scores = choice["scores"]["comm"]
    assert [entry["values"] for entry in scores] == [{"value": 1.0}, {"value": 2.0}]
    assert [entry["score"]["mean"] for entry in scores] == pytest.approx([0.5, 0.55])
    assert scores[1]["score"]["values"] == [0.3, 0.8]


def test_a_choice_leaves_other_methods_and_fields_as_they_were(
    tmp_path: pathlib.Path,
) -> None:
    path = tmp_path / "tuned.json"
    first = [(_run("comm a", "random", 0, rate=1.0), _results(0.5))]
    second = [(_run("ridge a", "random", 0, rate=2.0), _results(0.5))]
    third = [(_run("comm b", "random", 0, rate=3.0), _results(0.5))]
    fourth = [(_run("comm c", "random", 0, size=4), _results(0.5))]
    for ended in (first, second, third, fourth):
        aggregate.write_choice(aggregate.choose(ended), path)
    stored = json.loads(path.read_text())
    assert stored["chosen"] == {
        "comm": {"rate": 3.0, "size": 4},
        "ridge": {"rate": 2.0},
    }
    # scores of the same field are replaced
    values = [entry["values"] for entry in stored["scores"]["comm"]]
    assert values == [{"rate": 3.0}, {"size": 4}]
    assert stored["scores"].keys() == {"comm", "ridge"}


def test_written_files_are_whole(tmp_path: pathlib.Path) -> None:
    aggregate.write(REPORT, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "summary.json",
        "summary.csv",
        "summary.md",
    }
    assert json.loads((tmp_path / "summary.json").read_text()) == REPORT
