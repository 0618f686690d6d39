"""Streams from data sets that TensorFlow Datasets has prepared, without TensorFlow."""

import json
import os
import pathlib
import pickle
import shutil
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("tensorflow_datasets", reason="requirements.txt has it")

from mmcl_jax.modalities import MODALITIES
from mmcl_jax.modalities.base import DataError
from mmcl_jax.streams import tfds
from tests import helpers

pytestmark = pytest.mark.xdist_group("tfds")

# in a process of its own: it warns, and opens more than a test should
PREPARE = """
import pathlib, sys
import numpy as np
import tensorflow_datasets as tfds

files = pathlib.Path(sys.argv[1])

def builder(called, media, example):
    class Made(tfds.core.GeneratorBasedBuilder):
        name = called
        VERSION = tfds.core.Version("1.2.0")
        def _info(self):
            label = tfds.features.ClassLabel(names=["ape", "bee"])
            both = tfds.features.FeaturesDict({"media": media, "label": label})
            return tfds.core.DatasetInfo(builder=self, features=both)
        def _split_generators(self, manager):
            numbers = {"train": 6, "test": 4}
            return {p: self._generate_examples(n) for p, n in numbers.items()}
        def _generate_examples(self, n):
            for i in range(n):
                yield i, {"media": example(i), "label": i % 2}
    Made(data_dir=sys.argv[2], file_format="array_record").download_and_prepare()

shape = (None, None, 3)
png = lambda i: str(files / f"{i % 3}.png")
builder("pets", tfds.features.Image(shape=shape), png)
depth = tfds.features.Image(shape=(None, None, 1), dtype=np.uint16)
builder("rooms", depth, lambda i: str(files / "depth" / "0.png"))
builder("words", tfds.features.Text(), lambda i: f"sentence {i}")
builder("nothing", tfds.features.Tensor(shape=(2,), dtype=np.int64), lambda i: [i, i])
print("tensorflow" in sys.modules)
"""


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("tfds")
    for k in range(3):
        helpers.write(folder / "files", "image", k)
    helpers.write(folder / "files" / "depth", "depth")
    done = subprocess.run(
        [sys.executable, "-c", PREPARE, str(folder / "files"), str(folder / "data")],
        capture_output=True,
        text=True,
        env=os.environ | {"HOME": str(folder)},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("False\n")  # none of it needs TensorFlow
    return folder


def _build(prepared: pathlib.Path, *names: str, **more: object) -> tfds.Stream:
    where = {"names": names, "data_dir": str(prepared / "data")}
    return tfds.build(**(where | {"classes_per_task": 2} | more))


def _media(prepared: pathlib.Path, name: str, modality: str):
    (task,) = _build(prepared, name).tasks
    assert task.name == f"{modality}/{name}/0"
    assert (len(task.train), len(task.test)) == (6, 4)
    spec = helpers.make_spec(prepared)
    kind = MODALITIES[modality]
    found = [r.reference.load(kind, spec) for r in task.train]
    for media in found:
        ((key, array),) = kind.preprocess(media, spec).items()
        assert array.shape == kind.shapes(spec)[key][0]
    return task, found, spec


def test_pictures_are_those_of_the_files(prepared: pathlib.Path) -> None:
    _, found, spec = _media(prepared, "pets", "image")
    files = [str(prepared / "files" / f"{k}.png") for k in range(3)]
    wanted = {MODALITIES["image"].decode(path, spec).tobytes() for path in files}
    assert {media.tobytes() for media in found} == wanted


def test_depth_keeps_its_bits(prepared: pathlib.Path) -> None:
    _, found, spec = _media(prepared, "rooms", "depth")
    path = str(prepared / "files" / "depth" / "0.png")
    for media in found:
        np.testing.assert_array_equal(media, MODALITIES["depth"].decode(path, spec))


def test_sentences(prepared: pathlib.Path) -> None:
    _, found, _ = _media(prepared, "words", "text")
    assert set(found) == {f"sentence {i}" for i in range(6)}


def test_a_reference_travels_and_knows_its_content(prepared: pathlib.Path) -> None:
    task, found, spec = _media(prepared, "pets", "image")
    reference = task.train[0].reference
    assert reference.describe().startswith("pets/1.2.0/train:")
    assert pickle.loads(pickle.dumps(reference)) == reference
    contents = {r.reference.identity() for r in task.train}
    assert len(contents) == len({media.tobytes() for media in found}) == 3


def test_several_in_one_stream_and_a_test_part_split_off(
    prepared: pathlib.Path,
) -> None:
    stream = _build(prepared, "pets", "words/1.2.0", test="", test_fraction=0.3)
    assert {task.name for task in stream.tasks} == {"image/pets/0", "text/words/0"}
    assert all(len(task.train) + len(task.test) == 6 for task in stream.tasks)


@pytest.mark.parametrize(
    ("name", "more", "words"),
    [
        ("none", {}, "nothing is downloaded"),
        ("../data/pets", {}, "expected the name"),
        ("/etc", {}, "expected the name"),
        ("pets", {"train": "dev"}, "no split 'dev'"),
        ("nothing", {}, "expected one picture"),
    ],
)
def test_what_cannot_be_read_is_said(prepared, name, more, words) -> None:
    with pytest.raises(DataError, match=words):
        _build(prepared, name, **more)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("evil.Image", "feature of 'evil.Image'"),
        (
            "tensorflow_datasets.core.features.audio_feature.Audio",
            "sounds, which cannot",
        ),
    ],
)
def test_features_are_pictures_or_text_of_the_library_alone(
    prepared, tmp_path, monkeypatch, name, words
) -> None:
    (tmp_path / "evil.py").write_text("raise SystemExit('it ran')")
    monkeypatch.syspath_prepend(str(tmp_path))
    shutil.copytree(prepared / "data" / "pets", tmp_path / "data" / "pets")
    path = tmp_path / "data/pets/1.2.0/features.json"
    features = json.loads(path.read_text())
    features["featuresDict"]["features"]["media"]["pythonClassName"] = name
    path.write_text(json.dumps(features))
    with pytest.raises(DataError, match=words):
        _build(tmp_path, "pets")


@pytest.mark.parametrize("name", ["features.json", "dataset_info.json"])
def test_damage_is_named(prepared, tmp_path, name) -> None:
    shutil.copytree(prepared / "data" / "pets", tmp_path / "data" / "pets")
    path = tmp_path / "data/pets/1.2.0" / name
    path.write_text(path.read_text()[:-20])
    with pytest.raises(DataError, match=str(tmp_path)):
        _build(tmp_path, "pets")
