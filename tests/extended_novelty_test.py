"""Runs that are extended still know what is usual, and score their control sets."""

import pathlib
import shutil

import numpy as np
import pytest
from PIL import Image

import mmcl_jax
from mmcl_jax import config, reproduce
from mmcl_jax.training import experiment, extension
from mmcl_jax.workdir import layout, novelty, reading
from tests import helpers


def _pictures(seed: int, number: int) -> list[np.ndarray]:
    shade = np.random.default_rng(seed).integers(60, 200, 3)
    noise = np.random.default_rng([seed, number]).integers(-9, 9, (number, 32, 32, 3))
    return list((shade + noise).astype(np.uint8))


def _labelled(names: str, number: int) -> list[tuple[np.ndarray, str]]:
    return [(each, name) for name in names for each in _pictures(ord(name), number)]


def _entries(workdir: pathlib.Path) -> novelty.Stages:
    return novelty.read(workdir, reading.read_run(workdir).owner)


def test_an_extended_run_knows_what_is_usual(
    encoder_folder: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    workdir, more = tmp_path / "run", tmp_path / "more"
    made = config.Config(train=config.TrainOptions(batch_size=8), report="off")
    learner = mmcl_jax.Learner.create(workdir, str(encoder_folder), "ncm", made)
    learner.learn(_labelled("ab", 30), "first")
    before = _entries(workdir)
    assert before.keys() == {0} and before[0].keys() == {"image"}
    # what is learnt is not looked at again
    shutil.rmtree(next((workdir / layout.ADDED).glob("first-*")))
    for picture, label in _labelled("cd", 30):
        folder = more / "image" / "then" / "train" / label
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{len(list(folder.iterdir()))}.png"
        Image.fromarray(picture).save(path)
    for label in "xy":
        helpers.write(more / "text" / "then" / "train" / label, "text", 1)
        helpers.write(more / "text" / "then" / "train" / label, "text", 2)
    source = extension.source_of(str(more), made)
    assert extension.extend(workdir, source)
    # tasks were added, and none of them is learnt: the entries are of the run before
    assert _entries(workdir) == before
    learner = mmcl_jax.Learner.load(workdir)
    results = experiment.run(config.load(workdir / layout.CONFIG), workdir)
    after = _entries(workdir)
    assert after.keys() == {0, 1, 2} and after[0] == before[0]
    assert sorted(name for own in after.values() for name in own) == [
        "image",
        "image",
        "text",
    ]
    assert results and results["novelty"].keys() == {"0", "1", "2"}
    assert reproduce.differences(str(workdir)) == []
    known = [each for name in "abcd" for each in _pictures(ord(name), 10)]
    garbage = list(np.random.default_rng(0).integers(0, 256, (10, 32, 32, 3), np.uint8))
    told = [
        [each.novelty for each in learner.predict(samples, reject=0.1)]
        for samples in (known, garbage)
    ]
    alarms, rejected = ([each and each.unknown for each in own] for own in told)
    assert all(rejected)
    assert np.mean(alarms) < 0.25
    assert learner.predict(known[:1])[0].novelty is None


@pytest.mark.full("extension")
def test_control_sets_of_an_extended_run(
    encoder_folder: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    data = tmp_path / "data"
    for place, labels in (
        ("data/image/made", "ab"),
        ("data/image/other", "cde"),
        ("data/text/words", "fg"),
        ("more/image/new", "hi"),
        ("last/text/new", "jk"),
    ):
        for label in labels:
            for part, number in (("train", 3), ("test", 2)):
                modality = place.split("/")[1]
                folder = tmp_path / place / part / label
                for i in range(number):
                    helpers.write(folder, modality, ord(label) + 20 * i)
    made = config.Config(
        stream=config.Folders(root=str(data), reserve="image/other,text"),
        encoder=config.EncoderOptions(str(encoder_folder)),
        method=config.MethodOptions("sequential"),
        train=config.TrainOptions(epochs=1, batch_size=8),
        report="off",
    )
    workdir = tmp_path / "run"
    first = experiment.run(made, workdir)
    more = extension.source_of(str(tmp_path / "more"), made)
    assert extension.extend(workdir, more) and not extension.extend(workdir, more)
    shutil.rmtree(data / "image" / "made")
    second = experiment.run(made, workdir)
    assert first and second
    names = [told["modality"] for told in first["reserved"]]
    assert names == ["image", "text"]
    for told, later in zip(first["reserved"], second["reserved"], strict=True):
        assert later["accuracy"][:1] == told["accuracy"] and len(later["accuracy"]) == 2
        assert None not in later["accuracy"]
        assert later["zero_shot"] == told["zero_shot"]
    shutil.rmtree(data / "image" / "other" / "test" / "c")
    assert extension.extend(workdir, extension.source_of(str(tmp_path / "last"), made))
    third = experiment.run(made, workdir)
    assert third
    images, sentences = (told["accuracy"] for told in third["reserved"])
    # gone: not scored any more, and named
    assert images == [*second["reserved"][0]["accuracy"], None]
    assert None not in sentences and len(sentences) == 3
    log = (workdir / layout.LOG).read_text()
    assert "the control set 'image' cannot be scored any more" in log
    assert reproduce.differences(str(workdir)) == []


@pytest.mark.full("extension")
def test_control_sets_that_are_gone_need_no_extension(
    encoder_folder: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    for label in "abc":
        for part in ("train", "test"):
            helpers.write(tmp_path / "image" / "made" / part / label, "image")
    made = config.Config(
        stream=config.Folders(root=str(tmp_path), reserve="*/made/c"),
        encoder=config.EncoderOptions(str(encoder_folder)),
        method=config.MethodOptions("ncm"),
        train=config.TrainOptions(batch_size=8),
        report="off",
    )
    workdir = tmp_path / "run"
    before = experiment.run(made, workdir)
    shutil.rmtree(tmp_path / "image" / "made" / "test" / "c")
    again = experiment.run(made, workdir)
    assert before and again and again["reserved"] == before["reserved"]
    log = (workdir / layout.LOG).read_text()
    assert "the control set 'image' cannot be scored any more" in log
