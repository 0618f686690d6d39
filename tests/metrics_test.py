"""Metrics on worked and on published matrices."""

import math

import numpy as np
import pytest

from mmcl_jax.evaluation import metrics
from tests.published import published

NAN = np.nan
WORKED = np.array([[0.80, 0.10, 0.20], [0.90, 0.70, 0.30], [0.85, 0.75, 0.60]])
BASELINE = np.array([NAN, 0.05, 0.15])

# Zero-shot accuracies, and the matrix of continual fine-tuning, of the ZSCL paper, for
# Aircraft, Caltech101, CIFAR100, DTD, EuroSAT, Flowers, Food, MNIST, Pets, Cars, SUN397
ZERO_SHOT = np.array([24.3, 88.4, 68.2, 44.6, 54.9, 71.0, 88.5, 59.4, 89.0, 64.7, 65.2])
FINE_TUNING = np.array(
    [
        [62.6, 67.1, 43.0, 30.8, 46.0, 46.2, 64.2, 43.1, 69.3, 26.6, 51.8],
        [15.7, 93.4, 49.0, 31.3, 36.2, 32.9, 60.5, 48.0, 65.8, 15.8, 51.2],
        [24.4, 90.4, 88.8, 34.1, 36.3, 32.5, 57.8, 46.3, 73.3, 22.9, 54.6],
        [26.0, 89.6, 78.9, 76.9, 24.0, 34.6, 60.9, 49.1, 70.1, 23.4, 52.5],
        [22.7, 88.1, 70.6, 69.0, 98.8, 28.8, 49.2, 41.4, 60.0, 21.9, 46.6],
        [22.9, 88.1, 70.8, 69.7, 98.5, 96.1, 53.7, 39.0, 64.6, 22.6, 48.3],
        [27.4, 90.2, 76.7, 72.5, 98.0, 89.3, 92.1, 41.8, 73.5, 35.8, 57.1],
        [2.3, 33.9, 4.9, 20.0, 21.8, 11.1, 7.9, 99.6, 10.2, 2.4, 18.0],
        [17.9, 80.6, 43.9, 51.3, 74.1, 62.0, 80.6, 99.6, 93.3, 13.2, 39.4],
        [27.3, 85.4, 57.2, 61.8, 89.6, 65.8, 82.5, 99.5, 93.2, 87.6, 46.2],
        [31.0, 89.3, 65.8, 67.3, 88.9, 71.1, 85.6, 99.6, 92.9, 77.3, 81.1],
    ]
)


@pytest.mark.parametrize(
    "name, value",
    {
        "forgetting_chaudhry": 0.0,
        "backward_transfer": 0.05,
        "transfer_zscl": 0.175,
        "average_zscl": 0.577778,
        "last_average_accuracy": 0.733333,
        "average_incremental_accuracy": 0.777778,
        "learning_accuracy": 0.70,
    }.items(),
)
def test_worked_matrix(name, value):
    assert getattr(metrics, name)(WORKED) == pytest.approx(value, abs=1e-6)


def test_forward_transfer_of_the_worked_matrix():
    assert metrics.forward_transfer(WORKED, BASELINE) == pytest.approx(0.10)
    assert math.isnan(metrics.forward_transfer(WORKED))


@pytest.mark.parametrize(
    "name, value",
    {
        "transfer_zscl": 44.56,
        "average_zscl": 55.85,
        "last_average_accuracy": 77.27,
        "backward_transfer": -12.05,
        "forgetting_chaudhry": 12.05,
        "average_incremental_accuracy": 65.41,
        "learning_accuracy": 88.22,
    }.items(),
)
def test_published_fine_tuning_matrix(name, value):
    # The values are those of unrounded accuracies, the matrix has one decimal.
    assert getattr(metrics, name)(FINE_TUNING) == pytest.approx(value, abs=0.02)


def test_published_zero_shot_row():
    constant = np.tile(ZERO_SHOT, (11, 1))
    assert metrics.transfer_zscl(constant) == pytest.approx(69.4, abs=0.05)
    assert metrics.average_zscl(constant) == pytest.approx(65.3, abs=0.05)
    assert metrics.last_average_accuracy(constant) == pytest.approx(65.3, abs=0.05)
    assert metrics.forgetting_chaudhry(constant) == 0
    assert metrics.backward_transfer(constant) == 0
    expected = metrics.forgetting_chaudhry(FINE_TUNING)
    assert metrics.excess_forgetting(FINE_TUNING, constant) == expected


def test_formulas_of_published_code():
    found = published("metrics")
    matrix = found["inputs_accuracy"].astype(float)
    np.testing.assert_allclose(
        metrics.backward_transfer(matrix), found["expected_mammoth_backward_transfer"]
    )
    np.testing.assert_allclose(
        metrics.forward_transfer(matrix, found["inputs_random"]),
        found["expected_mammoth_forward_transfer"],
    )
    # theirs counts the last row among those with the best accuracy: a gain is 0
    drops = [
        metrics.forgetting_chaudhry(metrics.columns(matrix, np.arange(4) == task))
        for task in range(3)
    ]
    np.testing.assert_allclose(
        np.mean(np.maximum(drops, 0)), found["expected_mammoth_forgetting_seen_only"]
    )
    of_mtil = (
        metrics.transfer_zscl,
        metrics.average_zscl,
        metrics.last_average_accuracy,
    )
    means = [round(100 * metric(matrix), 1) for metric in of_mtil]
    # theirs are means of rounded numbers
    np.testing.assert_allclose(
        means, found["expected_mtil_means_transfer_average_last"], atol=0.11
    )


def test_one_task_has_no_forgetting_and_no_transfer():
    single = np.array([[0.5]])
    for name in (
        "forgetting_chaudhry",
        "backward_transfer",
        "transfer_zscl",
    ):
        assert math.isnan(getattr(metrics, name)(single)), name
    assert math.isnan(metrics.forward_transfer(single, np.array([0.1])))
    assert metrics.last_average_accuracy(single) == 0.5
    assert metrics.average_incremental_accuracy(single) == 0.5
    assert metrics.learning_accuracy(single) == 0.5


def test_a_constant_added_to_all_leaves_differences():
    shifted = WORKED + 0.05
    for name in ("forgetting_chaudhry", "backward_transfer"):
        metric = getattr(metrics, name)
        assert metric(shifted) == pytest.approx(metric(WORKED))


def test_renaming_the_tasks_leaves_last_and_learning_accuracy():
    order = [2, 0, 1]
    renamed = WORKED[:, order]
    assert metrics.last_average_accuracy(renamed) == pytest.approx(0.733333, abs=1e-6)
    together = WORKED[np.ix_(order, order)]
    assert metrics.learning_accuracy(together) == pytest.approx(0.70)


def test_only_what_a_formula_needs_must_be_evaluated():
    lower = np.where(np.tri(3, dtype=bool), WORKED, NAN)
    assert math.isnan(metrics.forward_transfer(lower, BASELINE))
    for name, metric in metrics.METRICS.items():
        if name in ("forward_transfer", "transfer_zscl", "average_zscl"):
            assert math.isnan(metric(lower)), name
        else:
            assert metric(lower) == pytest.approx(metric(WORKED)), name


def test_joint_training_is_evaluated_once():
    joint = np.full((3, 3), NAN)
    joint[-1] = [0.9, 0.8, 0.7]
    values = {name: metric(joint) for name, metric in metrics.METRICS.items()}
    assert values.pop("last_average_accuracy") == pytest.approx(0.8)
    assert all(math.isnan(value) for value in values.values()), values
    np.fill_diagonal(joint, [0.9, 0.9, 0.7])
    assert metrics.learning_accuracy(joint) == pytest.approx(2.5 / 3)


def test_an_empty_test_set_is_left_out():
    missing = WORKED.copy()
    missing[:, 1] = NAN
    assert metrics.last_average_accuracy(missing) == pytest.approx((0.85 + 0.6) / 2)
    assert metrics.learning_accuracy(missing) == pytest.approx((0.8 + 0.6) / 2)
    assert metrics.backward_transfer(missing) == pytest.approx(0.05)
    assert metrics.forgetting_chaudhry(missing) == pytest.approx(0.05)
    incremental = (0.8 + 0.9 + (0.85 + 0.6) / 2) / 3
    assert metrics.average_incremental_accuracy(missing) == pytest.approx(incremental)


def test_one_hole_is_not_taken_for_a_number():
    hole = WORKED.copy()
    hole[2, 0] = NAN
    assert math.isnan(metrics.last_average_accuracy(hole))
    assert math.isnan(metrics.backward_transfer(hole))
    assert metrics.learning_accuracy(hole) == pytest.approx(0.70)


def test_all_metrics_are_nan_of_a_matrix_without_numbers():
    nothing = np.full((3, 3), NAN)
    for name, metric in metrics.METRICS.items():
        assert math.isnan(metric(nothing)), name


def test_forgetting_does_not_count_models_that_had_not_met_the_task():
    early = np.array([[0.5, 0.9], [0.5, 0.6]])
    three = np.pad(early, ((0, 1), (0, 1)), constant_values=0.4)
    assert metrics.forgetting_chaudhry(three) == pytest.approx((0.1 + 0.2) / 2)


def test_columns_of_one_modality():
    keep = np.array([False, True, True])
    restricted = metrics.columns(WORKED, keep)
    assert metrics.last_average_accuracy(restricted) == pytest.approx(0.675)
    # The first task is of the other modality: nothing to average after it.
    incremental = metrics.average_incremental_accuracy(restricted)
    assert incremental == pytest.approx((0.70 + 0.675) / 2)
    assert metrics.backward_transfer(restricted) == pytest.approx(0.05)
    only_last = metrics.columns(WORKED, np.array([False, False, True]))
    assert math.isnan(metrics.forgetting_chaudhry(only_last))


@pytest.mark.parametrize("shape", [(2, 3), (4,), (0, 0)])
@pytest.mark.parametrize("name", sorted(metrics.METRICS))
def test_a_matrix_must_be_square(name, shape):
    arguments = [np.ones(shape)] + [np.ones(3)] * (name == "forward_transfer")
    with pytest.raises((ValueError, TypeError)):  # the latter from checked shapes
        metrics.METRICS[name](*arguments)


def test_modality_identification():
    true = np.array([0, 0, 0, 0, 1, 1, 3])
    predicted = np.array([0, 0, 0, 1, 1, 3, 3])
    found = metrics.modality_identification(true, predicted, 4)
    assert found.accuracy == pytest.approx(5 / 7)
    assert found.balanced == pytest.approx((0.75 + 0.5 + 1) / 3)
    expected = np.zeros((4, 4), int)
    expected[0, :2], expected[1, [1, 3]], expected[3, 3] = [3, 1], 1, 1
    np.testing.assert_array_equal(found.confusion, expected)
    nobody = np.zeros(0, int)
    nothing = metrics.modality_identification(nobody, nobody, 2)
    assert math.isnan(nothing.accuracy) and math.isnan(nothing.balanced)


def test_accuracy_is_a_mixture_over_routes():
    # 100 samples: 90 on the right route, 72 of them right; 3 of the other 10.
    true = np.zeros(100, int)
    predicted = np.repeat([0, 1], [90, 10])
    correct = np.concatenate([np.arange(90) < 72, np.arange(10) < 3])
    route = metrics.modality_identification(true, predicted, 2).accuracy
    right = correct[predicted == true].mean()
    wrong = correct[predicted != true].mean()
    assert (route, right, wrong) == pytest.approx((0.9, 0.8, 0.3))
    assert correct.mean() == pytest.approx(route * right + (1 - route) * wrong)
    assert correct.mean() == pytest.approx(0.75)


def test_both_paths_of_the_decomposition_sum_to_the_gap():
    found = metrics.decomposition(0.9, 0.8, 0.85, 0.6)
    assert found.gap == pytest.approx(0.3)
    assert found.label_confusion == pytest.approx((0.1, 0.25))
    assert found.routing == pytest.approx((0.2, 0.05))
    for label, routing in zip(found.label_confusion, found.routing, strict=True):
        assert label + routing == pytest.approx(found.gap)


def test_deviation_over_runs_is_that_of_a_sample():
    assert metrics.mean_and_deviation(np.array([70.0, 72, 74])) == (72.0, 2.0)
    mean, deviation = metrics.mean_and_deviation(np.array([70.0]))
    assert mean == 70 and math.isnan(deviation)
    assert all(map(math.isnan, metrics.mean_and_deviation(np.array([]))))
    assert all(map(math.isnan, metrics.mean_and_deviation(np.array([1.0, NAN, 2.0]))))


def test_calibration_error_bin_by_bin():
    rng = np.random.default_rng(0)
    probability, right = rng.uniform(size=500), rng.uniform(size=500) < 0.7
    probability[:3] = 0.2, 0.4, 1.0  # ends of bins
    expected = 0.0
    for low, high in ((i / 5, (i + 1) / 5) for i in range(5)):
        inside = (probability > low) & (probability <= high)
        gap = abs(right[inside].mean() - probability[inside].mean())
        expected += inside.mean() * gap
    found = metrics.expected_calibration_error(probability, right, bins=5)
    assert found == pytest.approx(expected)
    certain = metrics.expected_calibration_error(np.ones(4), np.ones(4, bool))
    assert certain == 0
    nobody = metrics.expected_calibration_error(np.zeros(0), np.zeros(0, bool))
    assert math.isnan(nobody)
