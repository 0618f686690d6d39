"""Streams: orders, numbering, the joint stream, hashes, the procedural stream."""

import dataclasses
import itertools
import os
import pathlib
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from mmcl_jax.errors import DataError
from mmcl_jax.modalities.base import FileReference, Modality
from mmcl_jax.streams.base import (
    ORDERS,
    Stream,
    TaskDraft,
    arrange,
    build_stream,
    canonical_ids,
    joint,
    stream_hash,
)
from mmcl_jax.streams.procedural import WorldReference, build
from mmcl_jax.streams.world.concepts import DEVELOPMENT, NOVEL, Concept
from mmcl_jax.streams.world.render import render

_ALL = ("image", "video", "audio", "depth", "text")


def _draft(name: str, modality: str, *classes: str) -> TaskDraft:
    classes = classes or (f"{name} class",)
    return TaskDraft(
        name=name,
        modality=modality,
        classes=tuple((each, "files") for each in classes),
        train=tuple(
            [FileReference(f"{name}/{each}/{i}") for i in range(2)] for each in classes
        ),
        test=tuple([FileReference(f"{name}/{each}/test")] for each in classes),
    )


def _drafts(modalities: tuple[str, ...], each: int) -> list[TaskDraft]:
    return [_draft(f"{m}{i}", m) for i in range(each) for m in modalities]


def _modalities(drafts: list[TaskDraft]) -> list[str]:
    return [draft.modality for draft in drafts]


def _world(**changes: Any) -> Stream:
    arguments = {
        "tasks": 10,
        "classes_per_task": 3,
        "modalities": _ALL,
        "order": "random",
        "train_per_class": 4,
        "test_per_class": 2,
        "order_seed": 0,
        "data_seed": 0,
    }
    return build(**(arguments | changes))


@pytest.mark.parametrize("order", ORDERS)
def test_orders_keep_all_tasks_and_follow_the_seed(order: str):
    drafts = _drafts(_ALL, 4)
    arranged = [arrange(drafts, order, seed) for seed in range(6)]
    assert arranged == [arrange(drafts, order, seed) for seed in range(6)]
    names = [tuple(draft.name for draft in each) for each in arranged]
    assert len(set(names)) > 1
    assert all(sorted(each) == sorted(d.name for d in drafts) for each in names)


def test_by_modality_is_contiguous():
    for seed in range(10):
        arranged = arrange(_drafts(_ALL, 3), "by_modality", seed)
        runs = [name for name, _ in itertools.groupby(_modalities(arranged))]
        assert sorted(runs) == sorted(_ALL)
        kept = [draft.name for draft in arranged if draft.modality == "audio"]
        assert kept == ["audio0", "audio1", "audio2"]


def test_interleaved_alternates_until_a_modality_runs_out():
    for seed in range(10):
        arranged = _modalities(arrange(_drafts(_ALL, 3), "interleaved", seed))
        first = arranged[:5]
        assert sorted(first) == sorted(_ALL)
        assert arranged == first * 3
    uneven = [*_drafts(("image", "audio"), 1), *_drafts(("video",), 3)]
    arranged = _modalities(arrange(uneven, "interleaved", 0))
    assert sorted(arranged[:3]) == ["audio", "image", "video"]
    assert arranged[3:] == ["video", "video"]
    shuffled = [
        tuple(d.name for d in arrange(_drafts(("image",), 4), "interleaved", seed))
        for seed in range(8)
    ]
    assert len(set(shuffled)) > 1


def test_random_does_not_begin_with_text_unless_all_is_text():
    mixed = _drafts(("text", "image"), 4)
    arranged = [_modalities(arrange(mixed, "random", seed)) for seed in range(40)]
    assert all(each[0] == "image" for each in arranged)
    assert any(each[1] == "text" for each in arranged)
    assert any(each[1] == "image" for each in arranged)
    only = arrange(_drafts(("text",), 4), "random", 0)
    assert _modalities(only) == ["text"] * 4


def test_recurring_gives_each_modality_runs_of_two():
    for seed in range(10):
        arranged = arrange(_drafts(_ALL, 5), "recurring", seed)
        pairs = _modalities(arranged)[:20:2]
        assert _modalities(arranged)[1:20:2] == pairs
        assert sorted(pairs[:5]) == sorted(_ALL)
        # the odd fifth tasks are the last round
        assert pairs[5:] == pairs[:5] == _modalities(arranged)[20:]
    uneven = [*_drafts(("image",), 5), *_drafts(("audio",), 1)]
    modalities = _modalities(arrange(uneven, "recurring", 0))
    assert "".join(name[0] for name in modalities) in ("aiiiii", "iiaiii")


def test_unknown_order_names_the_nearest():
    with pytest.raises(ValueError, match="'interleave'.*nearest: 'interleaved'"):
        arrange([], "interleave", 0)


def test_canonical_ids_merge_equal_names():
    names = ["fire_truck", "cat", "Fire  Truck", "CAT ", "dog"]
    assert canonical_ids(names) == (0, 1, 0, 1, 2)


def test_build_stream_numbers_slots_and_samples():
    stream = build_stream(
        [
            _draft("one", "image", "big_cat", "dog"),
            _draft("two", "audio", "Big cat"),
            _draft("three", "image", "dog", "ant"),
        ]
    )
    assert [slot.name for slot in stream.classes] == [
        "big cat",
        "dog",
        "Big cat",
        "ant",
    ]
    assert [slot.canonical for slot in stream.classes] == [0, 1, 0, 2]
    assert [slot.modality for slot in stream.classes] == [
        "image",
        "image",
        "audio",
        "image",
    ]
    assert [task.classes for task in stream.tasks] == [(0, 1), (2,), (1, 3)]
    assert stream.modalities == ("image", "audio")
    assert stream.stages == ((0,), (1,), (2,))
    records = [r for task in stream.tasks for r in (*task.train, *task.test)]
    assert [record.id for record in records] == list(range(15))
    assert [record.label for record in stream.tasks[2].train] == [1, 1, 3, 3]
    assert stream.tasks[2].test[1].reference == FileReference("three/ant/test")


def test_build_stream_says_what_is_wrong():
    with pytest.raises(ValueError, match="at least one task"):
        build_stream([])
    with pytest.raises(ValueError, match="two tasks are named 'one'"):
        build_stream([_draft("one", "image", "a"), _draft("one", "image", "b")])
    with pytest.raises(ValueError, match="class 'A b' .* twice"):
        build_stream([_draft("one", "image", "a_b", "A b")])
    whole = _draft("one", "image", "a", "b")
    with pytest.raises(ValueError, match="'one' has no classes"):
        build_stream([dataclasses.replace(whole, classes=())])
    with pytest.raises(ValueError, match="2 classes but 1 lists of test"):
        build_stream([dataclasses.replace(whole, test=whole.test[:1])])


def test_joint_has_one_stage_and_the_same_hash():
    stream = _world()
    together = joint(stream)
    assert together.stages == (tuple(range(10)),)
    assert together.tasks == stream.tasks
    assert stream_hash(together) == stream_hash(stream)


def test_hash_is_sensitive_and_equal_in_other_processes():
    drafts = [_draft("one", "image", "a"), _draft("two", "image", "b")]
    original = stream_hash(build_stream(drafts))
    assert stream_hash(build_stream(drafts)) == original
    assert stream_hash(build_stream(drafts[::-1])) != original
    renamed = dataclasses.replace(drafts[0], classes=(("c", "files"),))
    assert stream_hash(build_stream([renamed, drafts[1]])) != original
    fewer = dataclasses.replace(drafts[0], train=(drafts[0].train[0][:1],))
    assert stream_hash(build_stream([fewer, drafts[1]])) != original
    code = (
        "from tests.streams_test import _world, stream_hash;"
        "print(stream_hash(_world()))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code],
        cwd=pathlib.Path(__file__).parents[1],
        env={**os.environ, "PYTHONHASHSEED": "7"},
        capture_output=True,
        check=True,
        text=True,
    )
    assert answer.stdout.strip() == stream_hash(_world())


def test_world_stream_has_the_numbers_asked_for():
    stream = _world()
    assert len(stream.tasks) == 10
    assert len(stream.classes) == len({slot.name for slot in stream.classes}) == 30
    assert {slot.canonical for slot in stream.classes} == set(range(30))
    assert {slot.name for slot in stream.classes} <= {c.name for c in NOVEL}
    assert sorted(stream.modalities) == sorted(_ALL)
    assert sorted(label for task in stream.tasks for label in task.classes) == list(
        range(30)
    )
    for task in stream.tasks:
        assert (len(task.train), len(task.test)) == (12, 6)
        for record in (*task.train, *task.test):
            slot, reference = stream.classes[record.label], record.reference
            assert record.label in task.classes
            assert isinstance(reference, WorldReference)
            assert slot.modality == task.modality == reference.modality_name
            assert slot.name == Concept(reference.shape, reference.manner).name
    ids = [r.id for task in stream.tasks for r in (*task.train, *task.test)]
    assert len(set(ids)) == 180


def test_world_train_and_test_are_disjoint_for_every_data_seed():
    def references(stream: Stream, part: str) -> set[Any]:
        return {r.reference for task in stream.tasks for r in getattr(task, part)}

    first, second = _world(), _world(data_seed=1)
    assert references(first, "test") == references(second, "test")
    assert references(first, "train").isdisjoint(references(second, "train"))
    for stream in (first, second):
        assert references(stream, "train").isdisjoint(references(first, "test"))
    assert [t.classes for t in first.tasks] == [t.classes for t in second.tasks]


def test_world_validation_draws_are_apart_from_all_others():
    def seeds(part: str, **changes: Any) -> set[int]:
        tasks = _world(**changes).tasks
        return {r.reference.seed for task in tasks for r in getattr(task, part)}

    validation = seeds("test", evaluate_on="validation")
    assert len(validation) == 2
    assert seeds("test", evaluate_on="validation", data_seed=1) == validation
    largest = {"train_per_class": 50, "test_per_class": 50}
    for changes in ({}, {"data_seed": 1}):
        others = seeds("train", **largest, **changes) | seeds("test", **largest)
        assert validation.isdisjoint(others)
    whole, other = _world(), _world(evaluate_on="validation")
    assert [task.train for task in other.tasks] == [task.train for task in whole.tasks]
    assert other.classes == whole.classes


def test_world_of_development_concepts():
    names = {slot.name for slot in _world(concepts="development").classes}
    assert len(names) == 30
    assert names <= {concept.name for concept in DEVELOPMENT}


def test_first_tasks_are_those_of_the_whole_stream():
    whole, cut = _world(), _world(first_tasks=3)
    assert [task.name for task in cut.tasks] == [task.name for task in whole.tasks[:3]]
    assert cut.tasks == whole.tasks[:3]
    assert cut.classes == whole.classes[:9]
    assert cut.stages == ((0,), (1,), (2,))


def test_world_order_seed_changes_concepts_and_order():
    names = {tuple(c.name for c in _world(order_seed=s).classes) for s in range(3)}
    assert len(names) == 3
    assert _world(order_seed=2) == _world(order_seed=2)


def test_world_reference_renders_and_describes():
    star = next(c for c in NOVEL if c.name.endswith("star"))
    reference = WorldReference(*star, "image", 123)
    assert reference.describe() == f"world-1:image/{star.name}#123"
    spec: Any = None
    image = Modality("image", "visual", (), None, (), {})  # type: ignore[arg-type]
    np.testing.assert_array_equal(
        reference.load(image, spec), render(star, "image", 123)
    )
    with pytest.raises(DataError, match=rf"{star.name}#123: cannot be read as audio"):
        reference.load(image._replace(name="audio"), spec)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tasks": 37}, "need 111 concepts, but only 108 are novel ones"),
        ({"tasks": 13, "concepts": "development"}, "only 36 are development ones"),
        ({"first_tasks": 11}, "first_tasks is 11, but there are 10 tasks"),
        ({"test_per_class": 2**19 + 1}, "at most 524288"),
        ({"tasks": 0}, "tasks is 0, expected at least 1"),
        ({"train_per_class": 0}, "train_per_class is 0"),
        ({"train_per_class": 2**20 + 1}, "at most 1048576"),
        ({"test_per_class": -1}, "test_per_class is -1"),
        ({"order_seed": -1}, "order_seed is -1"),
        ({"modalities": ("image", "adio")}, "'adio'.*nearest: 'audio'"),
        ({"modalities": ("image", "image")}, "each once"),
        ({"modalities": ()}, "at least one modality"),
        ({"tasks": 4}, "at least one task for each"),
        ({"order": "by-modality"}, "nearest: 'by_modality'"),
    ],
)
def test_world_stream_says_what_is_wrong(changes: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        _world(**changes)
