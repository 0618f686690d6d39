"""Predictions that depend on their batch end a run; others pass the second look."""

import dataclasses
import pathlib

import jax.numpy as jnp
import numpy as np
import pytest

from mmcl_jax import config
from mmcl_jax.errors import BatchDependenceError
from mmcl_jax.evaluation import batch_independence
from mmcl_jax.evaluation.batch_independence import Witness, differing, sample
from mmcl_jax.methods.base import Common, Features, Method
from mmcl_jax.methods.registry import METHODS, Entry
from mmcl_jax.methods.zero_shot import make as zero_shot
from mmcl_jax.modalities.base import TextReference
from mmcl_jax.models.model import Model
from mmcl_jax.streams.base import Record
from mmcl_jax.training import experiment
from mmcl_jax.types import Batch, Context, Params, Prediction


def _rows(count: int, first: int = 0) -> list[Record]:
    return [Record(TextReference("", "", i), 0, first + i) for i in range(count)]


ALL = np.ones((1, 1, 3), bool)


def _differ(before: list, after: list, allowed: np.ndarray = ALL) -> bool:
    """One sample, one route."""
    pair = (np.array([[x]], np.float32) for x in (before, after))
    (found,) = differing(*pair, allowed)
    return bool(found)


def test_equal_logits_pass() -> None:
    assert not _differ([1, 2, 3], [1, 2, 3])
    assert not _differ([0, 0, 0], [0, 0, 0])
    assert not _differ([-np.inf, 2, -3e38], [-np.inf, 2, -3e38])


def test_logits_may_move_by_a_ten_thousandth_of_the_largest() -> None:
    assert not _differ([1, 2, 100], [1.009, 2, 100])
    assert _differ([1, 2, 100], [1.011, 2, 100])
    # what stands for minus infinity does not count as the largest
    assert _differ([1, 2, -3e38], [1.011, 2, -3e38])
    assert not _differ([1, 2, -3e38], [1, 2, -2e38])


def test_what_is_masked_must_stay_so() -> None:
    assert _differ([1, 2, -np.inf], [1, 2, 0])
    assert _differ([1, 2, 0], [1, 2, -np.inf])
    assert _differ([1, 2, 0], [1, 2, np.nan])
    assert _differ([np.nan, 2, 0], [1, 2, 0])


def test_another_winner_is_another_prediction_unless_it_was_a_tie() -> None:
    # less than the tolerance of logits, and more than rounding
    assert _differ([50.005, 50, 100], [50, 50.005, 100], ALL & [True, True, False])
    assert not _differ([50.005, 50, 100], [50, 50.005, 100])
    assert not _differ([50, 50, 100], [50, 50.0001, 100], ALL & [True, True, False])
    # a space without slots has no winner
    assert not _differ([50.005, 50, 100], [50, 50.005, 100], np.zeros((1, 2, 3), bool))


def test_samples_and_routes_are_looked_at_one_by_one() -> None:
    before = np.arange(24, dtype=np.float32).reshape(2, 4, 3)
    after = before.copy()
    after[1, 2, 0] += 1
    after[0, 3, 2] += 1
    allowed = np.ones((4, 2, 3), bool)
    assert differing(before, after, allowed).tolist() == [False, False, True, True]


def test_half_of_the_samples_are_chosen_and_a_batch_at_most() -> None:
    records = {"image": _rows(9), "text": _rows(4, first=9)}
    for seed in range(3):
        chosen = sample(records, 4, seed)
        assert {name: len(rows) for name, rows in chosen.items()} == {
            "image": 4,
            "text": 2,
        }
        for name, rows in chosen.items():
            assert set(rows) <= set(records[name])
            assert len(set(rows)) == len(rows)
    assert sample(records, 4, 1) != sample(records, 4, 2)
    assert sample({"image": _rows(1)}, 4, 0)["image"] == _rows(1)


def test_a_witness_hands_on_what_it_sees_and_keeps_its_own_rows() -> None:
    rows = _rows(5)
    logits = np.arange(2 * 6 * 3, dtype=np.float32).reshape(2, 6, 3)
    batches = [Prediction(logits[:, i : i + 2], None) for i in (0, 2, 4)]
    witness = Witness({"image": [rows[4], rows[1]]})
    assert list(witness.watch(rows, iter(batches))) == batches
    np.testing.assert_array_equal(
        witness.logits(witness.records["image"]), logits[:, [4, 1]]
    )


# a run


def _vote(model: Model, options: None, common: Common) -> Method:
    """The frozen encoder, but what most of a batch resembles is likely for all."""
    method = zero_shot(model, options, common)

    def predict(
        params: Params, context: Context, batch: Batch, features: Features
    ) -> Prediction:
        prediction = method.predict(params, context, batch, features)
        votes = jnp.sum(prediction.logits * batch.weight[:, None], axis=0)
        return prediction._replace(logits=prediction.logits + votes)

    return method._replace(predict=predict)


def _config(encoder_folder: pathlib.Path, method: str) -> config.Config:
    return config.Config(
        stream=config.World(
            tasks=2,
            classes_per_task=2,
            modalities=("image", "text"),
            train_per_class=2,
            test_per_class=4,
        ),
        encoder=config.EncoderOptions(str(encoder_folder)),
        method=config.MethodOptions(method),
        train=config.TrainOptions(batch_size=8),
    )


def test_a_method_that_votes_over_its_batch_is_stopped(
    encoder_folder: pathlib.Path,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(METHODS, "vote", Entry(_vote))
    message = r"^method 'vote': 4 of 4 \w+ samples are predicted differently"
    with pytest.raises(BatchDependenceError, match=message):
        experiment.run(_config(encoder_folder, "vote"), tmp_path / "run")
    assert not (tmp_path / "run" / "results.json").exists()


def test_a_vote_is_counted_where_it_is_allowed(
    encoder_folder: pathlib.Path,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(METHODS, "vote", Entry(_vote))
    options = dataclasses.replace(
        _config(encoder_folder, "vote"), evaluation=config.EvaluationOptions("report")
    )
    results = experiment.run(options, tmp_path / "run")
    assert results
    assert results["batch_dependence"] == {"predicted_again": 16, "differing": 16}


def test_every_stage_is_looked_at(
    encoder_folder: pathlib.Path,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = []

    def spy(before: np.ndarray, after: np.ndarray, allowed: np.ndarray) -> np.ndarray:
        assert before.shape == after.shape == (1, 4, 4)
        assert allowed.shape == (4, 4, 4)
        seen.append(before)
        return differing(before, after, allowed)

    monkeypatch.setattr(batch_independence, "differing", spy)
    results = experiment.run(_config(encoder_folder, "zero_shot"), tmp_path / "run")
    # two stages, and at both of them both modalities: the next task is scored too
    assert len(seen) == 4
    assert results
    assert results["batch_dependence"] == {"predicted_again": 16, "differing": 0}
