"""Control sets: classes that no task has, with slots and ids of their own."""

import dataclasses
import pathlib

import pytest

from mmcl_jax.config import World
from mmcl_jax.errors import DataError, Faults
from mmcl_jax.streams import folders, procedural, verification
from mmcl_jax.streams.base import stream_hash
from mmcl_jax.streams.description import describe_slots, stored_stream
from tests import helpers


def _world(**changes):
    options = dataclasses.asdict(
        World(
            tasks=4,
            classes_per_task=3,
            modalities=("image", "audio"),
            train_per_class=2,
            test_per_class=2,
        )
    )
    del options["kind"]
    return procedural.build(**options | changes, order_seed=0, data_seed=0)


def test_reserved_concepts_are_in_no_task():
    whole = _world()
    name = whole.classes[whole.tasks[0].classes[1]].name
    modality = whole.tasks[0].modality
    stream = _world(reserve=f"{modality}/world/{name}")
    assert name not in [slot.name for slot in stream.classes]
    assert len(stream.classes) == len(whole.classes) - 1
    assert stream.reserved is not None
    (control,) = stream.control_sets
    assert (control.modality, control.train, len(control.test)) == (modality, (), 2)
    assert [slot.name for slot in stream.reserved.classes] == [name]
    ids = [r.id for t in stream.tasks for r in (*t.train, *t.test)]
    assert not set(ids) & {record.id for record in control.test}
    assert stream_hash(stream) != stream_hash(
        dataclasses.replace(stream, reserved=None)
    )


def test_a_whole_modality_is_reserved():
    stream = _world(reserve="audio")
    assert stream.modalities == ("image",)
    (control,) = stream.control_sets
    assert (control.modality, len(control.classes)) == ("audio", 6)
    assert {record.label for record in control.test} == set(range(6))


def test_without_a_pattern_nothing_changes():
    assert _world(reserve="").reserved is None
    assert "reserved" not in describe_slots(_world())


def test_patterns_that_cannot_be_meant():
    with pytest.raises(DataError, match=r"pattern 'imag' matches no class; a class is"):
        _world(reserve="imag")
    with pytest.raises(DataError, match="leaves no class to learn"):
        _world(reserve="image,audio")


def test_a_description_is_read_back():
    stream = _world(reserve="audio")
    stored = stored_stream(describe_slots(stream))
    assert stored.reserved is not None and stream.reserved is not None
    assert stored.reserved.classes == stream.reserved.classes
    assert [task.classes for task in stored.control_sets] == [tuple(range(6))]


@pytest.fixture
def root(tmp_path: pathlib.Path) -> pathlib.Path:
    for data_set in ("shapes", "digits"):
        for part in ("train", "test"):
            for name in ("one", "two", "three"):
                folder = tmp_path / "image" / data_set / part / name
                helpers.write(folder, "image", len(data_set + part + name) % 3)
    return tmp_path


def _folders(root: pathlib.Path, **changes):
    faults = Faults()
    fixed = {"classes_per_task": 2, "order_seed": 0, "data_seed": 0}
    stream = folders.build(root=str(root), faults=faults, **fixed, **changes)
    faults.check()
    return stream


def test_data_sets_and_classes_of_folders(root: pathlib.Path):
    stream = _folders(root, reserve="*/digits,image/shapes/one")
    assert sorted(slot.name for slot in stream.classes) == ["three", "two"]
    assert stream.reserved is not None
    found = [(slot.name, slot.dataset) for slot in stream.reserved.classes]
    assert found == [
        ("one", "digits"),
        ("three", "digits"),
        ("two", "digits"),
        ("one", "shapes"),
    ]
    paths = [r.reference.describe() for r in stream.control_sets[0].test]
    assert len(paths) == 4 and all("/test/" in path for path in paths)


def test_reserve_wins_over_include_and_loses_to_exclude(root: pathlib.Path):
    stream = _folders(
        root, include="image/shapes", reserve="*/digits", exclude="*/digits/one"
    )
    assert {slot.dataset for slot in stream.classes} == {"shapes"}
    assert stream.reserved is not None
    assert [slot.name for slot in stream.reserved.classes] == ["three", "two"]
    with pytest.raises(DataError, match=r"reserve=\['image'\] leaves no class"):
        _folders(root, reserve="image")


def test_damaged_control_samples_are_found(root: pathlib.Path, tmp_path):
    path = next((root / "image" / "digits" / "test" / "one").iterdir())
    path.write_bytes(path.read_bytes()[:60])
    stream = _folders(root, reserve="*/digits")
    decoder = verification.Decoder(helpers.make_spec(tmp_path), 0)
    with pytest.raises(DataError, match="1 of 9 samples cannot be decoded"):
        verification.verify(decoder, stream)
