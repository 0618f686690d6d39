"""Orders of published streams are pinned, and fit a user's own copy of the data."""

import functools
import hashlib
import json
from typing import Any

import pytest

from mmcl_jax.errors import DataError
from mmcl_jax.streams import pinned, protocols, transfer
from mmcl_jax.streams.arrangement import Known
from mmcl_jax.streams.protocols import PROTOCOLS

HUNDRED = [f"{i:03}" for i in range(100)]
# of CIFAR-100, by the permutation that iCaRL and those after it use
FIRST_OF_1993 = [68, 56, 78, 8, 23, 84, 90, 65, 74, 76]
MTIL_2 = (
    "StanfordCars Food MNIST OxfordPet Flowers SUN397 Aircraft Caltech101 DTD EuroSAT "
    "CIFAR100"
)
# folders as users have them
MINE = (
    "fgvc_aircraft caltech-101 cifar100 dtd eurosat oxford_flowers food-101 mnist "
    "oxford_pets stanford_cars sun397"
).split()


def _of(number: int, name: str) -> Known:
    return {name: [f"{i:03}" for i in range(number)]}


def _mine(*more: str) -> dict[str, list[str]]:
    return {f"image/{name}": ["a", "b"] for name in sorted((*MINE, *more))}


def _real(role: str) -> dict[str, list[str]]:
    known: dict[str, list[str]] = {}
    for task, names in pinned.mmcl_real().tasks[role].classes.items():
        known.setdefault(task.rpartition("/")[0], []).extend(names)
    return known


KNOWN: dict[str, Any] = {
    "b0": _of(100, "image/cifar100"),
    "b50": _of(100, "image/cifar100"),
    "mtil_1": _mine(),
    "mtil_2": _mine(),
    "x_tail": _mine(),
    "ave": _of(28, "video/AVE"),
    "kinetics_sounds": _of(30, "video/kinetics-sounds"),
    "vggsound100": _of(100, "audio/vggsound"),
    "mmcl_real": _real("benchmark"),
    "mmcl_real_development": _real("development"),
    **{f"mmcl_real_{name}": _real("benchmark") for name in transfer.REAL},
}
HASHES = {
    "b0": "ddd52be809d153d1",
    "b50": "02d341854dc23599",
    "mtil_1": "9a0b99a6208a1217",
    "mtil_2": "3069e11e1fc778a4",
    "x_tail": "b1c751df2af3296d",
    "ave": "fdd548868957675b",
    "kinetics_sounds": "018771c0a441527d",
    "vggsound100": "586669429e2e6322",
    "mmcl_real": "3a5dee2d7fed8bc0",
    "mmcl_real_development": "0bc81c7108bb0302",
    "mmcl_real_sounds_alone": "ea4c7b4cf5e6991f",
    "mmcl_real_sounds_after_pictures": "d722e7df0aabbf03",
    "mmcl_real_sounds_after_other_pictures": "43c1202126d3f8aa",
    "mmcl_real_pictures_alone": "0eb0b3097ad1bd67",
    "mmcl_real_pictures_after_sounds": "12b7969ec7717472",
    "mmcl_real_pictures_after_other_sounds": "2baabbc750d43dbc",
}
# read by those of mmcl-real alone
_tasks = functools.partial(protocols.tasks, order="interleaved")


@pytest.mark.parametrize("name", PROTOCOLS)
def test_the_order_is_pinned(name: str) -> None:
    tasks = _tasks(name, KNOWN[name], 10)
    order = [[t.name, [(c.path, c.name, c.shots) for c in t.classes]] for t in tasks]
    found = hashlib.sha256(json.dumps(order).encode()).hexdigest()[:16]
    assert found == HASHES[name]


def test_classes_in_the_order_of_seed_1993() -> None:
    tasks = _tasks("b0", KNOWN["b0"], 10)
    assert [len(task.classes) for task in tasks] == [10] * 10
    assert [int(choice.name) for choice in tasks[0].classes] == FIRST_OF_1993
    half = _tasks("b50", KNOWN["b50"], 10)
    assert [len(task.classes) for task in half] == [50, 10, 10, 10, 10, 10]
    flat = [choice.name for task in half for choice in task.classes]
    assert flat == [choice.name for task in tasks for choice in task.classes]


def test_data_sets_in_their_order() -> None:
    def names(protocol: str) -> list[str]:
        return [task.name for task in _tasks(protocol, KNOWN[protocol], 5)]

    assert names("mtil_1") == [f"image/{name}" for name in MINE]
    ours = dict(zip(protocols.PROTOCOLS["mtil_1"].names, MINE, strict=True))  # type: ignore[union-attr]
    assert names("mtil_2") == [f"image/{ours[name]}" for name in MTIL_2.split()]
    assert names("x_tail") == [f"image/{n}" for n in MINE if n != "cifar100"]
    tasks = _tasks("x_tail", KNOWN["x_tail"], 5)
    assert {choice.shots for task in tasks for choice in task.classes} == {16}


@pytest.mark.parametrize(
    ("name", "sizes"),
    [("ave", [7] * 4), ("kinetics_sounds", [6] * 5), ("vggsound100", [10] * 10)],
)
def test_audio_visual_splits(name: str, sizes: list[int]) -> None:
    tasks = _tasks(name, KNOWN[name], 5)
    assert [len(task.classes) for task in tasks] == sizes
    assert tasks[0].classes[0].name == "000"


def test_steps_of_two_modalities_follow_each_other() -> None:
    both = {**_of(28, "audio/ave"), **_of(28, "video/ave")}
    tasks = _tasks("ave", both, 5)
    names = [f"{m}/ave/{k}" for k in range(4) for m in ("audio", "video")]
    assert [task.name for task in tasks] == names


@pytest.mark.parametrize(
    ("name", "known", "words"),
    [
        ("ave", _of(27, "video/ave"), "it has 28 classes, video/ave has 27"),
        ("ave", _of(28, "video/aves"), "no data set AVE among video/aves"),
        ("b0", _of(9, "image/a") | _of(9, "image/b"), "not for image/a, image/b"),
        ("mtil_1", _of(9, "image/mnist"), "no data set Aircraft, Caltech101, CIFAR"),
        ("mtil_2", _mine("pets"), "may be OxfordPet: image/oxford_pets, image/pets"),
    ],
)
def test_what_does_not_fit_is_named(name: str, known: Any, words: str) -> None:
    with pytest.raises(DataError, match=words):
        _tasks(name, known, 5)
