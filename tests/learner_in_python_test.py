"""A learner in Python, on samples in memory and on files."""

import io
import pathlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

import mmcl_jax
from mmcl_jax import config
from mmcl_jax.errors import ConfigError, DataError, WorkdirError
from mmcl_jax.modalities import MODALITIES
from mmcl_jax.serving import sample_files
from mmcl_jax.training import experiment
from tests import helpers
from tests.contract import assert_same


def _pictures(label: str, number: int) -> list[tuple[np.ndarray, str]]:
    rng = np.random.default_rng(ord(label[0]))
    shade = rng.integers(30, 220, 3)
    noise = rng.integers(-20, 20, (number, 32, 32, 3))
    return [(np.clip(shade + n, 0, 255).astype(np.uint8), label) for n in noise]


def _sentences(label: str, number: int) -> list[tuple[Any, str]]:
    return [
        (mmcl_jax.TextReference(f"{label} number {i}"), label) for i in range(number)
    ]


def _make(workdir: pathlib.Path, encoder: pathlib.Path) -> "mmcl_jax.Learner":
    made = config.Config(train=config.TrainOptions(batch_size=8), report="end")
    return mmcl_jax.Learner.create(workdir, str(encoder), "ncm", made)


def test_it_learns_predicts_and_learns_more(
    encoder_folder: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    learner = _make(tmp_path / "run", encoder_folder)
    with pytest.raises(WorkdirError, match="no run in it"):
        learner.predict([_pictures("red", 1)[0][0]])
    first = learner.learn([*_pictures("red", 6), *_pictures("blue", 6)])
    assert [task["name"] for task in first["tasks"]] == ["image/samples/0"]
    with pytest.raises(WorkdirError, match=r"use Learner\.load"):
        _make(tmp_path / "run", encoder_folder)
    again = mmcl_jax.Learner.load(tmp_path / "run")
    second = again.learn(
        [*_sentences("hello", 4), *_sentences("good", 4)], name="words"
    )
    assert [task["name"] for task in second["tasks"]] == ["image/samples/0", "words"]
    said = again.predict([_pictures("red", 1)[0][0], mmcl_jax.TextReference("hello")])
    assert [each.modality for each in said] == ["image", "text"]
    assert said[0].labels[0].name == "red"
    told = again.evaluate([*_pictures("red", 3), *_pictures("blue", 3)])
    assert told == {"samples": 6, "accuracy": 1.0, "by_class": {"red": 1, "blue": 1}}
    assert "Timeline" in again.report().read_text(encoding="utf-8")


def test_a_folder_is_learnt_and_evaluated(
    encoder_folder: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    for part, number in (("train", 4), ("test", 2)):
        for label in "ab":
            folder = tmp_path / "data" / "image" / "made" / part / label
            folder.mkdir(parents=True)
            for i in range(number):
                helpers.write_picture(folder / f"{i}.png", 10 * ord(label) + i)
    learner = _make(tmp_path / "run", encoder_folder)
    found = learner.learn(tmp_path / "data")
    told = learner.evaluate(tmp_path / "data")
    assert told["samples"] == 4
    assert (
        told["accuracy"]
        == found["metrics"]["routed"]["predicted"]["last_average_accuracy"]
    )


@pytest.mark.full("interruption")
@pytest.mark.parametrize("task", [0, 1])
def test_a_call_that_was_stopped_resumes(
    task: int,
    encoder_folder: pathlib.Path,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = [
        [*_pictures("red", 5), *_pictures("blue", 5)],
        [*_pictures("green", 5), *_pictures("pink", 5)],
    ]
    alone = _make(tmp_path / "alone", encoder_folder)
    for each in data:
        expected = alone.learn(each)
    stopped = _make(tmp_path / "stopped", encoder_folder)
    for each in data[:task]:
        stopped.learn(each)

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(experiment.Scorer, "score", stop)
        with pytest.raises(KeyboardInterrupt):
            stopped.learn(data[task])
    for each in data[task:]:
        found = mmcl_jax.Learner.load(tmp_path / "stopped").learn(each)
    assert len(found["tasks"]) == 2
    assert found["accuracy"] == expected["accuracy"]
    folders = [tmp_path / "alone", tmp_path / "stopped"]
    assert_same(*[helpers.snapshot(folder, 1) for folder in folders])


def _jpeg() -> bytes:
    encoded = io.BytesIO()
    Image.fromarray(_pictures("red", 1)[0][0]).save(encoded, "JPEG")
    return encoded.getvalue()


_GREY = np.full((8, 8), 900, np.uint16)


@pytest.mark.parametrize(
    ("sample", "modality"),
    [
        (_jpeg(), "image"),
        (Image.fromarray(_pictures("red", 1)[0][0]), "image"),
        (_pictures("red", 1)[0][0], "image"),
        (_pictures("red", 1)[0][0][..., 0], "image"),
        (_GREY, "depth"),
        (_GREY / np.float32(1000), "depth"),
        (Image.fromarray(_GREY), "depth"),
        (np.zeros((5, 8, 8, 3), np.uint8), "video"),
        ((np.zeros(4000, np.float32), 8000), "audio"),
        ((np.zeros((4000, 2), np.int16), np.int64(8000)), "audio"),
        (mmcl_jax.TextReference("a sentence"), "text"),
    ],
)
def test_every_kind_of_sample_becomes_a_file(
    sample: Any, modality: str, encoder: Any, tmp_path: pathlib.Path
) -> None:
    path, found = sample_files.write(sample, tmp_path / "0")
    assert found == modality
    media = MODALITIES[modality].decode(str(path), encoder.inputs)
    MODALITIES[modality].preprocess(media, encoder.inputs)
    if modality == "depth":
        np.testing.assert_allclose(media, 0.9, atol=1e-6)


def test_samples_in_memory_are_what_they_were(
    encoder: Any, tmp_path: pathlib.Path
) -> None:
    def decoded(sample: Any) -> Any:
        path, modality = sample_files.write(sample, tmp_path / "sample")
        return MODALITIES[modality].decode(str(path), encoder.inputs)

    rng = np.random.default_rng(0)
    clip = rng.integers(0, 256, (5, 7, 9, 3)).astype(np.uint8)
    np.testing.assert_array_equal(decoded(clip), clip[[0, 4]])
    sound = rng.integers(-(2**15), 2**15, 4000).astype(np.int16)
    heard, rate = decoded((sound, 8000))
    assert rate == 8000
    np.testing.assert_allclose(heard, sound / 2**15)
    # a camera that was turned, and a picture for printers
    upright = np.asarray(clip[0])
    turned = Image.fromarray(np.rot90(upright).copy())
    turned.getexif()[0x0112] = 6
    np.testing.assert_array_equal(decoded(turned), upright)
    assert decoded(Image.new("CMYK", (3, 2))).tolist() == [[[255] * 3] * 3] * 2


def test_what_is_no_sample_is_named(
    encoder_folder: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    learner = _make(tmp_path / "run", encoder_folder)
    with pytest.raises(DataError, match="nothing: no such file"):
        learner.learn([("nothing", "a")])
    with pytest.raises(DataError, match="a sample of the type int"):
        learner.learn([(3, "a")])  # pyright: ignore[reportArgumentType]
    with pytest.raises(DataError, match="no samples to learn"):
        learner.learn([])
    with pytest.raises(ConfigError, match="cannot be the name of a data set"):
        learner.learn(_pictures("red", 3), name="a/b")
    with pytest.raises(DataError, match="no samples to evaluate"):
        learner.evaluate([])
