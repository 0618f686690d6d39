"""A workdir is read in one place: one defect has one error in every program."""

import ast
import json
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import mmcl_jax
from mmcl_jax.analysis.run_comparison import compare_runs
from mmcl_jax.analysis.snapshot_comparison import compare_snapshots
from mmcl_jax.errors import DataError, WorkdirError
from mmcl_jax.report import run_loader
from mmcl_jax.serving import from_workdir
from mmcl_jax.workdir import layout, predictions, reading
from tests.pages import EXAMPLE, make_run

READERS: dict[str, Callable[[pathlib.Path], Any]] = {
    "report": run_loader.load,
    "predict": from_workdir.load,
    "compare runs": lambda folder: compare_runs(folder, folder.parent / "other"),
    "compare snapshots": lambda folder: compare_snapshots(folder, 1, 2),
}
# file, field, what stands there (absent: None), what is said
DEFECTS = {
    "no run": ("config.json", "", None, "config.json is not there"),
    "no list of seeds": ("config.json", "seeds", [1], "config.json: seeds cannot be"),
    "a seed in words": ("config.json", "seeds.order", "one", "seeds.order cannot be"),
    "a method of no name": (
        "config.json",
        "method.name",
        3,
        "method.name cannot be '3'",
    ),
    "no stream": ("stream.json", "", None, "stream.json: no such file"),
    "no hash": ("stream.json", "hash", None, "stream.json: hash is missing"),
    "no towers": ("stream.json", "towers", {}, "stream.json: towers.image is missing"),
    "a version": ("stream.json", "preprocessing", {"image": 1}, "preprocessing.image"),
    "a class": ("stream.json", "classes.0.canonical", 9, "classes.0.canonical cannot"),
    "a stage": (
        "stream.json",
        "stages",
        [[0], [1]],
        "do not hold each task exactly once",
    ),
    "a task": ("stream.json", "tasks.1.classes", ["x"], "tasks.1.classes: 'x' is no"),
    "a count": ("stream.json", "tasks.1.test", None, "tasks.1.test is missing"),
    "a slot": ("stream.json", "classes.1.more", 1, "unexpected keyword argument"),
}


def change(path: pathlib.Path, field: str, value: Any) -> None:
    """Sets or removes (None) a field of a JSON file, or with "" the whole of it."""
    if not field:
        return path.unlink()
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
    return None


@pytest.mark.parametrize("case", DEFECTS)
def test_every_program_says_the_same_of_a_defect(case: str, tmp_path) -> None:
    name, field, value, message = DEFECTS[case]
    folder = make_run(tmp_path / "run", EXAMPLE)
    make_run(tmp_path / "other", EXAMPLE)
    change(folder / name, field, value)
    said = set()
    for read in READERS.values():
        with pytest.raises((DataError, WorkdirError)) as caught:
            read(folder)
        said.add((type(caught.value), str(caught.value)))
    ((_, text),) = said
    assert message in text
    assert text.startswith(str(folder))


def test_a_run_is_read_back(tmp_path) -> None:
    run = reading.read_run(make_run(tmp_path / "run", EXAMPLE))
    assert [slot.name for slot in run.stream.classes] == [f"class {i}" for i in "012"]
    assert run.towers == {"image": "visual", "audio": "visual"}
    assert run.stages == 3
    assert reading.config_of(run).method.name == "comm"
    results = reading.read_results(run)
    assert results is not None and results["method"] == "comm"
    found = predictions.read_predictions(run.workdir, run.owner, run.stream, 2)
    assert found.chosen.shape == (5, 2, 3)
    kept = predictions.read_embeddings(run.workdir, run.owner, run.stream)
    assert kept is not None and kept.text.shape == (3, 4)
    (run.workdir / "results.json").unlink()
    (run.workdir / "embeddings.npz").unlink()
    assert (
        reading.read_results(run)
        is predictions.read_embeddings(run.workdir, run.owner, run.stream)
        is None
    )


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "true", "null"])
def test_costs_are_finite_numbers(value: str, tmp_path) -> None:
    path = make_run(tmp_path / "run", EXAMPLE) / "results.json"
    text = path.read_text().replace('"bytes_per_task": 7', f'"bytes_per_task": {value}')
    path.write_text(text)
    with pytest.raises(DataError, match=r"results\.json: cost\.bytes_per_task cannot"):
        reading.read_results(reading.read_run(path.parent))


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("text", np.zeros((3, 4), int)),
        ("text", np.zeros(3)),
        ("text", np.zeros((2, 4))),
        ("query", np.zeros((3, 5))),
        ("query", np.zeros((2, 4))),
        ("id", np.array([0, 1, -1])),
        ("id", np.array([0.0, 1.0, 2.0])),
        ("label", np.array([0, 1, 3])),
    ],
)
def test_embeddings_of_another_stream_are_refused(name, array, tmp_path) -> None:
    run = reading.read_run(make_run(tmp_path / "run", EXAMPLE))
    path = run.workdir / layout.EMBEDDINGS
    with np.load(path) as stored:
        np.savez(path, **dict(stored) | {name: array})
    with pytest.raises(DataError, match=r"embeddings\.npz: .*" + name):
        predictions.read_embeddings(run.workdir, run.owner, run.stream)


def test_no_other_room_spells_the_files_of_a_run() -> None:
    package = pathlib.Path(mmcl_jax.__file__).parent
    names = {v for k, v in vars(layout).items() if k.isupper() and "." in v}
    assert {"config.json", "results.json", "report.html"} <= names
    # encoders have a config.json, too
    others = ("workdir", "models", "modalities", "configs")
    for path in package.rglob("*.py"):
        if path.relative_to(package).parts[0] in others:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            assert not (isinstance(node, ast.Constant) and node.value in names), path
