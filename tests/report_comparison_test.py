"""What pages say of differences between runs and since each task was learnt."""

import csv
import itertools
import json
import pathlib
from collections.abc import Sequence

import numpy as np
import pytest
import scipy.stats
from matplotlib.figure import Figure

from mmcl_jax.analysis import paired_tests, statistics
from mmcl_jax.analysis.measures import SPACE
from mmcl_jax.analysis.run_comparison import compare_pairs, compare_runs
from mmcl_jax.analysis.snapshot_comparison import compare_snapshots
from mmcl_jax.errors import DataError
from mmcl_jax.report import (
    changes,
    differences,
    drawing,
    figures,
    page,
    ranking,
    run_data,
    run_loader,
)
from mmcl_jax.report.blocks import Cards, Section
from mmcl_jax.report.charts import Bars, Chart, Forest, Interval, Label
from mmcl_jax.report.history import History
from mmcl_jax.report.theme import Mark, of_methods
from mmcl_jax.workdir.reading import read_run
from mmcl_jax.workdir.schema import COSTS
from tests.pages import (
    EXAMPLE,
    check_page,
    lines,
    make_run,
    predict,
    reseal,
    values,
    write_tables,
)
from tests.report_test import HOSTILE

_EACH = 12
MARKS = of_methods("ab")
TASKS = len(EXAMPLE)


def guessed(right: float, seed: int, samples: int = TASKS * _EACH) -> np.ndarray:
    """Returns slots `[routes, n]`, right in that share of the samples."""
    rng = np.random.default_rng(seed)
    label = np.arange(samples) // _EACH
    hit = rng.random((2, samples)) < right
    # one class off, among those that there are
    return np.where(hit, label, np.where(label > 0, label - 1, min(1, label[-1])))


def section(runs: list[run_data.RunData], name: str) -> Section:
    return named(page.sections(runs), name)


def named(parts: Sequence[Section], name: str) -> Section:
    (found,) = [part for part in parts if part.name == name]
    return found


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, pathlib.Path]:
    """Runs of two methods over two seeds each, with their last predictions."""
    root, found = tmp_path_factory.mktemp("compared"), {}
    for method, right in (("comm", 0.8), ("ridge", 0.5)):
        for seed in range(2):
            name = f"{method}-{seed}"
            found[name] = make_run(root / name, EXAMPLE, seed=seed, method=method)
            for stage in range(TASKS):
                predict(found[name], stage, _EACH, guessed(right, seed + 10 * stage))
    return found


def rows_of(path: pathlib.Path) -> list[dict[str, str]]:
    return list(csv.DictReader(lines(path)))


# of several runs


def test_two_runs_are_compared_sample_by_sample(folders, tmp_path) -> None:
    pair = folders["comm-0"], folders["ridge-0"]
    loaded = [run_loader.load(folder, inside=False) for folder in pair]
    write_tables(loaded, tmp_path / "out")
    text = (tmp_path / "out" / "report.html").read_text()
    check_page(text)
    table = rows_of(tmp_path / "out" / "differences.csv")
    expected = compare_runs(*pair)["spaces"][SPACE]
    assert len(table) == 2 * (TASKS + 1)
    columns = [dict(np.load(f / "predictions" / "002.npz")) for f in pair]
    label, task = columns[0]["label"], columns[0]["task"]
    for row in table:
        cells = expected[row["modality"]]
        every = row["on"] == "all tasks"
        k = 0 if every else int(row["on"].removeprefix("class "))
        of_compare = cells["all"] if every else cells["tasks"][k]
        for name, value in (
            ("difference", of_compare["difference"]),
            ("p", of_compare["mcnemar"]["p_value"]),
            ("agreement", of_compare["predicted_alike"]),
            ("kappa", of_compare["kappa"]),
        ):
            assert float(row[name]) == pytest.approx(value)
        # and counted again; all tasks have as many samples
        own = np.full(len(task), True) if every else task == k
        one, other = (c[f"chosen/union/{row['modality']}"][own] for c in columns)
        first, second = one == label[own], other == label[own]
        assert float(row["of first"]) == pytest.approx(first.mean())
        assert float(row["accuracy"]) == pytest.approx(second.mean())
        assert float(row["agreement"]) == pytest.approx(np.mean(one == other))
        lost, gained = int((first & ~second).sum()), int((second & ~first).sum())
        p = scipy.stats.binomtest(lost, lost + gained).pvalue
        assert float(row["p"]) == pytest.approx(p)
        assert row["pairs"] == "1"
    low, high = (
        f"{100 * expected['predicted']['all'][e]:+.1f}" for e in ("low", "high")
    )
    assert f"[{low}, {high}]".replace("-", "−") in text
    # what rows are sorted by is on the page
    on_page = values(text, "Against the first: accuracy in percent")
    assert [row[4] for row in on_page] == [float(row["difference"]) for row in table]
    plotted = rows_of(tmp_path / "out" / "differences-tasks-1.csv")
    assert [row["of"] for row in plotted] == [
        "class 0",
        "class 1",
        "class 2",
        "all tasks",
    ]
    for row, of_compare in zip(plotted, expected["predicted"]["tasks"], strict=False):
        assert float(row["low"]) == of_compare["low"]
        assert float(row["high"]) == of_compare["high"]


def test_several_seeds_have_an_interval_over_pairs(folders, tmp_path) -> None:
    loaded = [run_loader.load(folder, inside=False) for folder in folders.values()]
    write_tables(loaded[::-1], tmp_path / "out")
    # ridge is the first now; order and hash of the stream go with the seed
    pairs = [(folders[f"ridge-{s}"], folders[f"comm-{s}"]) for s in (1, 0)]
    expected = compare_pairs(pairs)
    table = rows_of(tmp_path / "out" / "differences.csv")
    for row in table:
        assert (row["method"], row["pairs"], row["p"]) == ("comm", "2", "")
    for route in ("predicted", "given"):
        whole, *tasks = (row for row in table if row["modality"] == route)
        found = expected["differences"][SPACE][route]
        own = []
        for pair in pairs:
            one, other = (
                np.load(f / "predictions" / "002.npz")[f"chosen/union/{route}"]
                for f in pair
            )
            label = np.arange(len(one)) // _EACH
            own.append(np.mean(other == label) - np.mean(one == label))
        summary = statistics.summary(own)
        assert float(whole["difference"]) == pytest.approx(summary.mean)
        assert found["low"] == pytest.approx(summary.low)
        for row, known in zip(tasks, expected["tasks"][SPACE][route], strict=True):
            assert row["on"] == known["name"]
            assert float(row["difference"]) == pytest.approx(known["mean"])
            assert float(row["kappa"]) == pytest.approx(known["kappa"])
    plotted = rows_of(tmp_path / "out" / "differences-predicted.csv")
    found = expected["differences"][SPACE]["predicted"]
    assert [float(plotted[0][end]) for end in ("low", "high")] == pytest.approx(
        [found["low"], found["high"]]
    )
    each = rows_of(tmp_path / "out" / "differences-pairs.csv")
    assert len(each) == 4 and all(0 <= float(row["p"]) <= 1 for row in each)


def test_runs_that_cannot_be_compared_are_named(folders, tmp_path) -> None:
    """Another stream, other samples, damage, no partner: all else is there."""
    damaged = make_run(tmp_path / "damaged", EXAMPLE, method="er")
    (damaged / "predictions" / "000.npz").write_text("no zip")
    for stage in (1, 2):
        (damaged / "predictions" / f"{stage:03d}.npz").write_text("no zip")
    fewer = make_run(tmp_path / "fewer", EXAMPLE, method="ewc")
    for stage in range(TASKS):
        predict(fewer, stage, _EACH, guessed(0.5, 0, TASKS * _EACH - 1))
    alone = make_run(tmp_path / "alone", EXAMPLE, method="lwf", seed=7)
    elsewhere = [folders["comm-0"], folders["ridge-1"]]
    loaded = [run_loader.load(f, inside=False) for f in elsewhere]
    found = section(loaded, "differences")
    assert found.absent == "no two of these runs can be compared"
    ((_, reason),) = found.blocks[0].facts
    assert "different streams" in reason and str(folders["ridge-1"]) in reason
    chosen = [*folders.values(), damaged, fewer, alone]
    loaded = [run_loader.load(f, inside=False) for f in chosen]
    parts = page.sections(loaded)
    found = named(parts, "differences")
    assert found.absent == ""
    refused = dict(found.blocks[-1].facts)
    assert list(refused) == ["er", "ewc", "lwf"]
    assert "002.npz" in refused["er"] and str(damaged) in refused["er"]
    assert "different test samples: task 3" in refused["ewc"]
    assert "has no partner with the same seeds" in refused["lwf"]
    text = page.render(loaded, parts)
    check_page(text)
    assert {row[0] for row in values(text, "Against the first")} == {2.0}


def test_runs_of_one_method_are_compared_to_the_first(folders, tmp_path) -> None:
    again = make_run(tmp_path / "again", EXAMPLE)
    for stage in range(TASKS):
        predict(again, stage, _EACH, guessed(0.9, 5))
    chosen = [folders["comm-0"], again, folders["comm-1"]]
    found = section([run_loader.load(f, inside=False) for f in chosen], "differences")
    *_, table, facts = found.blocks
    assert {row[0].text for row in table.body} == {"again"}
    expected = compare_runs(chosen[0], again)["spaces"][SPACE]["predicted"]["all"]
    assert table.body[0][7].value == expected["difference"]
    ((name, reason),) = facts.facts
    assert name == "comm-1" and "different streams" in reason


@pytest.mark.full("report")
def test_names_are_escaped_and_long_streams_stay_small(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(paired_tests, "_RESAMPLES", 100)
    tasks = 120
    names = (*HOSTILE, *(f"{i} " + "名" * 200 for i in range(tasks - len(HOSTILE))))
    matrix = np.tril(np.full((tasks, tasks), 0.5))
    made = [
        make_run(tmp_path / str(k), matrix, method=method, names=names)
        for k, method in enumerate(("comm", "er", "ewc", "lwf", "ncm", "rail", "ridge"))
    ]
    for k, folder in enumerate(made):
        for stage in range(tasks):
            (folder / "predictions" / f"{stage:03d}.npz").touch()
        predict(folder, tasks - 1, _EACH, guessed(0.5, k, tasks * _EACH))
    unknown = make_run(tmp_path / "unknown", matrix, method=HOSTILE[0], names=names)
    runs = [run_loader.load(folder, inside=False) for folder in (*made, unknown)]
    # without the others, which take their time
    found = differences.differences(run_data.group(runs))
    parsed = check_page(page.to_html("report", "title", [found], Cards(())))
    assert found.absent == "" and "only the tasks of the first methods" in found.about
    ((name, reason),) = found.blocks[-1].facts
    assert name == HOSTILE[0] and "method.name" in reason
    assert parsed.text.count(HOSTILE[0]) >= 10
    for stage in range(tasks - 1):
        predict(made[0], stage, 2, guessed(0.5, stage, tasks * 2))
    predict(made[0], tasks - 1, 2, guessed(0.5, 0, tasks * 2))
    one = run_loader.load(made[0])
    found = changes.changes(one)
    parsed = check_page(page.to_html("report", "title", [found], Cards(())))
    assert "more tasks are only in the table" in found.about
    assert "\u202e" not in "".join(parsed.text)


# of one run


def test_changes_are_counted_since_each_task_was_learnt(folders, tmp_path) -> None:
    folder = folders["comm-0"]
    run = run_loader.load(folder)
    write_tables([run], tmp_path / "out")
    text = (tmp_path / "out" / "report.html").read_text()
    check_page(text)
    stored = [
        np.load(folder / "predictions" / f"{stage:03d}.npz") for stage in range(TASKS)
    ]
    table = rows_of(tmp_path / "out" / "changes.csv")
    found = {(row["task"], row["modality"]): row for row in table}
    # nothing can have changed since the newest task was learnt
    assert len(table) == len(found) == 2 * (TASKS - 1)
    for task, route in itertools.product(range(TASKS - 1), ("given", "predicted")):
        own = np.arange(TASKS * _EACH) // _EACH == task
        was, now = (
            stored[stage][f"chosen/union/{route}"][own] == task for stage in (task, -1)
        )
        row = found[f"class {task}", route]
        assert int(row["samples"]) == _EACH
        assert int(row["forgotten"]) == np.sum(was > now)
        assert int(row["recovered"]) == np.sum(was < now)
        assert int(row["right both times"]) == np.sum(was & now)
        assert int(row["wrong both times"]) == np.sum(~was & ~now)
    assert any(int(row["forgotten"]) for row in table)
    on_page = values(text, "Test samples since each task was learnt")
    assert [row[1] for row in on_page] == [int(row["forgotten"]) for row in table]
    plotted = rows_of(tmp_path / "out" / "changes-predicted.csv")
    assert [row["forgotten"] for row in plotted] == [
        row["forgotten"] for row in table if row["modality"] == "predicted"
    ]


def test_each_file_of_predictions_is_read_once(tmp_path) -> None:
    folder = make_run(tmp_path / "run", EXAMPLE)
    predict(folder, 0, _EACH, guessed(0.5, 0))
    predict(folder, 1, _EACH, guessed(0.5, 1))
    history = History(folder)
    history.follow_predictions(read_run(folder), 2)
    for stage in (0, 1):
        (folder / "predictions" / f"{stage:03d}.npz").write_text("never read again")
    predict(folder, 2, _EACH, guessed(0.5, 2))
    run = run_loader.load(folder, history=history)
    assert [part.task.tolist() for part in history.just_learnt] == [
        [task] * _EACH for task in range(TASKS)
    ]
    was = guessed(0.5, 0)[0, :_EACH] == 0
    now = guessed(0.5, 2)[0, :_EACH] == 0
    counted = changes.since_learnt(run)["given"][0]
    assert counted["forgotten"] == np.sum(was & ~now)


def test_of_changes_that_cannot_be_counted_the_page_says_why(tmp_path) -> None:
    folder = make_run(tmp_path / "run", EXAMPLE)
    for stage in range(TASKS):
        predict(folder, stage, _EACH, guessed(0.5, stage))
    (folder / "predictions" / "000.npz").write_text("no zip")
    run = run_loader.load(folder)
    parts = page.sections([run])
    text = page.render([run], parts)
    assert "predictions/000.npz: cannot be decoded" in named(parts, "changes").absent
    assert "predicted as" in check_page(text).text
    predict(folder, 0, _EACH, guessed(0.5, 0, TASKS * _EACH - 30))
    assert (
        "different test samples: task 1"
        in section([run_loader.load(folder)], "changes").absent
    )
    one = make_run(tmp_path / "one", EXAMPLE[:1, :1])
    predict(one, 0, _EACH, guessed(0.5, 0, _EACH))
    assert "there is one" in section([run_loader.load(one)], "changes").absent


runs = pytest.mark.xdist_group("runs")


@runs
@pytest.mark.slow
def test_changes_of_a_real_run_are_those_of_compare(whole_run) -> None:
    found = changes.since_learnt(run_loader.load(whole_run.workdir))
    for task in range(2):
        counts = compare_snapshots(
            whole_run.workdir, task + 1, 3, with_embeddings=False
        )["counts"][SPACE]
        for route in ("given", "predicted"):
            row = dict(counts[route][task])
            row.pop("name")
            assert found[route][task] == row


# ranks and costs


def drawn(chart: Chart) -> Figure:
    with drawing.styled():
        return drawing.draw(chart, legend=True)


def costing(folder: pathlib.Path, shift: float, seed: int, **changes) -> pathlib.Path:
    """Writes a run whose accuracies are those of the worked example, shifted."""
    return make_run(folder, EXAMPLE + shift, seed=seed, **changes)


def test_methods_are_ranked_over_seeds_and_grouped_by_tests(tmp_path) -> None:
    # b is .1 below a under every seed; c is in between, far off under one seed
    shifts = {
        "comm": (0.05, 0.06, 0.04, 0.05),
        "ncm": (-0.05, -0.04, -0.06, -0.05),
        "ridge": (0.0, 0.01, 0.1, -0.01),
    }
    loaded = [
        run_loader.load(costing(tmp_path / f"{m}{i}", s, i, method=m), inside=False)
        for m, own in shifts.items()
        for i, s in enumerate(own)
    ]
    found = ranking.ranks(run_data.group(loaded))
    check_page(page.to_html("report", "title", [found], Cards(())))
    (chart,) = found.blocks[0].charts
    head, *rows = chart.rows()
    assert head[:3] == ["method", "groups", "mean rank"] and head[-1] == "run 4"
    assert rows == [
        ["comm", "1", 1.25, 1, 1, 2, 1],
        ["ridge", "1, 2", 1.75, 2, 2, 1, 2],
        ["ncm", "2", 3.0, 3, 3, 3, 3],
    ]
    (axes,) = drawn(chart).axes
    (line,) = [each for each in axes.lines if list(each.get_ydata()) == [0, 1]]
    assert line.get_xdata()[0] > 1  # of the first group, beside the axes
    # a run that is not finished has no rank; without it, one seed less counts
    last = costing(tmp_path / "more", 0.0, 4, method="ncm", finished=False)
    with pytest.raises(DataError, match="at least one learnt task"):
        run_loader.load(last, inside=False)
    chart = ranking.rank_chart({"a": {(0,): 1.0}, "b": {(0,): 2.0}}, MARKS)
    assert [each.text for each in chart.methods] == ["b", "a"]
    assert chart.groups == () and chart.groups_of(0) == ""


def test_orders_of_a_seed_count_once(tmp_path) -> None:
    loaded = []
    for method, shifts in {"comm": (0.1, 0.0), "ncm": (0.0, 0.02)}.items():
        for order, shift in enumerate(shifts):
            folder = costing(tmp_path / f"{method}{order}", shift, 0, method=method)
            stream = json.loads((folder / "stream.json").read_text())
            stream["hash"] = f"order {order}"
            (folder / "stream.json").write_text(json.dumps(stream))
            reseal(folder)
            loaded.append(run_loader.load(folder, inside=False))
    found = ranking.ranks(run_data.group(loaded))
    assert "Of a single seed, no test can tell methods apart" in found.about
    table = found.blocks[1]
    assert [(r[0].text, r[2].value, r[3].value) for r in table.body] == [
        ("comm", 1, 1.0),
        ("ncm", 1, 2.0),
    ]
    alone = ranking.ranks(run_data.group(loaded[:1]))
    assert alone.absent == "it needs finished runs of two methods"
    other = costing(tmp_path / "elsewhere", 0.0, 7, method="ridge")
    loaded.append(run_loader.load(other, inside=False))
    apart = ranking.ranks(run_data.group(loaded))
    assert apart.absent == "no seed and order has a finished run of every method"


def test_costs_are_those_of_the_runs_and_the_front_is_not_beaten(tmp_path) -> None:
    paid = {"comm": (900, 30.0), "ncm": (100, 10.0), "ridge": (200, 40.0)}
    shifts = {"comm": 0.1, "ncm": 0.0, "ridge": -0.1}
    loaded = []
    for method, (size, seconds) in paid.items():
        costs = dict.fromkeys(COSTS, 7) | {
            "bytes_remembered": size,
            "seconds": {"train": seconds - 1, "text": 1.0, "report": 99.0},
        }
        for seed in range(2):
            folder = tmp_path / f"{method}{seed}"
            made = costing(folder, shifts[method], seed, method=method, cost=costs)
            loaded.append(run_loader.load(made, inside=False))
    found = ranking.costs(run_data.group(loaded))
    check_page(page.to_html("report", "title", [found], Cards(())))
    for k, chart in enumerate(found.blocks[0].charts):
        assert {s.text: s.cost for s in chart.spots} == {
            method: values[k] for method, values in paid.items()
        }
        for spot in chart.spots:
            assert spot.gain == pytest.approx(2.2 / 3 + shifts[spot.text])
        # ridge costs more than ncm and reaches less
        assert {s.text for s in chart.spots if s.best} == {"comm", "ncm"}
        assert drawn(chart).axes[0].get_xscale() == "log"
    gains = {m: statistics.summary([0.5]) for m in ("a", "b")}
    known = {"a": {"seconds": 1.0}, "b": {"seconds": float("nan")}}
    chart = ranking.pareto_chart("seconds", gains, known, MARKS)
    assert [spot.text for spot in chart.spots] == ["a"]


def test_what_neither_costs_less_nor_reaches_more_is_not_on_the_front() -> None:
    places = {"a": (1.0, 0.5), "b": (1.0, 0.5), "c": (0.0, 0.4), "d": (2.0, 0.5)}
    assert ranking.undominated(places) == {"a", "b", "c"}


# charts


def test_charts_are_drawn_with_what_is_not_there() -> None:
    none = float("nan")
    forest = Forest(
        "f",
        "F",
        "difference",
        (
            Interval("<b>", Mark("ink", "o"), -0.5, -0.75, -0.25),
            Interval("one pair", Mark("ink", "o"), 0.1, none, none),
            Interval("nothing", Mark("ink", ""), none, none, none),
        ),
        (-0.8, 0.2),
    )
    svg = figures.inline(forest)
    assert "&lt;b&gt;" in svg and "<b>" not in svg
    assert "var(--ink)" in svg and "nan" not in svg.lower()
    figure = drawing.draw(forest, legend=False)
    (axes,) = figure.axes
    zero, interval, point, *_ = axes.lines
    assert list(zero.get_xdata()) == [0, 0]
    assert list(interval.get_xdata()) == [-0.75, -0.25]
    assert list(point.get_xdata()) == [-0.5]
    assert axes.yaxis_inverted()


def test_bars_are_shares_of_their_sum() -> None:
    bars = Bars(
        "b",
        "B",
        "share",
        (Label("a", "warning"), Label("b", "accent")),
        (Label("full", "image"), Label("empty")),
        ((1, 3), (0, 0)),
    )
    (axes,) = drawing.draw(bars, legend=False).axes
    widths = [(bar.get_x(), bar.get_width()) for bar in axes.patches]
    assert widths == [(0, 0.25), (0, 0), (0.25, 0.75), (0, 0)]
    assert bars.rows() == [["share", "a", "b"], ["full", 1, 3], ["empty", 0, 0]]
