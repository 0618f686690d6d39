"""A stored config, which may be anybody's, does not choose what is downloaded."""

import json
import pathlib
import shutil

import pytest

from mmcl_jax import config
from mmcl_jax.analysis.snapshot_comparison import compare_snapshots
from mmcl_jax.errors import ConfigError
from mmcl_jax.models.pretrained import hub
from mmcl_jax.report import run_loader
from mmcl_jax.serving import from_workdir
from mmcl_jax.training import build, experiment, remote_names
from tests import helpers
from tests.pages import EXAMPLE, make_run, reseal


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The repositories that the Hub is asked for."""
    names: list[str] = []

    def download(repository: str, *_: object, **__: object) -> pathlib.Path:
        names.append(repository)
        raise ConfigError(f"no network for {repository}")

    monkeypatch.setattr(hub, "_download", download)
    return names


def _edit(folder: pathlib.Path, section: str, **values: object) -> pathlib.Path:
    path = folder / "config.json"
    stored = json.loads(path.read_text())
    stored[section] |= values
    path.write_text(json.dumps(stored))
    reseal(folder)
    return folder


def test_an_encoder_is_fetched_if_the_command_names_it(
    asked: list[str], tmp_path: pathlib.Path
) -> None:
    folder = _edit(make_run(tmp_path / "run", EXAMPLE), "encoder", path="some/model")
    for read in (
        lambda: remote_names.with_encoder(
            config.load(folder / "config.json"), None, folder
        ),
        lambda: compare_snapshots(folder, 1, 2),
    ):
        with pytest.raises(ConfigError, match="name it by --encoder=some/model"):
            read()
    assert "in a remote repository" in str(run_loader.load(folder).source)
    assert asked == []
    with pytest.raises(ConfigError, match="no network for some/model"):
        named = remote_names.with_encoder(
            config.load(folder / "config.json"), "some/model", folder
        )
        build.load_encoder(named.encoder)
    assert asked == ["some/model"]


def test_data_are_fetched_if_the_config_is_given(
    asked: list[str], tmp_path: pathlib.Path
) -> None:
    folder = make_run(tmp_path / "run", EXAMPLE)
    path = folder / "config.json"
    stored = json.loads(path.read_text())
    stream = json.loads(config.to_json(config.Config(stream=config.Parquet())))[
        "stream"
    ]
    stream["paths"] = ["some/data"]
    path.write_text(json.dumps(stored | {"stream": stream}))
    reseal(folder)
    with pytest.raises(ConfigError, match="data some/data are not on this machine"):
        remote_names.check_data(config.load(path), path)
    assert "data some/data are not on" in str(run_loader.load(folder).source)
    assert asked == []


def test_a_moved_encoder_is_named(
    encoder_folder: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    encoder = tmp_path / "encoder"
    shutil.copytree(encoder_folder, encoder)
    made = config.Config(
        stream=config.World(
            modalities=("image",), tasks=1, train_per_class=2, test_per_class=2
        ),
        encoder=config.EncoderOptions(str(encoder)),
        method=config.MethodOptions("ncm"),
        report="off",
    )
    experiment.run(made, tmp_path / "run")
    moved = encoder.rename(tmp_path / "moved")
    with pytest.raises(ConfigError, match="not on this machine"):
        from_workdir.load(tmp_path / "run")
    picture = helpers.write(tmp_path, "image")
    classifier = from_workdir.load(tmp_path / "run", encoder=str(moved))
    assert classifier.predict([picture])[0].modality == "image"
