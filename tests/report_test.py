"""The report of runs: what stands on the page, beside it, and in a browser."""

import csv
import html.parser
import json
import pathlib
import re
import shutil
import subprocess
import sys
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from mmcl_jax import config, evaluate, metrics, statistics
from mmcl_jax.modalities.base import DataError
from mmcl_jax.report import accuracy, curves, data, figures, live, page, tables, theme
from mmcl_jax.report.charts import shown
from mmcl_jax.report.history import History
from mmcl_jax.results import Results, plain
from mmcl_jax.snapshots import Snapshots
from tests import helpers

runs = pytest.mark.xdist_group("runs")
MAX_BYTES = 3_000_000
VOID = {"meta", "input", "img", "br", "path", "use", "rect", "link"}
HOSTILE = (
    '<script>alert("1")</script>',
    "\"quoted\" & 'so' $x_1$ 50% {a}~^\\",
    "x" * 10_000,
    "👩\u200d🔬 lab",
    "\u202eright to left\u2066",
    "tab\there\nline\x00\x07",
    "=1+1",
)


class Parsed(html.parser.HTMLParser):
    """Elements of a page, which must be balanced."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag) -> None:
        if tag not in VOID:
            assert self.open and self.open.pop() == tag, f"</{tag}> closes another"

    def handle_data(self, data) -> None:
        self.text.append(data)


def make_run(
    folder: pathlib.Path,
    matrix: np.ndarray,
    *,
    seed: int = 0,
    method: str = "comm",
    names: tuple[str, ...] | None = None,
    finished: bool = True,
    **changes: Any,
) -> pathlib.Path:
    """Writes the workdir of a run with one accuracy matrix in all spaces and routes."""
    tasks = len(matrix)
    names = names or tuple(f"class {i}" for i in range(tasks))
    modalities = [("image", "audio")[i % 2] for i in range(tasks)]
    results = Results.start(tasks)
    results.accuracy[:] = matrix
    results.zero_shot[:] = matrix / 2
    met = list(dict.fromkeys(modalities))
    true = np.array([met.index(m) for m in modalities])
    results.identification = metrics.modality_identification(
        true, np.zeros_like(true), len(met)
    )._asdict()
    listed = [
        {"name": n, "modality": m, "classes": [n], "train": 1, "test": 1}
        for n, m in zip(names, modalities, strict=True)
    ]
    slots = [
        {"name": n, "modality": m, "dataset": "d", "canonical": i}
        for i, (n, m) in enumerate(zip(names, modalities, strict=True))
    ]
    whole = {
        "method": method,
        "seeds": {"order": seed, "init": seed, "data": seed},
        "environment": {"jax": "1", "commit": None},
        "knowledge": "L0",
        "modalities": met,
        "tasks": listed,
        "skipped_samples": 0,
        **results.report(),
        "cost": {"seconds": {"train": 1.5, "report": 0.5}, "bytes_per_task": 7},
    }
    stream = {
        "hash": f"hash {seed}",
        "modalities": met,
        "towers": dict.fromkeys(met, "visual"),
        "stages": [[i] for i in range(tasks)],
        "classes": slots,
        "tasks": listed,
    }
    made = config.Config(
        seeds=config.Seeds(seed, seed, seed), method=config.MethodOptions(name=method)
    )
    (folder / "predictions").mkdir(parents=True)
    (folder / "config.json").write_text(config.to_json(made))
    (folder / "stream.json").write_text(json.dumps(stream))
    if finished:
        (folder / "results.json").write_text(json.dumps(plain(whole | changes)))
    columns = {
        "id": np.arange(tasks),
        "label": np.arange(tasks),
        "chosen/union/predicted": np.zeros(tasks, np.int32),
    }
    np.savez(folder / "predictions" / f"{tasks - 1:03d}.npz", **columns)
    text = np.eye(tasks, 4) + 0.1
    records = np.arange(tasks)
    np.savez(
        folder / "embeddings.npz",
        text=text,
        id=records,
        label=records,
        query=text + 0.1,
    )
    return folder


# docs/metrics.md works this one out by hand
EXAMPLE = np.array([[0.8, 0.1, np.nan], [0.9, 0.7, 0.3], [0.85, 0.75, 0.6]])


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The folder with the report of the worked example."""
    folder = tmp_path_factory.mktemp("example")
    loaded = data.load(make_run(folder / "run", EXAMPLE))
    page.write([loaded], folder / "out")
    return folder / "out"


@pytest.fixture(scope="session")
def demo_run(tmp_path_factory: pytest.TempPathFactory) -> helpers.Finished:
    """A finished short run of the demo, in five modalities."""
    finished = helpers.run(
        "--config=configs/demo.py:smoke",
        workdir=tmp_path_factory.mktemp("runs") / "demo",
    )
    assert finished.code == 0, finished.errors
    return finished


def heat(text: str, name: str) -> list[list[float]]:
    """Returns the numbers of one matrix of a page, NaN where a cell is empty."""
    inner = text.split(f'data-choice="{name}"')[1].split("</table>")[0]
    rows = re.findall(r"<tr><th scope=.row.*?</tr>", inner, re.DOTALL)
    cells = [
        re.findall(r"<td(?: class=q\d+| class=\"q\d+\")?>(.*?)</td>", r) for r in rows
    ]
    return [[float(c) if c else np.nan for c in row] for row in cells]


def values(text: str, title: str) -> list[list[float]]:
    """Returns the numbers that the rows of a table are sorted by."""
    inner = text.split(f"<figcaption>{title}")[1].split("</tbody>")[0]
    rows = inner.split("<tbody>")[1].split("</tr>")[:-1]
    return [[float(v) for v in re.findall(r'data-value="(.*?)"', row)] for row in rows]


def lines(path: pathlib.Path) -> list[str]:
    return path.read_text().splitlines(keepends=True)


def check_page(text: str) -> Parsed:
    """Asserts what holds for every page."""
    parsed = Parsed(text)
    assert not parsed.open
    assert len(text.encode()) < MAX_BYTES
    assert [tag for tag, _ in parsed.elements].count("script") == 1
    ids = [a["id"] for _, a in parsed.elements if "id" in a]
    assert len(ids) == len(set(ids))
    for tag, attributes in parsed.elements:
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("src", "href", "xlink:href", "action", "poster"):
            value = attributes.get(name) or "#"
            assert value.startswith(("#", "data:image/", "data:audio/")), (tag, value)
    assert not re.search(r"url\((?!#)|@import", text)
    assert "prefers-color-scheme:dark" in text
    return parsed


def test_page_of_the_worked_example(example: pathlib.Path) -> None:
    text = (example / "report.html").read_text()
    check_page(text)
    found = heat(text, "accuracy-union-predicted")
    np.testing.assert_allclose(found, 100 * EXAMPLE, atol=0.051)
    # of docs/metrics.md: last, incremental, just learnt, forgetting, excess, backward
    expected = [0.7333, 0.7778, 0.7, 0.0, 0.0, 0.05]
    for row in values(text, "Metrics of the stream"):
        np.testing.assert_allclose(row[:6], expected, atol=5e-5)
    assert ">73.3<" in text and ">77.8<" in text


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
    run = data.load(make_run(tmp_path / "run", EXAMPLE))
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
    assert len(rows) == len(lines) - 6
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


def test_names_from_data_are_escaped_everywhere(tmp_path: pathlib.Path) -> None:
    matrix = np.full((len(HOSTILE),) * 2, 0.5)
    run = data.load(
        make_run(tmp_path / "run", matrix, names=HOSTILE, method=HOSTILE[0])
    )
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


def test_a_long_stream_keeps_the_page_small(tmp_path: pathlib.Path) -> None:
    tasks = 120
    matrix = np.tril(np.full((tasks, tasks), 0.5))
    names = tuple(f"{i} " + "名" * 1_000 for i in range(tasks))
    run = data.load(make_run(tmp_path / "run", matrix, names=names))
    text = page.render([run], page.sections([run]))
    check_page(text)
    assert "Left out, so that the page stays small" in text
    assert heat(text, "accuracy-union-predicted")[-1] == [50.0] * tasks
    # what is left out of the page has its files, of a size that can be opened
    matrix = next(c for c in page._charts(page.sections([run])) if "task" in c.name)
    figures.save(matrix, tmp_path)
    with Image.open(tmp_path / f"{matrix.name}.png") as picture:
        assert max(picture.size) < 4000


def test_several_runs_have_the_intervals_of_statistics(tmp_path: pathlib.Path) -> None:
    shifts = (0.0, 0.02, -0.04)
    loaded = [
        data.load(make_run(tmp_path / f"{m}{i}", EXAMPLE + s, seed=i, method=m))
        for m in ("comm", "ridge")
        for i, s in enumerate(shifts)
    ]
    groups = data.group(loaded)
    assert {name: len(found) for name, found in groups.items()} == {
        "comm": 3,
        "ridge": 3,
    }
    page.write(loaded, tmp_path / "out")
    text = (tmp_path / "out" / "report.html").read_text()
    check_page(text)
    last = [2.2 / 3 + shift for shift in shifts]
    expected = statistics.summary(last)
    table = list(csv.DictReader(lines(tmp_path / "out" / "comparison.csv")))
    assert len(table) == 4 and table[0]["n"] == "3"
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
    assert text.count(page._ONE_AT_A_TIME) == 5


def test_of_several_runs_the_inside_is_not_read(tmp_path: pathlib.Path) -> None:
    folder = make_run(tmp_path / "run", EXAMPLE)
    for name in ("predictions/002.npz", "embeddings.npz"):
        (folder / name).write_text("damaged")
    other = make_run(tmp_path / "other", EXAMPLE, seed=1)
    loaded = [data.load(each, inside=False) for each in (folder, other)]
    assert len(page.sections(loaded)) > 5
    assert loaded[0].history.stages == []
    with pytest.raises(DataError, match=r"002\.npz"):
        data.load(folder)


def test_runs_of_one_method_are_told_apart_by_what_differs(tmp_path) -> None:
    folders = [make_run(tmp_path / str(i), EXAMPLE, seed=i) for i in range(2)]
    changed = json.loads((folders[1] / "config.json").read_text())
    changed["train"]["epochs"] = 99
    (folders[1] / "config.json").write_text(json.dumps(changed))
    names = list(data.group([data.load(folder) for folder in folders]))
    assert names == ["comm epochs=8", "comm epochs=99"]


def test_absent_parts_say_why(example: pathlib.Path, tmp_path: pathlib.Path) -> None:
    text = (example / "report.html").read_text()
    assert text.count("Not shown: there is no snapshot in the workdir") == 2
    assert "the data are not those that the run was made with" in text
    folder = make_run(tmp_path / "run", EXAMPLE)
    (folder / "embeddings.npz").unlink()
    shutil.rmtree(folder / "predictions")
    run = data.load(folder)
    text = page.render([run], page.sections([run]))
    assert "Not shown: the workdir has no embeddings.npz" in text
    assert "Not shown: the workdir has no predictions of its newest stage" in text


def test_warnings_are_listed(tmp_path: pathlib.Path) -> None:
    changes = {
        "skipped_samples": 4,
        "jitter": {"1": 1e-6},
        "refused_steps": 5,
        "restarts": 2,
        "batch_dependence": {"predicted_again": 9, "differing": 1},
    }
    folder = make_run(tmp_path / "run", EXAMPLE, **changes)
    line = "2026-01-01 10:00:00,000 warning: a is a test sample and b a training sample"
    (folder / "log.txt").write_text(
        f"{line}\n{line}\n2026-01-01 10:00:01,000 all well\n"
    )
    run = data.load(folder)
    (section,) = [s for s in page.sections([run]) if s.name == "warnings"]
    (block,) = section.blocks
    assert len(block.lines) == 6
    for part in (
        "4 samples",
        "1.0e-06",
        "5 steps",
        "2 times",
        "1 predictions",
        "leak"[:0],
    ):
        assert any(part in line for line in block.lines)
    assert 'href="#warnings"' in page.render([run], page.sections([run]))


def snapshots(folder: pathlib.Path, anchors: list[float], memory: Any = None) -> None:
    """Writes a snapshot a stage, with prompts of two modalities."""
    store = Snapshots(folder / "snapshots")
    for number, value in enumerate(anchors):
        prompts = jnp.stack([jnp.full((3,), value), jnp.ones(3)])
        relevance = jnp.array([[0.75, 0.25], [0.5, 0.5]])
        state = {
            "params": {"adapters": {"visual": jnp.zeros((2, 3))}},
            "memory": {
                "anchor": {"visual": {"prompts": prompts}},
                "router": {"mean_relevance": relevance},
            }
            if memory is None
            else memory,
        }
        results = Results.start(len(anchors))
        results.accuracy[:, :, : number + 1] = 0.5
        results.stages = number + 1
        store.save(number, state, results.to_json())
    store.close()


def test_drift_and_relevance_are_read_from_snapshots(tmp_path: pathlib.Path) -> None:
    folder = make_run(tmp_path / "run", EXAMPLE)
    snapshots(folder, [2.0, 2.0, 3.0])
    history = History(folder)
    history.follow({"image": "visual", "audio": "visual"})
    assert history.drift[1] == {"image": 0.0, "audio": 0.0}
    assert history.drift[2] == {"image": pytest.approx(0.5), "audio": 0.0}
    np.testing.assert_array_equal(history.relevance[2], [[0.75, 0.25], [0.5, 0.5]])
    run = data.load(folder)
    page.write([run], tmp_path / "out")
    rows = list(csv.reader(lines(tmp_path / "out" / "drift.csv")))
    # audio is met in the second task, so that its prompts drift from there
    assert rows == [
        ["prompts, after task", "2", "3"],
        ["image", "0.0", "0.5"],
        ["audio", "", "0.0"],
    ]
    rows = list(csv.reader(lines(tmp_path / "out" / "relevance-image.csv")))
    assert rows[1][:3] == ["image", "1", "0.75"]
    assert "Class means before" not in (tmp_path / "out" / "report.html").read_text()


def test_a_run_on_its_way_is_read_from_its_newest_snapshot(tmp_path) -> None:
    folder = make_run(tmp_path / "run", EXAMPLE, finished=False)
    with pytest.raises(DataError, match="neither results.json nor a snapshot"):
        data.load(folder)
    snapshots(folder, [2.0, 2.0, 2.0])
    shutil.rmtree(folder / "snapshots" / "002")
    run = data.load(folder)
    assert run.rows == (0, 1) and not run.finished
    text = page.render([run], page.sections([run]))
    assert "2 of 3 stages" in text
    assert len(heat(text, "accuracy-task-given")) == 2


def test_a_snapshot_that_cannot_be_read_is_named(tmp_path: pathlib.Path) -> None:
    folder = make_run(tmp_path / "run", EXAMPLE)
    snapshots(folder, [2.0])
    for file in (folder / "snapshots" / "000" / "state").rglob("*"):
        if file.is_file():
            file.write_bytes(b"x")
    run = data.load(folder)
    assert "snapshots/000 cannot be read" in page.render([run], page.sections([run]))


BAD = {
    "no config": ("config.json", None),
    "a broken config": ("config.json", "{"),
    "broken results": ("results.json", "[]"),
    "results without a matrix": ("results.json", '{"tasks": []}'),
    "a broken stream": ("stream.json", '{"stages": 3}'),
    "predictions that are none": ("predictions/002.npz", "PK"),
    "a class without a modality": ("stream.json", '{"stages": [[0]], "classes": [{}]}'),
}
# what a hand has changed: file, field, what stands there (absent: None), what is said
EDITED = {
    "no method": ("config.json", "method.name", None, "method.name is missing"),
    "a stage of no task": ("stream.json", "stages", [[9]], "not those of stream.json"),
    "a class of no tower": ("stream.json", "classes.0.modality", "smell", "'smell'"),
    "no cost": ("results.json", "cost", None, "cost is missing"),
    "seconds in words": (
        "results.json",
        "cost.seconds.train",
        "long",
        "cost.seconds.train cannot be 'long'",
    ),
    "a label space less": (
        "results.json",
        "accuracy.union",
        None,
        "accuracy.union is missing",
    ),
    "a ragged matrix": (
        "results.json",
        "accuracy.task.given",
        [[1], [1, 2]],
        "accuracy.task.given is no matrix of 3 x 3",
    ),
    "no counts": (
        "results.json",
        "batch_dependence.differing",
        None,
        "batch_dependence.differing is missing",
    ),
    "jitter of a name": ("results.json", "jitter", {"x": 1.0}, "jitter cannot be 'x'"),
    "a task of no modality": (
        "results.json",
        "tasks.1.modality",
        "smell",
        "tasks.1.modality cannot be 'smell'",
    ),
    "a small confusion": (
        "results.json",
        "modality_identification.confusion",
        [[1]],
        "confusion is no matrix of 2 x 2",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_damaged_workdir_is_refused_by_name(case: str, tmp_path) -> None:
    folder = make_run(tmp_path / "run", EXAMPLE)
    name, content = BAD[case]
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_text(content)
    with pytest.raises(DataError, match=re.escape(str(folder))):
        data.load(folder)


@pytest.mark.parametrize("case", EDITED)
def test_a_field_that_was_edited_is_named(case: str, tmp_path) -> None:
    name, field, value, message = EDITED[case]
    path = make_run(tmp_path / "run", EXAMPLE) / name
    whole = json.loads(path.read_text())
    *parents, last = field.split(".")
    inner = whole
    for key in parents:
        inner = inner[int(key) if isinstance(inner, list) else key]
    if value is None:
        del inner[last]
    else:
        inner[last] = value
    path.write_text(json.dumps(whole))
    with pytest.raises(DataError, match=re.escape(message)) as caught:
        data.load(path.parent)
    assert str(caught.value).startswith(str(path if name != "stream.json" else "/"))


@pytest.mark.parametrize("name", ["embeddings.npz", "predictions/002.npz"])
@pytest.mark.parametrize(
    "label", [np.array([7]), np.array([-1]), np.zeros((2, 2), int)]
)
def test_arrays_of_another_stream_are_refused(name, label, tmp_path) -> None:
    folder = make_run(tmp_path / "run", EXAMPLE)
    with np.load(folder / name) as stored:
        arrays = dict(stored) | {"label": label}
    np.savez(folder / name, **arrays)
    with pytest.raises(DataError, match=re.escape(str(folder / name))):
        data.load(folder)


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
    light = [pair[0] for pair in theme.COLOURS.values()]
    assert len(set(light)) == len(light)  # figures are recoloured by them


def test_embeddings_are_saved_class_by_class(
    tmp_path: pathlib.Path, monkeypatch
) -> None:
    from mmcl_jax.streams.base import Record

    monkeypatch.setattr(evaluate, "MAX_EMBEDDED", 7)
    reference = "not read"
    records = [
        Record(reference, label, 100 + i) for i, label in enumerate([0] * 20 + [1] * 3)
    ]
    queries = np.arange(23 * 2, dtype=np.float32).reshape(23, 2)
    path = tmp_path / "embeddings.npz"
    evaluate.save_embeddings(path, np.eye(2, dtype=np.float32), records, queries)
    with np.load(path) as arrays:
        assert arrays["id"].tolist() == [100, 101, 102, 103, 120, 121, 122]
        np.testing.assert_array_equal(arrays["query"][:, 0], 2 * (arrays["id"] - 100))
        assert arrays["label"].tolist() == [0] * 4 + [1] * 3


class _Run:
    """What the reporter wants of a run."""

    def __init__(self, when: str) -> None:
        self.config = config.Config(report=when)
        self.stream = self.encoder = None


@pytest.mark.parametrize(("when", "pages"), [("each_task", 2), ("end", 1), ("off", 0)])
def test_a_report_that_fails_is_one_line(when, pages, tmp_path, monkeypatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(live, "_SHARE", 1e9)
    reporter = live.Reporter(tmp_path, _Run(when), said.append)
    reporter.after_stage(lambda: {})
    reporter.at_end({})
    assert len(said) == pages
    assert all(line.startswith("report.html was not written: ") for line in said)
    assert all("\n" not in line for line in said)


def test_pages_between_tasks_take_a_bounded_share_of_the_time(
    tmp_path, monkeypatch
) -> None:
    said: list[str] = []
    now = iter([0.0, 100.0, 100.0, 106.0, 110.0, 121.0, 121.0, 122.0])
    monkeypatch.setattr(live.time, "perf_counter", lambda: next(now))
    reporter = live.Reporter(tmp_path, _Run("each_task"), said.append)
    for expected in (1, 1, 2):  # 6 of 110 seconds are too much, of 121 they are not
        reporter.after_stage(lambda: {})
        assert len(said) == expected


def test_a_run_starts_without_what_draws() -> None:
    program = (
        "import sys, mmcl_jax.main; print({'matplotlib', 'jinja2'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"


def report(*flags: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "mmcl_jax.report", *flags],
        cwd=helpers.REPOSITORY,
        env=helpers.environment(),
        capture_output=True,
        text=True,
    )


def test_the_program_refuses_what_is_no_workdir(tmp_path: pathlib.Path) -> None:
    done = report(f"--workdirs={tmp_path / 'no'}", f"--out={tmp_path / 'out'}")
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {tmp_path / 'no'}")
    assert not (tmp_path / "out").exists()


@runs
@pytest.mark.slow
def test_page_of_a_run(demo_run: helpers.Finished) -> None:
    text = (demo_run.workdir / "report.html").read_text()
    parsed = check_page(text)
    results = demo_run.results()
    for space in evaluate.SPACES:
        for route in evaluate.ROUTES:
            R = np.array(results["accuracy"][space][route], float)
            found = heat(text, f"accuracy-{space}-{route}")
            np.testing.assert_allclose(found, 100 * R, atol=0.051)
    stored = [
        results["metrics"][s][r] for s in evaluate.SPACES for r in evaluate.ROUTES
    ]
    for row, of_results in zip(
        values(text, "Metrics of the stream"), stored, strict=True
    ):
        expected = [of_results[name] for name in accuracy._TITLES]
        np.testing.assert_array_equal(row, np.array(expected, float))
    said = " ".join(parsed.text)
    for task in results["tasks"]:
        assert task["name"] in said and all(name in said for name in task["classes"])
    for part in ("stream_hash", "not written"):
        assert part not in said
    assert results["environment"]["jax"] in said
    assert "Not shown" not in text.replace("no test sample was mistaken", "")
    assert "report.html" not in (demo_run.workdir / "log.txt").read_text()


@runs
@pytest.mark.slow
def test_program_makes_the_page_that_the_run_made(demo_run, tmp_path) -> None:
    done = report(f"--workdirs={demo_run.workdir}", f"--out={tmp_path / 'one.html'}")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert (tmp_path / "one.html").read_text() == (
        demo_run.workdir / "report.html"
    ).read_text()


@runs
@pytest.mark.slow
@pytest.mark.parametrize("modality", ["image", "video", "audio", "depth", "text"])
def test_samples_of_every_modality_can_be_shown(demo_run, modality: str) -> None:
    from mmcl_jax.report import examples

    run = data.load(demo_run.workdir)
    stream, _ = run.source
    task = next(task for task in stream.tasks if task.modality == modality)
    shown_sample = examples._example(run, task.test[0].id, task.test[0].label)
    kind, start = {
        "audio": ("sound", "data:audio/mpeg;base64,"),
        "text": ("sentence", ""),
    }.get(modality, ("picture", "data:image/webp;base64,"))
    assert shown_sample.kind == kind
    assert shown_sample.content.startswith(start)
    assert 8 < len(shown_sample.content) < examples.MAX_BYTES / 18


PROBE = (pathlib.Path(__file__).parent / "report_probe.js").read_text(encoding="utf-8")


def browser() -> str | None:
    """Returns a Chromium, or None."""
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    return next((found for name in names if (found := shutil.which(name))), None)


def probed(text: str, folder: pathlib.Path, width: int, dark: bool) -> dict[str, Any]:
    """Opens a page in a browser and returns what the probe saw."""
    path = folder / "probed.html"
    listen = "addEventListener('error', e => errors.push(e.message))"
    catch = f"<script>var errors = []; {listen}</script>"
    path.write_text(
        text.replace("<head>", f"<head>{catch}", 1).replace(
            "</body>", f"<script>{PROBE}</script></body>"
        )
    )
    done = subprocess.run(
        [
            browser(),
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            f"--user-data-dir={folder / 'profile'}",
            f"--window-size={width},900",
            f"--blink-settings=preferredColorScheme={0 if dark else 1}",
            "--enable-logging=stderr",
            "--virtual-time-budget=2000",
            "--dump-dom",
            path.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "CONSOLE" not in done.stderr, done.stderr
    found = re.search(r'<script type="probe">(.*?)</script>', done.stdout, re.DOTALL)
    assert found, done.stderr[-2000:]
    return json.loads(found[1])


@runs
@pytest.mark.slow
@pytest.mark.skipif(browser() is None, reason="no Chromium is installed")
@pytest.mark.parametrize("width", [1280, 500])
@pytest.mark.parametrize("dark", [False, True])
def test_page_in_a_browser(demo_run, tmp_path, width: int, dark: bool) -> None:
    text = (demo_run.workdir / "report.html").read_text()
    seen = probed(text, tmp_path, width, dark)
    assert seen["errors"] == []
    assert seen["dark"] == dark
    assert seen["figures"] >= 15
    assert seen["empty"] == []
    assert seen["illegible"] == []
    assert seen["sorted"] == seen["tables"] >= 3
    assert seen["overflow"] <= 0
    assert seen["shown"] == [1, 1]
    assert seen["readout"]
