"""Results are what the stored predictions give, or it is said where they are not."""

import pathlib
import shutil

import numpy as np
import pytest

from mmcl_jax import reproduce
from mmcl_jax.errors import WorkdirError
from tests import helpers
from tests.pages import EXAMPLE, make_run, predict, seal
from tests.programs import run_each


def test_a_real_run_is_what_its_predictions_give(
    whole_run: helpers.Finished, tmp_path: pathlib.Path
) -> None:
    assert reproduce.differences(str(whole_run.workdir)) == []
    forged = tmp_path / "forged"
    shutil.copytree(whole_run.workdir, forged)
    results = helpers.results(forged)
    results["accuracy"]["union"]["given"][2][0] = 0.987
    results["metrics"]["task"]["given"]["learning_accuracy"] = 0.123
    seal(forged, results)  # with a right checksum
    metric, wrong = reproduce.differences(str(forged))
    assert wrong.startswith("accuracy.union.given, after ")
    assert "0.987 in the results" in wrong
    assert metric.startswith("metrics.task.given.learning_accuracy: 0.123 in the")
    commands = [[f"--check={path}"] for path in (whole_run.workdir, forged, tmp_path)]
    equal, different, none = run_each("mmcl_jax.reproduce", commands, tmp_path)
    assert (equal.code, equal.output) == (0, "equal\n")
    assert different.code == 1 and different.output.endswith("different\n")
    assert none.code == 2 and "no run in it" in none.errors


def test_accuracies_by_hand(tmp_path: pathlib.Path) -> None:
    folder = make_run(tmp_path / "run", EXAMPLE)
    # four samples of each of three classes; after the last stage half of the second
    # class is taken for the first one
    chosen = np.repeat([[0, 1, 2]] * 2, 4, axis=1).astype(np.int32)
    chosen[1, 4:6] = 0
    predict(folder, 2, 4, chosen)
    run = reproduce.read_run(folder)
    matrix = reproduce.accuracies(run)
    assert matrix.shape == (5, 2, 3, 3)
    np.testing.assert_array_equal(matrix[2, 0, 2], [1, 1, 1])
    np.testing.assert_array_equal(matrix[2, 1, 2], [1, 0.5, 1])
    assert np.isnan(matrix[:, :, 0, 2]).all()
    assert reproduce.differences(str(folder))


def test_a_run_on_its_way_has_no_results(tmp_path: pathlib.Path) -> None:
    folder = make_run(tmp_path / "run", EXAMPLE, finished=False)
    with pytest.raises(WorkdirError, match="not finished"):
        reproduce.differences(str(folder))
