"""From a run's files back to its numbers."""

import json
import pathlib
from typing import Literal

import numpy as np
import pytest

from mmcl_jax import config
from mmcl_jax.evaluation.label_spaces import ROUTES, SPACES
from mmcl_jax.report import live
from mmcl_jax.training import experiment
from tests import helpers

METRICS = {
    "last_average_accuracy",
    "average_incremental_accuracy",
    "learning_accuracy",
    "forgetting_chaudhry",
    "backward_transfer",
    "forward_transfer",
    "transfer_zscl",
    "average_zscl",
    "excess_forgetting",
}


def _null(values) -> np.ndarray:
    return np.array(values, np.float64)


@pytest.mark.slow
def test_results_have_all_their_keys(whole_run: helpers.Finished) -> None:
    results = whole_run.results()
    assert results["schema"] == 1
    assert results["method"] == "comm"
    assert results["seeds"] == {"order": 0, "init": 0, "data": 0}
    modalities = [task["modality"] for task in results["tasks"]]
    assert sorted(modalities) == ["image", "image", "video"]
    for task in results["tasks"]:
        assert task.keys() == {"name", "modality", "classes", "train", "test"}
        assert (len(task["classes"]), task["train"], task["test"]) == (2, 10, 12)
    assert list(results["accuracy"]) == list(results["metrics"]) == list(SPACES)
    for space in SPACES:
        assert list(results["accuracy"][space]) == list(ROUTES)
        for route in ROUTES:
            assert _null(results["accuracy"][space][route]).shape == (3, 3)
            assert results["metrics"][space][route].keys() == METRICS
    found = results["modality_identification"]
    assert found.keys() == {"accuracy", "balanced", "confusion"}
    cost = results["cost"]
    assert cost.keys() >= {
        "seconds",
        "compilations",
        "parameters_trained",
        "bytes_remembered",
        "bytes_per_class",
        "bytes_per_task",
        "forwards_per_step",
    }
    assert set(cost["seconds"]) == {
        "text",
        "queries",
        "prepare",
        "train",
        "observe",
        "evaluate",
        "invariance",
        "calibrate",
        "report",
    }


@pytest.mark.slow
def test_cost_is_what_the_shapes_say(whole_run: helpers.Finished) -> None:
    cost = whole_run.results()["cost"]
    # two modalities: two layers of two prompts, 16 wide
    assert cost["parameters_trained"] == 2 * 2 * 2 * 16
    stored = helpers.snapshot(whole_run.workdir, 2)
    assert cost["bytes_allocated"] == sum(leaf.nbytes for leaf in stored.values())
    assert cost["bytes_remembered"] < cost["bytes_allocated"]
    assert cost["compilations"] == 2
    # the features, and the reference that they are held to; both routes, and nothing
    # of the frozen tower, whose views are cached
    assert (cost["forwards_per_step"], cost["forwards_per_prediction"]) == (2, 2)


def _recomputed(run: helpers.Finished, space: str, route: str) -> np.ndarray:
    """The accuracy matrix, from stored predictions and the stream's class names."""
    stream = json.loads((run.workdir / "stream.json").read_text())
    names = np.array([slot["name"] for slot in stream["classes"]])
    tasks = len(stream["tasks"])
    matrix = np.full((tasks, tasks), np.nan)
    for stage in range(tasks):
        columns = helpers.predictions(run.workdir, stage)
        for task in range(tasks):
            rows = columns["task"] == task
            chosen = columns[f"chosen/{space}/{route}"][rows]
            if len(chosen) and (chosen >= 0).all():
                hit = names[chosen] == names[columns["label"][rows]]
                matrix[stage, task] = hit.mean()
    return matrix


@pytest.mark.slow
def test_answers_are_classes_of_the_modality_that_was_predicted(
    whole_run: helpers.Finished,
) -> None:
    columns = helpers.predictions(whole_run.workdir, 2)
    stream = json.loads((whole_run.workdir / "stream.json").read_text())
    of = [stream["modalities"].index(slot["modality"]) for slot in stream["classes"]]
    chosen = columns["chosen/routed/predicted"]
    answered = chosen >= 0
    assert answered.sum() > 8
    np.testing.assert_array_equal(
        np.array(of)[chosen[answered]], columns["modality"][answered]
    )


@pytest.mark.slow
@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("space", SPACES)
def test_results_follow_from_stored_predictions(
    whole_run: helpers.Finished, space: str, route: str
) -> None:
    results = whole_run.results()
    R = _recomputed(whole_run, space, route)
    np.testing.assert_array_equal(_null(results["accuracy"][space][route]), R)
    # what was learnt is known; of what was not, the next task alone was looked at
    T = len(R)
    assert not np.isnan(R[np.tril_indices(T)]).any()
    ahead = np.isnan(np.diagonal(R, offset=1))
    assert ahead.all() == (space in ("modality", "union", "routed"))
    assert np.isnan(R[0, 2])

    zero = _null(results["zero_shot"][space])
    drops = [
        np.mean([max(A[j:-1, j]) - A[-1, j] for j in range(T - 1)]) for A in (R, zero)
    ]
    assert np.isnan(zero[0, 2])
    last = R[-1]
    expected = {
        "last_average_accuracy": np.mean(last),
        "average_incremental_accuracy": np.mean(
            [np.mean(R[i, : i + 1]) for i in range(T)]
        ),
        "learning_accuracy": np.mean([R[j, j] for j in range(T)]),
        "forgetting_chaudhry": drops[0],
        "excess_forgetting": drops[0] - drops[1],
        "backward_transfer": np.mean([last[j] - R[j, j] for j in range(T - 1)]),
        "forward_transfer": np.mean(
            [R[j - 1, j] - zero[j - 1, j] for j in range(1, T)]
        ),
    }
    stored = results["metrics"][space][route]
    for name, value in expected.items():
        np.testing.assert_allclose(_null(stored[name]), value, atol=1e-12, err_msg=name)
    assert (stored["forward_transfer"] is None) == (
        space in ("modality", "union", "routed")
    )


@pytest.mark.slow
def test_identification_follows_from_stored_predictions(
    whole_run: helpers.Finished,
) -> None:
    results = whole_run.results()
    columns = helpers.predictions(whole_run.workdir, 2)
    order = results["modalities"]
    confusion = np.zeros((2, 2), int)
    for task, predicted in zip(columns["task"], columns["modality"], strict=True):
        true = order.index(results["tasks"][task]["modality"])
        confusion[true, predicted] += 1
    found = results["modality_identification"]
    assert found["confusion"] == confusion.tolist()
    assert found["accuracy"] == np.trace(confusion) / confusion.sum()
    assert confusion.sum() == 36


@pytest.mark.slow
def test_each_sample_is_stored_once_with_its_own_label(
    whole_run: helpers.Finished,
) -> None:
    columns = helpers.predictions(whole_run.workdir, 2)
    assert len(set(columns["id"].tolist())) == len(columns["id"]) == 36
    counts = np.bincount(columns["label"], minlength=6)
    np.testing.assert_array_equal(counts, 6)


@pytest.mark.parametrize("upcoming", ["next", "all"])
def test_all_upcoming_tasks_are_scored_on_demand(
    upcoming: Literal["next", "all"],
    encoder_folder: pathlib.Path,
    tmp_path: pathlib.Path,
) -> None:
    stream = config.World(
        tasks=4,
        classes_per_task=2,
        modalities=("text",),
        train_per_class=2,
        test_per_class=4,
    )
    results = experiment.run(
        config.Config(
            stream=stream,
            encoder=config.EncoderOptions(str(encoder_folder)),
            method=config.MethodOptions("zero_shot"),
            train=config.TrainOptions(batch_size=8),
            evaluation=config.EvaluationOptions(upcoming=upcoming),
        ),
        tmp_path / "run",
        make_reporter=live.Reporter,
    )
    assert results
    page = (tmp_path / "run" / "report.html").read_text("utf-8")
    assert ("transfer (ZSCL)" in page) == (upcoming == "all")
    R = _null(results["accuracy"]["universe"]["predicted"])
    found = results["metrics"]["universe"]["predicted"]
    if upcoming == "next":
        assert np.isnan(R[0, 2])
        assert found["transfer_zscl"] is found["average_zscl"] is None
        return
    # nothing is learnt, so a task is known as well before it as after it
    np.testing.assert_array_equal(R, np.broadcast_to(R[-1], R.shape))
    np.testing.assert_array_equal(R, _null(results["zero_shot"]["universe"]))
    assert found["transfer_zscl"] == pytest.approx(R[-1, 1:].mean())
    assert found["average_zscl"] == pytest.approx(found["last_average_accuracy"])
    # where classes yet to come cannot win, there is nothing to know
    assert results["metrics"]["union"]["predicted"]["transfer_zscl"] is None


@pytest.mark.full("methods")
@pytest.mark.slow
def test_looking_further_ahead_changes_nothing_else(
    encoder_folder: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    stream = config.World(
        tasks=4,
        classes_per_task=2,
        modalities=("image", "text"),
        order="by_modality",
        train_per_class=2,
        test_per_class=4,
    )
    near, far = (
        experiment.run(
            config.Config(
                stream=stream,
                encoder=config.EncoderOptions(str(encoder_folder)),
                method=config.MethodOptions("comm"),
                train=config.TrainOptions(batch_size=8, epochs=1),
                evaluation=config.EvaluationOptions(upcoming=upcoming),
            ),
            tmp_path / upcoming,
        )
        for upcoming in ("next", "all")
    )
    assert near
    assert far
    for space in SPACES:
        for route in ROUTES:
            R = _null(near["accuracy"][space][route])
            known = ~np.isnan(R)
            further = _null(far["accuracy"][space][route])
            np.testing.assert_array_equal(further[known], R[known])
            # a class to come can win where all classes or those of its task may
            if space in ("task", "universe"):
                assert np.isnan(R[0, 2])
                assert np.isfinite(further).all()
