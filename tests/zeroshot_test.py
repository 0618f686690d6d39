"""What a frozen encoder does on a stream, as a run of `zero_shot` says it."""

import dataclasses
import json
import pathlib

import numpy as np
import pytest
from rich.console import Console

from mmcl_jax import config
from mmcl_jax.errors import ConfigError
from mmcl_jax.training import build, experiment
from mmcl_jax.training.batches import Feed
from mmcl_jax.training.frozen_accuracy import frozen_accuracy
from tests import helpers

STREAM = config.World(tasks=5, classes_per_task=2, train_per_class=4, test_per_class=6)


def _config(folder: pathlib.Path, **changes) -> config.Config:
    encoder = config.EncoderOptions(str(folder), **changes)
    method = config.MethodOptions(name="zero_shot")
    train = config.TrainOptions(batch_size=16)
    return config.Config(stream=STREAM, encoder=encoder, method=method, train=train)


def test_it_is_what_a_run_scores(
    encoder_folder: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    made = _config(encoder_folder)
    found = frozen_accuracy(build.assemble(made, Console(quiet=True)))
    results = experiment.run(made, tmp_path / "run")
    matrices = results["accuracy"]
    for space, column in (("union", "all"), ("task", "own")):
        last = matrices[space]["predicted"][-1]
        np.testing.assert_allclose([row[column] for row in found["tasks"]], last)
    means = [row["all"] for row in found["tasks"]]
    assert found["mean"]["all"] == pytest.approx(np.mean(means))
    assert all(
        row["own"] >= row["modality_classes"] >= row["all"] for row in found["tasks"]
    )


def test_templates_of_the_config_are_averaged(encoder_folder: pathlib.Path) -> None:
    def texts(*templates: str) -> np.ndarray:
        run = build.assemble(
            _config(encoder_folder, templates=templates), Console(quiet=True)
        )
        return Feed(run, run.encoder.frozen).embed_class_names()

    one, two, both = texts("a {}."), texts("two {}"), texts("a {}.", "two {}")
    together = one + two
    together /= np.linalg.norm(together, axis=1, keepdims=True)
    np.testing.assert_allclose(both, together, atol=1e-6)
    assert np.abs(one - two).max() > 1e-3


@pytest.mark.parametrize("template", ["a photo", "{} {}", "{name}", "{{}}"])
def test_a_template_has_one_place_for_the_name(template: str) -> None:
    encoder = config.EncoderOptions(templates=("{}", template))
    made = dataclasses.replace(config.Config(), encoder=encoder)
    with pytest.raises(ConfigError, match=r"config.encoder.templates\[1\]"):
        config.resolve(config.to_config_dict(made))


def test_the_command(encoder_folder: pathlib.Path) -> None:
    flags = (
        "--json",
        "--config=configs/demo.py:smoke",
        f"--config.encoder.path={encoder_folder}",
    )
    zeroshot = ("-m", "mmcl_jax.zeroshot")
    done = helpers.start(*zeroshot, flags=flags, workdir=encoder_folder).finish()
    assert done.code == 0, done.errors
    found = json.loads(done.output)
    assert len(found["tasks"]) == 5
    assert any("fingerprint" in line for line in found["encoder"])
