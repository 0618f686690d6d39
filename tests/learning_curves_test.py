"""The section of a report on training steps, and the lines that it reads."""

import json
import math
import pathlib

import pytest

from mmcl_jax.report import learning, run_loader
from mmcl_jax.report.blocks import Panels
from mmcl_jax.report.run_data import group
from mmcl_jax.workdir.reading import LoggedStep, read_steps
from tests.pages import EXAMPLE, make_run


def _log(folder: pathlib.Path, rows: list[object]) -> None:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")


def _section(folder: pathlib.Path):
    return learning.learning(group([run_loader.load(folder)]))


def test_steps_of_the_stream_are_counted_on(tmp_path: pathlib.Path) -> None:
    folder = make_run(tmp_path / "run", EXAMPLE)
    _log(
        folder,
        [
            {"stage": 0, "step": 2, "loss": 0.5, "accuracy": 0.25},
            {"stage": 0, "step": 4, "loss": 0.25, "accuracy": 0.5},
            {"stage": 1, "step": 2, "loss": 1.5, "accuracy": 1.0},
        ],
    )
    (panels,) = _section(folder).blocks
    assert isinstance(panels, Panels)
    loss, accuracy = panels.charts
    assert (loss.name, loss.unit) == ("learning-loss", "")
    assert (accuracy.unit, accuracy.limits) == ("%", (-0.02, 1.02))
    image, audio = loss.series  # the modalities of the first two stages
    assert image.x == audio.x == (2, 4, 6)
    assert image.y[:2] == (0.5, 0.25) and math.isnan(image.y[2])
    assert audio.y[2] == 1.5 and math.isnan(audio.y[0])
    assert loss.limits == pytest.approx((-0.03, 1.53))


def test_a_run_that_trains_nothing_says_so(tmp_path: pathlib.Path) -> None:
    folder = make_run(tmp_path / "run", EXAMPLE)
    assert _section(folder).absent == "nothing is trained step by step"


def test_lines_that_are_no_steps_are_left_out(tmp_path: pathlib.Path) -> None:
    good = {"stage": 1, "step": 3, "loss": 2, "note": "x", "bad": None}
    odd = ["{", "[1]", "3", "[" * 10_000, {"stage": 0}, {"stage": 9, "step": 1}]
    infinite = '{"stage": 0, "step": 1, "loss": Infinity}'
    _log(tmp_path, [*odd, good, infinite])
    assert read_steps(tmp_path, 2) == (
        LoggedStep(1, 3, {"loss": 2.0}),
        LoggedStep(0, 1, {}),
    )
    assert read_steps(tmp_path / "none", 2) == ()
