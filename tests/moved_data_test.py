"""A run goes on from data and an encoder that have moved."""

import pathlib
import shutil

import pytest

from mmcl_jax import config
from mmcl_jax.errors import WorkdirError
from mmcl_jax.training import experiment
from tests import helpers
from tests.contract import assert_same


def _write(root: pathlib.Path) -> pathlib.Path:
    for label in "abcd":
        for part, samples in (("train", 3), ("test", 2)):
            folder = root / "image" / "made" / part / label
            folder.mkdir(parents=True)
            for i in range(samples):
                number = 10 * ord(label) + i + 5 * (part == "test")
                helpers.write_picture(folder / f"{i}.png", number)
    return root


def _config(root: pathlib.Path, encoder: pathlib.Path) -> config.Config:
    return config.Config(
        stream=config.Folders(root=str(root), classes_per_task=2),
        encoder=config.EncoderOptions(str(encoder)),
        data=config.DataOptions(feature_cache=False),
        method=config.MethodOptions("ncm"),
        train=config.TrainOptions(epochs=1, batch_size=8),
        report="off",
    )


def test_moved_data_give_the_same_run(
    encoder_folder: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    data, encoder = _write(tmp_path / "data"), tmp_path / "encoder"
    shutil.copytree(encoder_folder, encoder)
    whole, halved = tmp_path / "whole", tmp_path / "halved"
    expected = experiment.run(_config(data, encoder), whole)
    assert expected is not None
    experiment.run(_config(data, encoder), halved, stop_after=1)
    there = [path.rename(tmp_path / f"moved_{path.name}") for path in (data, encoder)]
    found = experiment.run(_config(*there), halved)
    assert found is not None
    said = (halved / "log.txt").read_text()
    assert f"the data are now read from {str(there[0])!r}, not {str(data)!r}" in said
    assert f"the encoder is now read from {str(there[1])!r}" in said
    assert config.load(halved / "config.json") == _config(*there)
    for stage in range(2):
        assert_same(*[helpers.snapshot(each, stage) for each in (whole, halved)])
        assert_same(*[helpers.predictions(each, stage) for each in (whole, halved)])
    for report in (expected, found):
        report["cost"].pop("seconds")
    assert [each.pop("restarts") for each in (expected, found)] == [0, 1]
    assert found == expected
    # once more from the same place, of which nothing is said
    experiment.run(_config(*there), halved)
    assert (halved / "log.txt").read_text().count("now read from") == 2
    # other data are still refused, and so is another encoder
    helpers.write_picture(there[0] / "image" / "made" / "train" / "a" / "0.png", 1)
    with pytest.raises(WorkdirError, match="another content in the tasks image/made"):
        experiment.run(_config(*there), halved)
    helpers.write_picture(there[0] / "image" / "made" / "train" / "a" / "more.png", 1)
    with pytest.raises(WorkdirError, match="made with other data: .*hash"):
        experiment.run(_config(*there), halved)
