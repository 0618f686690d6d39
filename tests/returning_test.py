"""Streams as they come: blurry borders, domains, slices; and their metrics."""

import itertools
import math
import pathlib
from collections import Counter
from typing import Any

import numpy as np
import pytest

from mmcl_jax.config import Config, Folders, TrainOptions, resolve, to_config_dict
from mmcl_jax.errors import DataError, Faults
from mmcl_jax.evaluation import metrics
from mmcl_jax.evaluation import returning as measures
from mmcl_jax.modalities.base import FileReference
from mmcl_jax.streams import folders, returning
from mmcl_jax.streams.base import Stream, TaskDraft, build_stream, stream_hash
from mmcl_jax.streams.description import describe_tasks
from mmcl_jax.training import run_summary
from mmcl_jax.workdir import results

NAN = np.nan


def _drafts(tasks: int, samples: int = 40, modality: str = "image") -> list[TaskDraft]:
    """Returns tasks of three classes each."""
    found = []
    for t in range(tasks):
        names = [f"{modality}{t}{letter}" for letter in "abc"]
        train, test = (
            tuple(
                [FileReference(f"{name}/{part}{k}") for k in range(number)]
                for name in names
            )
            for part, number in (("train", samples), ("test", 2))
        )
        classes = tuple((name, "files") for name in names)
        found.append(TaskDraft(f"{modality}/{t}", modality, classes, train, test))
    return found


def _places(stream: Stream) -> list[str]:
    return [
        record.reference.describe()
        for task in stream.tasks
        for record in (*task.train, *task.test)
    ]


def _blurry(drafts: list[TaskDraft], **more: Any) -> list[TaskDraft]:
    chosen = {"disjoint_share": 0.4, "blurry_share": 0.5, "seed": 0} | more
    return returning.blurry(drafts, **chosen)


def test_blurry_classes_disappear_and_return() -> None:
    drafts = _drafts(8)
    stream = build_stream(_blurry(drafts))
    assert len(set(_places(stream))) == len(_places(stream))
    times: dict[int, list[tuple[int, int]]] = {}
    for t, task in enumerate(stream.tasks):
        for label, count in Counter(r.label for r in task.train).items():
            times.setdefault(label, []).append((t, count))
    returned = {label: met for label, met in times.items() if len(met) > 1}
    assert 0.2 < len(returned) / len(times) < 0.8
    for label, met in times.items():
        assert met[0] == (label // 3, 40 if met[0][1] == 40 else 20)
    # with gaps, and in numbers that differ
    gaps = [
        b[0] - a[0] for met in returned.values() for a, b in itertools.pairwise(met)
    ]
    assert min(gaps) == 1 < max(gaps)
    assert len({count for met in returned.values() for _, count in met[1:]}) > 3
    # a class is tested by the task that has it first
    for t, task in enumerate(stream.tasks):
        assert {r.label for r in task.test} == set(range(3 * t, 3 * t + 3))


def test_a_task_or_a_class_at_the_end_changes_nothing_before() -> None:
    assert _blurry(_drafts(5))[:4] == _blurry(_drafts(4))
    drafts = _drafts(4)
    last = drafts[-1]
    fewer = TaskDraft(
        last.name, "image", last.classes[:2], last.train[:2], last.test[:2]
    )
    whole, cut = _blurry(drafts), _blurry([*drafts[:3], fewer])
    assert cut[:3] == whole[:3]
    kept = [each for each in whole[3].classes if each != last.classes[2]]
    assert list(cut[3].classes) == kept
    # other modalities have no part in it
    assert _blurry([*_drafts(2), *_drafts(2, modality="audio")])[:2] == _blurry(
        _drafts(2)
    )


def test_blurry_shares() -> None:
    drafts = _drafts(4)
    assert _blurry(drafts, disjoint_share=1.0) == drafts
    assert _blurry(drafts, blurry_share=0.0) == drafts
    every = _blurry(drafts, disjoint_share=0.0, blurry_share=1.0)
    assert all(len(part) == 1 for d in every[:1] for part in d.train)
    assert _blurry(drafts, seed=1) != _blurry(drafts)


def test_slices_hold_each_sample_once() -> None:
    drafts = _drafts(2)
    stream = build_stream(returning.slices(drafts, 50, 0))
    assert [task.name for task in stream.tasks] == [
        *("image/0.0", "image/0.1", "image/0.2"),
        *("image/1.0", "image/1.1", "image/1.2"),
    ]
    assert [len(task.train) for task in stream.tasks] == [50, 50, 20] * 2
    assert sorted(_places(stream)) == sorted(_places(build_stream(drafts)))
    assert [len(task.test) for task in stream.tasks] == [6, 0, 0] * 2
    assert returning.slices(drafts, 50, 1) != returning.slices(drafts, 50, 0)
    # a slice has the classes of its samples alone
    tiny = build_stream(returning.slices(drafts, 1, 0))
    assert all(len(task.classes) == 1 for task in tiny.tasks)
    assert sum(len(task.test) for task in tiny.tasks) == 12


# from files


def _tree(root: pathlib.Path, data_sets: dict[str, tuple[str, ...]]) -> pathlib.Path:
    for (data_set, names), part in itertools.product(
        data_sets.items(), ("train", "test")
    ):
        for name in names:
            folder = root / data_set / part / name
            folder.mkdir(parents=True)
            for k in range(6):
                (folder / f"{k}.jpg").touch()
    return root


def _build(root: pathlib.Path, **more: Any) -> Stream:
    chosen = {"classes_per_task": 2, "order": "by_modality"} | more
    return folders.build(root=str(root), faults=Faults(), **chosen)


def test_domains_share_their_classes(tmp_path: pathlib.Path) -> None:
    names = {"image/a": ("cat", "Big dog"), "image/b": ("big_dog", "cat")}
    stream = _build(_tree(tmp_path, names), scenario="domains")
    assert [task.name for task in stream.tasks] == ["image/a", "image/b"]
    assert [slot.dataset for slot in stream.classes] == ["a", "a"]
    assert [task.classes for task in stream.tasks] == [(0, 1), (0, 1)]
    assert [len(task.test) for task in stream.tasks] == [12, 12]


def test_domains_have_equal_classes(tmp_path: pathlib.Path) -> None:
    root = _tree(tmp_path, {"image/a": ("cat", "dog"), "image/b": ("cat", "emu")})
    with pytest.raises(DataError, match="image/b: no class 'dog', which image/a has"):
        _build(root, scenario="domains")


def test_the_whole_stream_is_equal_in_every_run(tmp_path: pathlib.Path) -> None:
    root = _tree(tmp_path, {"image/a": tuple("abcdefgh")})
    chosen = {"scenario": "blurry", "blurry_share": 0.5, "online": 5}
    one, other = (_build(root, **chosen) for _ in range(2))
    assert stream_hash(one) == stream_hash(other)
    assert stream_hash(one) != stream_hash(_build(root, **chosen, order_seed=1))
    assert any("slots" in entry for entry in describe_tasks(one))
    assert not any("slots" in entry for entry in describe_tasks(_build(root)))


def test_slices_are_seen_once(tmp_path: pathlib.Path) -> None:
    given = Config(stream=Folders(root=str(tmp_path), online=10))
    assert given.train.epochs > 1
    once = Config(stream=given.stream, train=TrainOptions(epochs=1))
    assert resolve(to_config_dict(given)) == resolve(to_config_dict(once)) == once


# metrics

# Column 1 has classes that tasks 1 and 4 train on, column 2 those of tasks 2 and 3, and
# column 5 those of the last task; tasks 3 and 4 test nothing of their own.
R = np.array(
    [
        [0.9, NAN, NAN, NAN, NAN],
        [0.7, 0.6, NAN, NAN, NAN],
        [0.5, 0.8, NAN, NAN, NAN],
        [0.8, 0.7, NAN, NAN, NAN],
        [0.6, 0.4, NAN, NAN, 0.9],
    ]
)
TRAINS = np.zeros((5, 5), bool)
TRAINS[[0, 3, 1, 2, 4], [0, 0, 1, 1, 4]] = True


@pytest.mark.parametrize(
    ("name", "value"),
    [
        # column 1 since task 4, column 2 since task 3
        ("forgetting_since_last", ((0.8 - 0.6) + (0.8 - 0.4)) / 2),
        ("backward_transfer_since_last", ((0.6 - 0.8) + (0.4 - 0.8)) / 2),
        # column 1 from task 1 to task 3; column 2 was never absent between
        ("forgetting_before_return", 0.9 - 0.5),
        ("relearning_gain", ((0.8 - 0.5) + (0.8 - 0.6)) / 2),
    ],
)
def test_metrics_of_returning_classes(name: str, value: float) -> None:
    assert measures.RETURNING[name](R, TRAINS) == pytest.approx(value)
    assert metrics.last_average_accuracy(R) == pytest.approx((0.6 + 0.4 + 0.9) / 3)


def test_without_returns_they_are_the_known_metrics() -> None:
    rng = np.random.default_rng(0)
    matrix, never = np.tril(rng.uniform(size=(6, 6))), np.eye(6, dtype=bool)
    matrix[np.triu_indices(6, 1)] = NAN
    for name, other in (
        ("forgetting_since_last", metrics.forgetting_chaudhry),
        ("backward_transfer_since_last", metrics.backward_transfer),
    ):
        assert measures.RETURNING[name](matrix, never) == pytest.approx(other(matrix))
    assert math.isnan(measures.forgetting_before_return(matrix, never))
    assert math.isnan(measures.relearning_gain(matrix, never))
    size = np.full(6, 10)
    average = metrics.average_incremental_accuracy(matrix)
    assert measures.anytime_area(matrix, size, size) == pytest.approx(average)


def test_area_by_hand() -> None:
    train, test = np.array([10, 30, 20, 20, 20]), np.array([5, 15, 0, 0, 20])
    curve = [
        0.9,
        (5 * 0.7 + 15 * 0.6) / 20,
        (5 * 0.5 + 15 * 0.8) / 20,
        (5 * 0.8 + 15 * 0.7) / 20,
        (5 * 0.6 + 15 * 0.4 + 20 * 0.9) / 40,
    ]
    area = sum(f * n for f, n in zip(curve, train, strict=True)) / 100
    assert measures.anytime_area(R, train, test) == pytest.approx(area)
    # rows that were not evaluated, as in a stage of several tasks
    few = np.where(np.arange(5)[:, None] % 2, NAN, R)
    held = (curve[0] * 10 + curve[2] * 50 + curve[4] * 40) / 100
    assert measures.anytime_area(few, train, test) == pytest.approx(held)
    assert math.isnan(measures.anytime_area(np.full((2, 2), NAN), train[:2], test[:2]))


def test_means_after_a_stage_without_test_samples() -> None:
    stream = build_stream(returning.slices(_drafts(1), 60, 0))
    found = results.Results.start(2)
    found.accuracy[:, :, 1, 0] = 0.75
    assert run_summary.mean_accuracies(stream, found, 1) == (0.75, 0.75, 0.75)
    assert found.scalars(stream, 1)["average/union/given"] == 0.75


def test_the_course_of_a_stream() -> None:
    stream = build_stream(returning.slices(_drafts(2), 60, 0))
    known = measures.course(stream)
    assert known.returns
    expected = [[1, 0, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 1, 0]]
    assert known.trains.astype(int).tolist() == expected
    assert known.train.tolist() == [60] * 4
    assert known.test.tolist() == [6, 0, 6, 0]
    assert not measures.course(build_stream(_drafts(3))).returns
    assert measures.of_course(np.eye(4), known).keys() == {
        *measures.RETURNING,
        "anytime_area",
    }
