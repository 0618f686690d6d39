"""What a frozen encoder does on a stream, as a run of `zero_shot` says it."""

import dataclasses
import json
import pathlib

import numpy as np
import pytest
from rich.console import Console

from mmcl_jax import config
from mmcl_jax.errors import ConfigError
from mmcl_jax.evaluation import published
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


def _figure(percent: float, classes: int = 4, samples: int = 100) -> published.Figure:
    return published.Figure(
        "mine", "made", classes, samples, percent, 1.0, "made up", (), "this test"
    )


def _row(accuracy: float, classes: int = 4, samples: int = 100) -> dict:
    name = f"image/of {classes}"
    counts = {"classes": classes, "samples": samples}
    return {"name": name, "accuracy": accuracy, **counts}


@pytest.mark.parametrize(
    ("accuracy", "samples", "confirmed"),
    [
        (0.50, 100, True),
        (0.51, 100, True),
        (0.48, 100, False),
        # 25 of 100: twice their deviation is 200 sqrt(.5 * .5 * (1 / 25 - 1 / 100))
        (0.50 - 0.182, 25, True),
        (0.50 - 0.184, 25, False),
        (0.50 + 0.184, 25, False),
    ],
)
def test_a_figure_is_confirmed_within_its_tolerance(
    monkeypatch: pytest.MonkeyPatch, accuracy: float, samples: int, confirmed: bool
) -> None:
    monkeypatch.setitem(published.FIGURES, "made", _figure(50.0))
    rows = [_row(0.9, classes=3), _row(accuracy, samples=samples)]
    told = published.compared("made", rows)
    assert told["confirmed"] == confirmed
    assert told["measured"] == pytest.approx(100 * accuracy)
    answer = "yes" if confirmed else "no"
    shown = f"| `made` | 50.0 | {100 * accuracy:.1f} | {samples} | {answer} |"
    assert told["row"].startswith(shown)


def test_a_figure_of_other_data_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(published.FIGURES, "made", _figure(50.0))
    with pytest.raises(
        ConfigError, match=r"of made, with 4 classes; the stream has im"
    ):
        published.compared("made", [_row(0.5, classes=3)])
    with pytest.raises(ConfigError, match="alone"):
        published.compared("made", [_row(0.5), _row(0.5)])
    with pytest.raises(ConfigError, match="has 101 test samples; the figure is of 100"):
        published.compared("made", [_row(0.5, samples=101)])


@pytest.mark.parametrize("name", published.FIGURES)
def test_figures_are_whole(name: str) -> None:
    figure = published.figure(name)
    assert figure.samples > figure.classes > 1
    assert 100 / figure.classes < figure.percent < 100
    assert 0 < figure.tolerance <= 1
    assert figure.names and figure.source and (figure.templates or figure.note)
    assert len(set(figure.templates)) == len(figure.templates)
    given = config.EncoderOptions(templates=figure.templates)
    resolved = config.resolve(
        config.to_config_dict(dataclasses.replace(config.Config(), encoder=given))
    )
    assert resolved.encoder.templates == figure.templates


def test_the_page_lists_the_figures() -> None:
    page = (helpers.REPOSITORY / "docs" / "encoders.md").read_text("utf-8")
    section = page.partition("\n## Published figures\n")[2].partition("\n## ")[0]
    for name, figure in published.FIGURES.items():
        told = f"{figure.percent} ± {figure.tolerance}"
        cells = (f"`{name}`", figure.data_set, figure.classes, f"{figure.samples:,}")
        assert f"| {' | '.join(map(str, cells))} | {told} |" in section


def test_the_command_compares_with_a_figure(
    encoder_folder: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    for label in range(10):
        for part in ("train", "test"):
            folder = tmp_path / "DATA" / "image" / "digits" / part / str(label)
            folder.mkdir(parents=True)
            helpers.write_picture(folder / "one.png", label)
    flags = [
        f"--config={helpers.REPOSITORY / 'configs/folders.py'}",
        "--config.stream.root=DATA",
        "--config.data.feature_cache=False",
        f"--config.encoder.path={encoder_folder}",
        "--expect=clip_b16-mnist",
    ]
    shown, spoken = run_each("mmcl_jax.zeroshot", [flags, [*flags, "--json"]], tmp_path)
    # an encoder of random weights confirms nothing
    assert (shown.code, spoken.code) == (1, 1), shown.errors + spoken.errors
    assert "clip_b16-mnist: not confirmed. Published 59.4 %, measured" in shown.output
    told = json.loads(spoken.output)["expected"]
    assert told["confirmed"] is False and told["samples"] == 10
    assert told["row"] in shown.output
