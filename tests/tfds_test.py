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

from mmcl_jax.errors import DataError, Faults
from mmcl_jax.modalities import MODALITIES
from mmcl_jax.streams import inspection, tfds, verification
from mmcl_jax.streams.loader import Decoder
from tests import helpers

pytestmark = pytest.mark.xdist_group("tfds")

# in a process of its own: it warns, and opens more than a test should
PREPARE = """
import pathlib, sys
import numpy as np
import tensorflow_datasets as tfds

files = pathlib.Path(sys.argv[1])

def builder(called, media, example, pictures={}, train=6):
    class Made(tfds.core.GeneratorBasedBuilder):
        name = called
        VERSION = tfds.core.Version("1.2.0")
        def _info(self):
            label = tfds.features.ClassLabel(names=["ape", "bee"])
            more = {name: tfds.features.Image() for name in pictures}
            all = {"media": media, "label": label} | more
            keys = ("media", "label") if more else None
            return tfds.core.DatasetInfo(
                builder=self,
                features=tfds.features.FeaturesDict(all),
                supervised_keys=keys,
            )
        def _split_generators(self, manager):
            numbers = {"train": train, "test": 4}
            return {p: self._generate_examples(n) for p, n in numbers.items()}
        def _generate_examples(self, n):
            for i in range(n):
                more = {name: picture(i) for name, picture in pictures.items()}
                yield i, {"media": example(i), "label": i % 2} | more
    Made(data_dir=sys.argv[2], file_format="array_record").download_and_prepare()

shape = (None, None, 3)
png = lambda i: str(files / f"{i % 3}.png")
builder("pets", tfds.features.Image(shape=shape), png)
depth = tfds.features.Image(shape=(None, None, 1), dtype=np.uint16)
builder("rooms", depth, lambda i: str(files / "depth" / "0.png"))
builder("words", tfds.features.Text(), lambda i: f"sentence {i}")
twice = lambda i: f"sentence {i // 4}"
builder("twice", tfds.features.Text(), twice, {"type": png}, train=24)
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
    faults = Faults()
    stream = tfds.build(**(where | {"classes_per_task": 2} | more), faults=faults)
    faults.check()
    return stream


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


def test_equal_sentences_stay_on_one_side_of_a_split(prepared: pathlib.Path) -> None:
    for seed in range(4):
        drawn = {"test": "", "test_fraction": 0.5, "data_seed": seed}
        (task,) = _build(prepared, "twice", **drawn).tasks
        train, test = (
            {r.reference.identity() for r in part} for part in (task.train, task.test)
        )
        assert len(task.train) + len(task.test) == 24
        # six sentences of four records, half of them of each class
        assert len(train | test) == 6
        for label in (0, 1):
            sides = [
                {r.reference.identity() for r in part if r.label == label}
                for part in (task.train, task.test)
            ]
            assert not sides[0] & sides[1]


def test_other_pictures_of_a_record_are_not_decoded(
    prepared: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tensorflow_datasets

    def decode(*_: object) -> None:
        raise AssertionError

    kind = tensorflow_datasets.features.Image
    monkeypatch.setattr(kind, "decode_example_np", decode)
    (task,) = _build(prepared, "twice").tasks
    spec = helpers.make_spec(prepared)
    first = task.train[0].reference.load(MODALITIES["text"], spec)
    assert first.startswith("sentence ")


def test_records_are_read_once_to_list_and_once_to_decode(
    prepared: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tensorflow_datasets.core.data_sources.base import BaseDataSource

    read: list[int] = []
    one, several = BaseDataSource.__getitem__, BaseDataSource.__getitems__
    monkeypatch.setattr(
        BaseDataSource, "__getitem__", lambda *a: read.append(1) or one(*a)
    )
    monkeypatch.setattr(
        BaseDataSource, "__getitems__", lambda *a: read.append(len(a[1])) or several(*a)
    )
    stream = _build(prepared, "pets")
    assert sum(read) == 10
    decoder = Decoder(helpers.make_spec(prepared), 0)
    verified = verification.verify(decoder, stream)
    assert not verified.failures
    findings = inspection.inspect(stream, verified, Faults())
    assert sum(read) == 20
    # six and four records of three pictures
    assert len(findings.leaks) == 4
    assert len(findings.contradictions) + len(findings.repeated) == 6 - 3 + 4 - 3


def test_several_in_one_stream_and_a_test_part_split_off(
    prepared: pathlib.Path,
) -> None:
    stream = _build(prepared, "pets", "words/1.2.0", test="", test_fraction=0.3)
    assert {task.name for task in stream.tasks} == {"image/pets/0", "text/words/0"}
    assert all(len(task.train) + len(task.test) == 6 for task in stream.tasks)


@pytest.mark.parametrize(
    ("name", "more", "words"),
    [
        ("none", {}, "Nothing is downloaded"),
        ("../data/pets", {}, "expected the name"),
        ("/etc", {}, "expected the name"),
        ("pets", {"train": "dev"}, "no split 'dev'"),
        ("pets", {"test": "train"}, "split 'train' is given for training and for"),
        ("nothing", {}, "expected one picture"),
    ],
)
def test_what_cannot_be_read_is_said(prepared, name, more, words) -> None:
    with pytest.raises(DataError, match=words):
        _build(prepared, name, **more)


def _copy(prepared: pathlib.Path, tmp_path: pathlib.Path, name: str) -> pathlib.Path:
    """Returns one of the data sets that may be changed."""
    shutil.copytree(prepared / "data" / name, tmp_path / "data" / name)
    return tmp_path / "data" / name / "1.2.0"


LIBRARY = "tensorflow_datasets.core.features"
EVIL = {"type": "evil.Image", "content": {}}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda media: media | {"pythonClassName": "evil.Image"}, "of 'evil.Image'"),
        (
            # the other spelling of the same field
            lambda media: {"python_class_name": "evil.Image", "text": {}},
            "of 'evil.Image'",
        ),
        (
            lambda media: {
                "pythonClassName": f"{LIBRARY}.sequence_feature.Sequence",
                "sequence": {"feature": {"pythonClassName": "evil.A", "text": {}}},
            },
            "of 'evil.A'",
        ),
        (
            lambda media: {
                "pythonClassName": f"{LIBRARY}.features_dict.FeaturesDict",
                "jsonFeature": {"json": json.dumps({"a": EVIL})},
            },
            "features_dict.FeaturesDict'; expected",
        ),
        (lambda media: {"text": {}}, "feature of ''"),
        (lambda media: EVIL, "expected a data set that"),
        (
            lambda media: {
                "pythonClassName": f"{LIBRARY}.audio_feature.Audio",
                "audio": {},
            },
            "sounds, which cannot",
        ),
    ],
)
def test_features_are_those_of_the_library_alone(
    prepared, tmp_path, monkeypatch, change, words
) -> None:
    (tmp_path / "evil.py").write_text("raise SystemExit('it ran')")
    monkeypatch.syspath_prepend(str(tmp_path))
    path = _copy(prepared, tmp_path, "pets") / "features.json"
    features = json.loads(path.read_text())
    among = features["featuresDict"]["features"]
    among["media"] = change(among["media"])
    path.write_text(json.dumps(features))
    with pytest.raises(DataError, match=words):
        _build(tmp_path, "pets")
    assert "evil" not in sys.modules


def test_the_old_form_of_features_is_refused(prepared, tmp_path, monkeypatch) -> None:
    (tmp_path / "evil.py").write_text("raise SystemExit('it ran')")
    monkeypatch.syspath_prepend(str(tmp_path))
    path = _copy(prepared, tmp_path, "pets") / "features.json"
    path.write_text(json.dumps(EVIL))
    with pytest.raises(DataError, match="obsolete format"):
        _build(tmp_path, "pets")
    assert "evil" not in sys.modules


def test_other_files_name_no_code(prepared, tmp_path, monkeypatch) -> None:
    (tmp_path / "evil.py").write_text("raise SystemExit('it ran')")
    monkeypatch.syspath_prepend(str(tmp_path))
    folder = _copy(prepared, tmp_path, "pets")
    info = json.loads((folder / "dataset_info.json").read_text())
    info |= {"moduleName": "evil", "configName": "evil", "description": "evil.A"}
    (folder / "dataset_info.json").write_text(json.dumps(info))
    (folder / "metadata.json").write_text(json.dumps(EVIL))
    _build(tmp_path, "pets").tasks[0].train[0].reference.load(
        MODALITIES["image"], helpers.make_spec(prepared)
    )
    assert "evil" not in sys.modules


@pytest.mark.parametrize("name", ["features.json", "dataset_info.json"])
def test_damage_is_named(prepared, tmp_path, name) -> None:
    path = _copy(prepared, tmp_path, "pets") / name
    path.write_text(path.read_text()[:-20])
    with pytest.raises(DataError, match=str(tmp_path)):
        _build(tmp_path, "pets")
