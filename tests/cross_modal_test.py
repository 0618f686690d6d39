"""Transfer across modalities, by hand, in results and on a page."""

import csv
import json
import pathlib

import numpy as np

from mmcl_jax.evaluation import cross_modal
from mmcl_jax.report import run_loader
from mmcl_jax.streams.base import Stream, TaskDraft, build_stream, joint
from tests.pages import EXAMPLE, lines, make_run, reseal, write_tables

TASKS = (
    ("seen", "image", ("bell", "drum")),
    ("also seen", "image", ("cat", "horn")),
    ("heard", "audio", ("drum", "horn")),  # of two tasks
    ("half", "audio", ("bell", "wind")),
    ("felt", "depth", ("Bell", "drum")),  # of two modalities
    ("again", "audio", ("drum",)),  # is known in its own
)


def _stream() -> Stream:
    drafts = [
        TaskDraft(
            name,
            modality,
            tuple((each, name) for each in classes),
            tuple(() for _ in classes),
            tuple(() for _ in classes),
        )
        for name, modality, classes in TASKS
    ]
    return build_stream(drafts)


def _numbers() -> tuple[np.ndarray, np.ndarray]:
    """Returns numbers that tell their places: route, row and column."""
    routes, rows, columns = np.indices((2, 6, 6))
    accuracy = (10 * rows + columns + 100 * routes) / 1000
    return accuracy, accuracy[0] + 0.5


def test_tasks_that_were_learnt_in_other_modalities_alone() -> None:
    found = cross_modal.transfers(_stream(), *_numbers())
    assert found == [
        {
            "task": "heard",
            "modality": "audio",
            "learnt_in": ["image"],
            "chance": 0.5,
            "frozen": 0.512,
            "given": 0.012,
            "predicted": 0.112,
        },
        {
            "task": "felt",
            "modality": "depth",
            "learnt_in": ["image", "audio"],
            "chance": 0.5,
            "frozen": 0.534,
            "given": 0.034,
            "predicted": 0.134,
        },
    ]


def test_what_was_not_scored_before_is_left_out() -> None:
    accuracy, zero_shot = _numbers()
    accuracy[:, 1, 2] = np.nan
    found = cross_modal.transfers(_stream(), accuracy, zero_shot)
    assert [each["task"] for each in found] == ["felt"]
    # a single stage has nothing before it
    assert cross_modal.transfers(joint(_stream()), accuracy, zero_shot) == []


def test_a_page_has_it(tmp_path: pathlib.Path) -> None:
    folder = make_run(tmp_path / "run", EXAMPLE, names=("bell", "Bell", "cat"))
    path = folder / "stream.json"
    stream = json.loads(path.read_text())
    stream["classes"][1]["canonical"] = 0
    path.write_text(json.dumps(stream))
    reseal(folder)
    write_tables([run_loader.load(folder)], tmp_path / "out")
    head, row = csv.reader(lines(tmp_path / "out" / "across.csv"))
    assert head[:3] == ["task", "modality", "learnt in"]
    assert row[:3] == ["Bell", "audio", "image"]
    # before the second task .1, of which the frozen encoder has half
    np.testing.assert_allclose([float(v) for v in row[3:]], [1, 0.05, 0.1, 0.1, 0.05])
