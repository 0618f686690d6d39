"""A file of another run, stage or time is an error, and never other numbers."""

import dataclasses
import json
import pathlib
import shutil
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest

from mmcl_jax import config
from mmcl_jax.errors import DataError
from mmcl_jax.report import run_loader
from mmcl_jax.serving import from_workdir
from mmcl_jax.training import experiment
from mmcl_jax.workdir import identity, layout, predictions, reading
from tests import helpers
from tests.chaos import forgery
from tests.chaos.forgery import REFUSED, make

FILES = (
    *("config.json", "stream.json", "results.json", "calibration.json"),
    *("novelty.json", "embeddings.npz"),
    *("predictions/000.npz", "predictions/001.npz"),
    *("snapshots/000", "snapshots/001"),
)


@pytest.fixture(scope="module")
def runs(encoder_folder, tmp_path_factory) -> dict[str, pathlib.Path]:
    """Three finished runs: one, one of another seed, one of another method."""
    folder = tmp_path_factory.mktemp("runs")
    made = {"one": (0, "ncm"), "seed": (1, "ncm"), "method": (0, "ridge")}
    for name, (seed, method) in made.items():
        experiment.run(make(encoder_folder, seed, method), folder / name)
    return {name: folder / name for name in made}


def _copy(source: pathlib.Path, target: pathlib.Path) -> pathlib.Path:
    shutil.copytree(source, target)
    return target


def _replace(source: pathlib.Path, target: pathlib.Path) -> None:
    if target.is_dir():
        shutil.rmtree(target)
        shutil.copytree(source, target)
    else:
        shutil.copy(source, target)


def _numbers(workdir: pathlib.Path) -> dict[str, Any]:
    """What readers of a workdir show."""
    loaded = run_loader.load(workdir)
    classifier = from_workdir.load(workdir)
    run = loaded.stored
    chosen = [
        predictions.read_predictions(workdir, run.owner, run.stream, i).chosen.tolist()
        for i in range(2)
    ]
    return {
        "accuracy": loaded.results["accuracy"],
        "method": loaded.results["method"],
        "chosen": chosen,
        "params": [np.asarray(x).tolist() for x in _leaves(classifier.state)],
        "temperatures": classifier.temperatures,
        "kept": classifier.kept,
        "embedded": loaded.embeddings and loaded.embeddings.query.tolist(),
    }


def _leaves(state: Any) -> list[Any]:
    return jax.tree.leaves({"params": state.params, "memory": state.memory})


def _refused_or_same(act: Callable[[], Any], wanted: Any) -> None:
    try:
        found = act()
    except REFUSED as error:
        assert str(error)
    else:
        assert found == wanted


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    "other", ["seed", pytest.param("method", marks=pytest.mark.full("files"))]
)
def test_a_file_of_another_run_gives_no_other_numbers(
    name: str, other: str, runs: dict[str, pathlib.Path], tmp_path: pathlib.Path
) -> None:
    folder = _copy(runs["one"], tmp_path / "run")
    _replace(runs[other] / name, folder / name)
    _refused_or_same(lambda: _numbers(folder), _numbers(runs["one"]))
    # the same data may have given the same content
    if name not in ("embeddings.npz", "stream.json"):
        with pytest.raises(REFUSED, match="of the run|not the|not what|no hash|towers"):
            _numbers(folder)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("snapshots/000", "snapshots/001"),
        ("predictions/000.npz", "predictions/001.npz"),
    ],
)
def test_files_of_two_stages_are_not_exchanged(
    first: str, second: str, runs: dict[str, pathlib.Path], tmp_path: pathlib.Path
) -> None:
    folder = _copy(runs["one"], tmp_path / "run")
    for target, source in ((first, second), (second, first)):
        _replace(runs["one"] / source, folder / target)
    with pytest.raises(DataError, match="of stage|after stage"):
        _numbers(folder)


def test_both_sides_are_named(
    runs: dict[str, pathlib.Path], tmp_path: pathlib.Path
) -> None:
    folder = _copy(runs["one"], tmp_path / "run")
    shutil.copy(runs["method"] / "results.json", folder)
    ids = [reading.read_run(runs[name]).owner.run[:12] for name in ("one", "method")]
    with pytest.raises(DataError) as caught:
        reading.read_results(reading.read_run(folder))
    for word in (str(folder / "results.json"), *ids, "restore"):
        assert word in str(caught.value)


def test_an_edited_config_is_noticed(
    runs: dict[str, pathlib.Path], tmp_path: pathlib.Path, encoder_folder
) -> None:
    folder = _copy(runs["one"], tmp_path / "run")
    path = folder / layout.CONFIG
    stored = json.loads(path.read_text())
    stored["seeds"]["init"] = 7
    path.write_text(json.dumps(stored))
    with pytest.raises(DataError, match="was edited or comes from another workdir"):
        _numbers(folder)
    edited = dataclasses.replace(
        make(encoder_folder, 0), seeds=config.Seeds(order=0, data=0, init=7)
    )
    with pytest.raises(DataError, match="snapshots/001: of the run"):
        experiment.run(edited, folder)
    # devices and pages may change, and give the same numbers
    stored["seeds"]["init"], stored["report"] = 0, "end"
    path.write_text(json.dumps(stored))
    assert _numbers(folder) == _numbers(runs["one"])


@pytest.mark.parametrize("name", ["snapshots/000", "snapshots/001"])
def test_no_run_resumes_from_a_state_of_another(
    name: str, runs: dict[str, pathlib.Path], tmp_path: pathlib.Path, encoder_folder
) -> None:
    folder = _copy(runs["one"], tmp_path / "run")
    for gone in ("results.json", "checkpoints"):
        path = folder / gone
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    _replace(runs["seed"] / name, folder / name)
    with pytest.raises(DataError, match="of the run|was not learnt from"):
        experiment.run(make(encoder_folder, 0), folder)


def test_missing_predictions_are_an_error(
    runs: dict[str, pathlib.Path], tmp_path: pathlib.Path
) -> None:
    for i in range(2):
        folder = _copy(runs["one"], tmp_path / str(i))
        layout.predictions(folder, i).unlink()
        with pytest.raises(DataError, match=f"predictions/00{i}.npz: "):
            run_loader.load(folder)


@pytest.mark.full("files")
def test_no_flipped_bit_gives_other_numbers(
    runs: dict[str, pathlib.Path], tmp_path: pathlib.Path
) -> None:
    folder = _copy(runs["one"], tmp_path / "run")
    assert list(forgery.flips(folder, 150, seed=0)) == []


# a program that is killed leaves the run as it is, and no half of a page


@pytest.mark.parametrize("seconds", [0.1, 0.6, 1.1])
def test_readers_that_are_killed_leave_nothing_half(
    seconds: float, runs: dict[str, pathlib.Path], tmp_path: pathlib.Path
) -> None:
    folder, out = _copy(runs["one"], tmp_path / "run"), tmp_path / "out"
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    flags = (f"--workdirs={folder}", f"--out={out}")
    started = helpers.start("-m", "mmcl_jax.report", flags=flags, workdir=folder)
    time.sleep(seconds)
    started.process.kill()
    started.process.wait()
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before
    for page in out.glob("*.html"):
        assert page.read_text().rstrip().endswith("</html>")


def test_a_branch_knows_where_it_comes_from(
    runs: dict[str, pathlib.Path], tmp_path: pathlib.Path, encoder_folder
) -> None:
    short = tmp_path / "short"
    experiment.run(make(encoder_folder, 0), short, stop_after=1)
    made = dataclasses.replace(
        make(encoder_folder, 0, "ncm"),
        train=config.TrainOptions(epochs=2, batch_size=8),
        resume=f"branch:{short}",
    )
    branch = tmp_path / "branch"
    assert experiment.run(made, branch)
    assert _numbers(branch)["method"] == "ncm"
    # of the run that it comes from only the first stage is part of it
    shutil.copy(runs["one"] / "predictions/001.npz", branch / "predictions/001.npz")
    with pytest.raises(DataError, match="predictions/001.npz: of the run"):
        _numbers(branch)
    stream = json.loads((branch / layout.STREAM).read_text())
    stream["origin"]["from"][0]["stages"] = 2
    (branch / layout.STREAM).write_text(json.dumps(stream))
    with pytest.raises(DataError, match="stream.json: not what the run has written"):
        reading.read_run(branch)


def test_ids_are_of_what_decides_numbers() -> None:
    settings = json.loads(config.to_json(config.Config()))
    stream = {"hash": "a", "contents": ["b"]}
    same = identity.run_id(settings, stream)
    assert same == identity.run_id(settings | {"report": "off"}, stream)
    assert same == identity.run_id(settings, stream | {"contents": None})
    moved = settings | {"encoder": settings["encoder"] | {"path": "elsewhere"}}
    assert same == identity.run_id(moved, stream)
    others = [
        (settings | {"seeds": {"order": 1}}, stream),
        (settings, stream | {"hash": "c"}),
        (settings | {"method": settings["method"] | {"name": "er"}}, stream),
    ]
    assert len({same, *(identity.run_id(*each) for each in others)}) == 4
