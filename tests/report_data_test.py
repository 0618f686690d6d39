"""What a page reads of a workdir, and what it refuses."""

import csv
import json
import pathlib
import re
import shutil
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from mmcl_jax.errors import DataError, WorkdirError
from mmcl_jax.report import page, run_loader
from mmcl_jax.report.history import History
from mmcl_jax.streams.base import Record
from mmcl_jax.workdir import states
from mmcl_jax.workdir.predictions import save_embeddings, some_of_each_class
from mmcl_jax.workdir.results import Results
from mmcl_jax.workdir.snapshots import Snapshots
from tests.pages import EXAMPLE, heat, lines, make_run, run_id, write_tables


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
        place = states.place(folder, run_id(folder), number)
        store.save(number, state, results.to_json() | place)
    store.close()


def test_drift_and_relevance_are_read_from_snapshots(tmp_path: pathlib.Path) -> None:
    folder = make_run(tmp_path / "run", EXAMPLE)
    snapshots(folder, [2.0, 2.0, 3.0])
    history = History(folder)
    towers = {"image": "visual", "audio": "visual"}
    history.follow(towers, ("image", "audio"))
    assert history.drift[1] == {"image": 0.0, "audio": 0.0}
    assert history.drift[2] == {"image": pytest.approx(0.5), "audio": 0.0}
    np.testing.assert_array_equal(history.relevance[2], [[0.75, 0.25], [0.5, 0.5]])
    run = run_loader.load(folder)
    write_tables([run], tmp_path / "out")
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
        run_loader.load(folder)
    snapshots(folder, [2.0, 2.0, 2.0])
    shutil.rmtree(folder / "snapshots" / "002")
    run = run_loader.load(folder)
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
    run = run_loader.load(folder)
    assert "snapshots/000 cannot be read" in page.render([run], page.sections([run]))


def test_of_several_runs_the_inside_is_not_read(tmp_path: pathlib.Path) -> None:
    folder = make_run(tmp_path / "run", EXAMPLE)
    for name in ("predictions/002.npz", "embeddings.npz"):
        (folder / name).write_text("damaged")
    other = make_run(tmp_path / "other", EXAMPLE, seed=1)
    loaded = [run_loader.load(each, inside=False) for each in (folder, other)]
    assert len(page.sections(loaded)) > 5
    assert loaded[0].history.stages == []
    with pytest.raises(DataError, match=r"002\.npz"):
        run_loader.load(folder)


def test_warnings_are_listed(tmp_path: pathlib.Path) -> None:
    changes = {
        "skipped_samples": 4,
        "unscored": [],
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
    run = run_loader.load(folder)
    (section,) = [s for s in page.sections([run]) if s.name == "warnings"]
    (block,) = section.blocks
    assert len(block.lines) == 6
    for part in (
        "4 samples",
        "1.0e-06",
        "5 steps",
        "2 times",
        "1 predictions",
    ):
        assert any(part in line for line in block.lines)
    assert 'href="#warnings"' in page.render([run], page.sections([run]))


BAD = {
    "no config": ("config.json", None),
    "a broken config": ("config.json", "{"),
    "broken results": ("results.json", "[]"),
    "results without a matrix": ("results.json", '{"tasks": []}'),
    "a broken stream": ("stream.json", '{"stages": 3}'),
    "predictions that are none": ("predictions/002.npz", "PK"),
    "a class without a modality": ("stream.json", '{"stages": [[0]], "classes": [{}]}'),
}


@pytest.mark.parametrize("case", BAD)
def test_a_damaged_workdir_is_refused_by_name(case: str, tmp_path) -> None:
    folder = make_run(tmp_path / "run", EXAMPLE)
    name, content = BAD[case]
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_text(content)
    with pytest.raises((DataError, WorkdirError), match=re.escape(str(folder))):
        run_loader.load(folder)


# what a hand has changed: file, field, what stands there (absent: None), what is said
EDITED = {
    "no method": ("config.json", "method.name", None, "method.name is missing"),
    "a stage of no task": (
        "stream.json",
        "stages",
        [[9]],
        "stages do not hold each task exactly once",
    ),
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
        "accuracy.task.given is not a matrix of 3 x 3",
    ),
    "an accuracy beyond all numbers": (
        "results.json",
        "accuracy.task.given",
        [[10**400] * 3] * 3,
        "accuracy.task.given is not a matrix of 3 x 3",
    ),
    "seconds beyond all numbers": (
        "results.json",
        "cost.seconds.train",
        10**400,
        "cost.seconds.train cannot be '1000",
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
        "confusion is not a matrix of 2 x 2",
    ),
}


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
        run_loader.load(path.parent)
    assert str(caught.value).startswith(str(path))


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
        run_loader.load(folder)


def test_embeddings_are_saved_class_by_class(
    tmp_path: pathlib.Path, monkeypatch
) -> None:
    monkeypatch.setattr("mmcl_jax.workdir.predictions.MAX_EMBEDDED", 7)
    reference = "not read"
    records = [
        Record(reference, label, 100 + i) for i, label in enumerate([0] * 20 + [1] * 3)
    ]
    chosen = some_of_each_class(records)
    queries = np.array([[2 * (row.id - 100), 0] for row in chosen], np.float32)
    path = tmp_path / "embeddings.npz"
    save_embeddings(path, "run", 0, np.eye(2, dtype=np.float32), chosen, queries)
    with np.load(path) as arrays:
        assert arrays["id"].tolist() == [100, 101, 102, 103, 120, 121, 122]
        np.testing.assert_array_equal(arrays["query"][:, 0], 2 * (arrays["id"] - 100))
        assert arrays["label"].tolist() == [0] * 4 + [1] * 3
