"""Pages of runs, and the figures and tables beside them."""

import csv
import json
import pathlib
import re

import numpy as np
import pytest
from PIL import Image

from mmcl_jax.analysis import statistics
from mmcl_jax.evaluation import metrics
from mmcl_jax.report import (
    accuracy,
    curves,
    figures,
    page,
    run_data,
    run_loader,
    tables,
    theme,
)
from mmcl_jax.report.charts import shown
from tests.pages import (
    EXAMPLE,
    check_page,
    heat,
    lines,
    make_run,
    reseal,
    seal,
    values,
    write_tables,
)

HOSTILE = (
    '<script>alert("1")</script>',
    "\"quoted\" & 'so' $x_1$ 50% {a}~^\\",
    "x" * 10_000,
    "👩\u200d🔬 lab",
    "\u202eright to left\u2066",
    "tab\there\nline\x00\x07",
    "=1+1",
)


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The folder with the report of the worked example."""
    folder = tmp_path_factory.mktemp("example")
    loaded = run_loader.load(make_run(folder / "run", EXAMPLE))
    page.write([loaded], folder / "out")
    return folder / "out"


def test_page_of_the_worked_example(example: pathlib.Path) -> None:
    text = (example / "report.html").read_text()
    check_page(text)
    found = heat(text, "accuracy-routed-predicted")
    np.testing.assert_allclose(found, 100 * EXAMPLE, atol=0.051)
    # of docs/metrics.md: last, incremental, just learnt, forgetting, excess, backward
    expected = [0.7333, 0.7778, 0.7, 0.0, 0.0, 0.05]
    for row in values(text, "Metrics of the stream"):
        np.testing.assert_allclose(row[:6], expected, atol=5e-5)
    assert ">73.3<" in text and ">77.8<" in text


def test_the_title_names_stream_encoder_and_date(tmp_path: pathlib.Path) -> None:
    folders = [make_run(tmp_path / str(i), EXAMPLE, seed=i) for i in range(2)]
    (folders[0] / "log.txt").write_text("2026-01-31 10:00:00,000 begins\n")
    (folders[1] / "log.txt").write_text("2026-02-01 10:00:00,000 begins\n")
    runs = [run_loader.load(folder) for folder in folders]
    text = page.render(runs[:1], page.sections(runs[:1]))
    assert "<h1><bdi>comm on world</bdi>" in text
    assert (
        "3 tasks, 3 classes; image, audio; order: interleaved; encoder: built-in; "
        "begun on 2026-01-31</p>" in text
    )
    text = page.render(runs, page.sections(runs))
    assert (
        "stream: world; order: interleaved; encoder: built-in; "
        "begun on 2026-01-31 to 2026-02-01</p>" in text
    )
    (folders[0] / "log.txt").write_text("<b>2026")
    assert run_loader.load(folders[0]).begun == ""


def test_panels_that_show_nearly_the_same_are_one(tmp_path: pathlib.Path) -> None:
    """On the page alone: the files beside it have both."""
    run = run_loader.load(make_run(tmp_path / "run", EXAMPLE))
    text = page.render([run], page.sections([run]))
    assert "Average accuracy, modality predicted; given: the same" in text
    assert "Average accuracy, modality given" not in text
    given = np.array(run.results["accuracy"]["routed"]["given"], float)
    for shift, near in ((0.0042, "within 0.5 points"), (0.011, None)):
        run.results["accuracy"]["routed"]["given"] = (given + shift).tolist()
        text = page.render([run], page.sections([run]))
        assert ("Average accuracy, modality given" not in text) == bool(near)
        assert near is None or f"predicted; given: {near}" in text
        # the same for all tasks is no forgetting
        assert "Forgetting, modality given" not in text
    charts = {chart.name for chart in page._charts(page.sections([run]))}
    assert {"average-given", "forgetting-given"} <= charts


@pytest.mark.full("report")
def test_files_beside_the_page(example: pathlib.Path) -> None:
    rows = list(csv.reader(lines(example / "accuracy-task-given.csv")))
    found = [[float(v) if v else np.nan for v in row[1:]] for row in rows[1:]]
    np.testing.assert_array_equal(found, EXAMPLE)
    assert rows[0][1:] == ["class 0", "class 1", "class 2"]
    curve = list(csv.DictReader(lines(example / "average-given.csv")))
    overall = [
        float(row["Average accuracy, modality given"])
        for row in curve
        if row["series"] == "all"
    ]
    np.testing.assert_allclose(overall, [0.8, 0.8, 2.2 / 3])
    for picture in example.glob("*.png"):
        assert picture.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
        drawn = picture.with_suffix(".svg").read_text()
        assert drawn.rstrip().endswith("</svg>")
        assert picture.with_suffix(".pdf").read_bytes()[:5] == b"%PDF-"
        assert picture.with_suffix(".csv").is_file()
    names = {path.name for path in example.iterdir()}
    for name in (
        "stream.png",
        "modalities.csv",
        "embeddings-frozen.svg",
        "metrics.tex",
    ):
        assert name in names


def test_curves_are_those_of_the_matrix_so_far(tmp_path: pathlib.Path) -> None:
    run = run_loader.load(make_run(tmp_path / "run", EXAMPLE))
    assert curves.curve(
        run, metrics.last_average_accuracy, "union", "given"
    ) == pytest.approx([0.8, 0.8, 2.2 / 3])
    # image: tasks 1 and 3; audio: task 2
    image, audio = (
        curves.curve(run, metrics.last_average_accuracy, "union", "given", m)
        for m in ("image", "audio")
    )
    assert image == pytest.approx([0.8, 0.9, 0.725])
    np.testing.assert_allclose(audio, [np.nan, 0.7, 0.75])
    forgetting = curves.curve(run, metrics.forgetting_chaudhry, "union", "given")
    np.testing.assert_allclose(forgetting, [np.nan, -0.1, 0.0], atol=1e-12)


def structure(text: str) -> None:
    """Asserts that LaTeX would take a table: its rows are even and all is escaped."""
    assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") == 1
    columns = re.search(r"\\begin\{tabular\}\{([lr]+)\}", text)[1]
    lines = text.splitlines()
    rows = [line for line in lines if line.endswith(r" \\")]
    assert len(rows) == len(lines) - 11
    assert lines[1] == r"\begin{table}" and lines[-1] == r"\end{table}"
    assert re.fullmatch(r"\\caption\{\S.*\}", lines[3])
    assert re.fullmatch(r"\\label\{tab:[a-z0-9-]+\}", lines[4])
    rules = [
        line for line in lines if line in (r"\toprule", r"\midrule", r"\bottomrule")
    ]
    assert len(rules) == 3
    for row in rows:
        bare = re.sub(
            r"\\[\\{}$&#%_]|\\text\w+\{\}|\\ldots\{\}|\$\\pm\$|\$-\$|\$\\times\$",
            "",
            row,
        )
        assert bare.count("&") == len(columns) - 1
        assert not re.search(r"[$#%_^~\\<>|]", bare), bare
        assert bare.count("{") == bare.count("}")


def test_tables_are_latex(example: pathlib.Path) -> None:
    found = list(example.glob("*.tex"))
    assert len(found) >= 3
    for path in found:
        structure(path.read_text())


def test_names_from_data_are_escaped_everywhere(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    matrix = np.full((len(HOSTILE),) * 2, 0.5)
    run = run_loader.load(
        make_run(tmp_path / "run", matrix, names=HOSTILE, method=HOSTILE[0])
    )
    monkeypatch.setattr(figures, "FORMATS", {"svg": figures.FORMATS["svg"]})
    page.write([run], tmp_path / "out")
    text = (tmp_path / "out" / "report.html").read_text()
    parsed = check_page(text)
    said = "".join(parsed.text)
    assert '<script>alert("1")</script>' in said
    assert "👩\u200d🔬 lab" in said
    assert "\u202e" not in text and "\x00" not in text and "xxxxxxxx…" in text
    for path in (tmp_path / "out").glob("*.tex"):
        structure(path.read_text())
    for path in (tmp_path / "out").glob("*.svg"):
        assert "<script" not in path.read_text()
    rows = list(csv.reader(lines(tmp_path / "out" / "stream.csv")))
    assert rows[1][1] == shown(HOSTILE[0], 40)
    cell = tables.word("50 % of_{x} & y\\")
    table = tables.Table("t", "T", ("a",), ((cell,),))
    assert r"50 \% of\_\{x\} \& y\textbackslash{} \\" in tables.latex_of(table)


def test_figures_are_as_wide_as_a_column_without_titles(tmp_path) -> None:
    run = run_loader.load(make_run(tmp_path / "run", EXAMPLE))
    charts = {c.name: c for c in page._charts(page.sections([run]))}
    for name, size in (("average-predicted", 7), ("stream", 6), ("modalities", 6)):
        figures.save(charts[name], tmp_path, figures.Look(4.0, 7.0, False))
        with Image.open(tmp_path / f"{name}.png") as picture:
            # layout is in whole pixels, and outlines have a width
            assert picture.width / 200 == pytest.approx(4.0, abs=0.06), name
        svg = (tmp_path / f"{name}.svg").read_text()
        assert charts[name].title not in svg and f"font-size: {size}px" in svg
        pdf = (tmp_path / f"{name}.pdf").read_bytes()
        assert pdf.startswith(b"%PDF") and b"CreationDate" not in pdf
    figures.save(charts["average-predicted"], tmp_path)
    assert (
        "Average accuracy, modality predicted"
        in (tmp_path / "average-predicted.svg").read_text()
    )


@pytest.mark.full("report")
def test_a_long_stream_keeps_the_page_small(tmp_path: pathlib.Path) -> None:
    tasks = 120
    matrix = np.tril(np.full((tasks, tasks), 0.5))
    names = tuple(f"{i} " + "名" * 1_000 for i in range(tasks))
    run = run_loader.load(make_run(tmp_path / "run", matrix, names=names))
    parts = page.sections([run])
    text = page.render([run], parts)
    check_page(text)
    assert "Left out to keep the page small" in text
    assert heat(text, "accuracy-routed-predicted")[-1] == [50.0] * tasks
    # what is left out of the page has its files, of a size that can be opened
    matrix = next(c for c in page._charts(parts) if "task" in c.name)
    figures.save(matrix, tmp_path)
    with Image.open(tmp_path / f"{matrix.name}.png") as picture:
        assert max(picture.size) < 4000


def test_what_returns_is_measured_where_classes_return(tmp_path: pathlib.Path) -> None:
    folder = make_run(tmp_path / "run", EXAMPLE)
    results = json.loads((folder / "results.json").read_text())
    for routes in results["metrics"].values():
        for found in routes.values():
            found |= {"relearning_gain": 0.125, "forgetting_before_return": None}
    seal(folder, {k: v for k, v in results.items() if k not in ("run", "checksum")})
    run = run_loader.load(folder)
    table = accuracy.matrices(run).blocks[-1]
    assert table.head[-2:] == ("forgetting before a return", "gain of a return")
    assert all([c.text for c in row[-2:]] == ["–", "12.5"] for row in table.body)


def test_half_a_figure_is_no_file(tmp_path, monkeypatch) -> None:
    run = run_loader.load(make_run(tmp_path / "run", EXAMPLE))
    chart = page._charts(page.sections([run]))[0]

    def fail(figure, target, **options) -> None:
        target.write(b"<svg")
        raise KeyboardInterrupt

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", fail)
    with pytest.raises(KeyboardInterrupt):
        figures.save(chart, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_several_runs_have_the_intervals_of_statistics(tmp_path: pathlib.Path) -> None:
    shifts = (0.0, 0.02, -0.04)
    loaded = [
        run_loader.load(make_run(tmp_path / f"{m}{i}", EXAMPLE + s, seed=i, method=m))
        for m in ("comm", "ridge")
        for i, s in enumerate(shifts)
    ]
    groups = run_data.group(loaded)
    assert {name: len(found) for name, found in groups.items()} == {
        "comm": 3,
        "ridge": 3,
    }
    write_tables(loaded, tmp_path / "out")
    text = (tmp_path / "out" / "report.html").read_text()
    check_page(text)
    last = [2.2 / 3 + shift for shift in shifts]
    expected = statistics.summary(last)
    table = list(csv.DictReader(lines(tmp_path / "out" / "comparison.csv")))
    # two methods in four views
    assert len(table) == 8 and table[0]["n"] == "3"
    assert float(table[0]["last average"]) == pytest.approx(expected.mean)
    low, high = (f"{100 * end:.1f}" for end in (expected.low, expected.high))
    assert f"{100 * expected.mean:.1f} ± {100 * expected.deviation:.1f}" in text
    assert f"[{low}, {high}]" in text
    rows = list(csv.DictReader(lines(tmp_path / "out" / "average-predicted.csv")))
    end = [row for row in rows if row["series"] == "comm"][-1]
    assert float(end["low"]) == pytest.approx(expected.low)
    assert float(end["high"]) == pytest.approx(expected.high)
    for title in ("Embeddings", "Prompt drift", "Most confused classes"):
        assert title in text
    assert text.count(page._ONE_AT_A_TIME) == 9


def test_runs_of_one_method_are_told_apart_by_what_differs(tmp_path) -> None:
    folders = [make_run(tmp_path / str(i), EXAMPLE, seed=i) for i in range(2)]
    changed = json.loads((folders[1] / "config.json").read_text())
    changed["train"]["epochs"] = 99
    (folders[1] / "config.json").write_text(json.dumps(changed))
    reseal(folders[1])
    names = list(run_data.group([run_loader.load(folder) for folder in folders]))
    assert names == ["comm epochs=8", "comm epochs=99"]


def test_absent_parts_say_why(example: pathlib.Path, tmp_path: pathlib.Path) -> None:
    text = (example / "report.html").read_text()
    assert text.count("Not shown: there is no snapshot in the workdir") == 2
    assert "the data are not those that the run was made with" in text
    folder = make_run(tmp_path / "run", EXAMPLE)
    (folder / "embeddings.npz").unlink()
    run = run_loader.load(folder)
    text = page.render([run], page.sections([run]))
    assert "Not shown: the workdir has no embeddings.npz" in text


def test_colours_can_be_read_and_told_apart() -> None:
    for which in (0, 1):
        surfaces = [theme.COLOURS[name][which] for name in ("surface", "page")]
        texts = ["ink", "muted", "accent", "warning"]
        texts += [n for n in theme.COLOURS if n not in ("line", "surface", "page")]
        for name in texts:
            for surface in surfaces:
                assert theme.contrast(theme.COLOURS[name][which], surface) >= 4.5, name
        assert all(theme.contrast(*pair) >= 4.5 for pair in theme.ramp(bool(which)))
    names = ["image", "video", "audio", "depth", "text", "touch", "smell"]
    marks = theme.of_modalities(names)
    assert len({mark.colour for mark in marks.values()}) == len(names)
    assert len(set(marks.values())) == len(names)
    # a modality has its colour whatever else there is
    assert theme.of_modalities(["text"])["text"] == marks["text"]
    # methods that share a colour have other markers, and curves have both
    many = theme.of_methods([str(i) for i in range(64)])
    assert len(set(many.values())) == 64
    light = [pair[0] for pair in theme.COLOURS.values()]
    assert len(set(light)) == len(light)  # figures are recoloured by them
