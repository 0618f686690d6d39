"""What a frozen encoder does on a stream, as a run of `zero_shot` says it."""

import dataclasses
import json
import pathlib

import numpy as np
import pytest
from rich.console import Console

from mmcl_jax import config
from mmcl_jax.errors import ConfigError
from mmcl_jax.evaluation.guessing import BETTER
from mmcl_jax.training import build, experiment
from mmcl_jax.training.batches import Feed
from mmcl_jax.training.frozen_accuracy import frozen_accuracy
from tests import helpers
from tests.programs import run_each

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
    # each modality of the world is one data set
    assert len(found["data_sets"]) == len({row["modality"] for row in found["tasks"]})
    for data_set in found["data_sets"]:
        own = [
            r for r in found["tasks"] if data_set["name"] == f"{r['modality']}/world"
        ]
        right = sum(row["samples"] * row["modality_classes"] for row in own)
        assert data_set["samples"] == sum(row["samples"] for row in own)
        assert data_set["accuracy"] == pytest.approx(right / data_set["samples"])
        assert data_set["chance"] == pytest.approx(1 / data_set["classes"])


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


def test_the_command(encoder_folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    flags = [
        f"--config={helpers.REPOSITORY / 'configs/demo.py'}:smoke",
        f"--config.encoder.path={encoder_folder}",
    ]
    commands = [[*flags, "--json"], flags]
    spoken, shown = run_each("mmcl_jax.zeroshot", commands, tmp_path)
    assert (spoken.code, shown.code) == (0, 0), spoken.errors + shown.errors
    found = json.loads(spoken.output)
    assert len(found["tasks"]) == 5
    assert any("fingerprint" in line for line in found["encoder"])
    # an encoder of random weights guesses, on most of five data sets at least
    guessed = [r["name"] for r in found["data_sets"] if r["verdict"] != BETTER]
    assert len(guessed) > 2
    said = f"The frozen encoder is no better than guessing on {', '.join(guessed)}."
    assert found["advice"].startswith(said)
    words = " ".join(shown.output.split())
    assert found["advice"] in words
    assert "accuracy (95 % interval)" in words and "no better" in words
