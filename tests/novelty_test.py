"""Novelty: scores, quantiles, and how well they tell the unknown apart."""

import itertools
import json
import pathlib
import shutil

import numpy as np
import pytest

import mmcl_jax
from mmcl_jax import reproduce
from mmcl_jax.errors import ConfigError, DataError
from mmcl_jax.evaluation import novelty
from mmcl_jax.evaluation.control_sets import ControlPredictions, accuracy
from mmcl_jax.ops.gaussians import Gaussians
from mmcl_jax.report import run_loader, unknown
from mmcl_jax.report.tables import Table
from mmcl_jax.streams import procedural
from mmcl_jax.workdir import identity
from mmcl_jax.workdir import novelty as stored
from tests import helpers
from tests.pages import seal
from tests.programs import run_each

runs = pytest.mark.xdist_group("novelty")
EVERY = np.ones(3, bool)


def _gaussians(x: np.ndarray, label: np.ndarray) -> Gaussians:
    mean = np.array([x[label == c].mean(0) for c in range(3)])
    offset = x - mean[label]
    count = np.bincount(label, minlength=3).astype(float)
    return Gaussians(count, mean, (offset.T @ offset)[None])  # pyright: ignore


def _samples() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    label = np.repeat(np.arange(3), 10)
    x = rng.normal(size=(30, 5)) @ rng.normal(size=(5, 5))
    return x + 3 * rng.normal(size=(3, 5))[label], label


# distances


def test_distance_is_that_of_the_nearest_class():
    x, label = _samples()
    known = novelty.spread(_gaussians(x, label), 0, EVERY, 1e-9)
    assert known is not None
    new = np.random.default_rng(1).normal(size=(4, 5))
    mean = np.array([x[label == c].mean(0) for c in range(3)])
    offset = x - mean[label]
    inverse = np.linalg.inv(offset.T @ offset / 27)
    wanted = [min((y - m) @ inverse @ (y - m) for m in mean) for y in new]
    found = novelty.distance(known, new) * known.typical
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


@pytest.mark.parametrize(("shrinkage", "rtol"), [(1e-9, 1e-6), (0.05, 0.05)])
def test_a_sample_is_left_out_of_what_it_is_compared_with(shrinkage, rtol):
    x, label = _samples()
    known = novelty.spread(_gaussians(x, label), 0, EVERY, shrinkage)
    assert known is not None
    found = novelty.distance(known, x, label) * known.typical
    for i in range(30):
        rest = _gaussians(np.delete(x, i, 0), np.delete(label, i))
        without = novelty.spread(rest, 0, EVERY, shrinkage)
        assert without is not None
        wanted = novelty.distance(without, x[i : i + 1]) * without.typical
        np.testing.assert_allclose(found[i], wanted[0], rtol=rtol)
    # with itself it would look much too familiar
    assert (novelty.distance(known, x) < novelty.distance(known, x, label)).all()


@pytest.mark.parametrize("shrinkage", [0.1, 0.4])
def test_it_is_left_out_of_fewer_samples_than_dimensions_too(shrinkage):
    rng = np.random.default_rng(3)
    label = np.repeat(np.arange(3), 8)
    x = rng.normal(size=(24, 90)) + 2 * rng.normal(size=(3, 90))[label]
    known = novelty.spread(_gaussians(x, label), 0, EVERY, shrinkage)
    assert known is not None
    found = novelty.distance(known, x, label) * known.typical
    wanted = []
    for i in range(24):
        rest = _gaussians(np.delete(x, i, 0), np.delete(label, i))
        without = novelty.spread(rest, 0, EVERY, shrinkage)
        assert without is not None
        wanted.append(novelty.distance(without, x[i : i + 1])[0] * without.typical)
    np.testing.assert_allclose(found, wanted, rtol=0.1)


def test_a_new_sample_of_a_learnt_class_has_a_distance_of_about_one():
    rng = np.random.default_rng(0)
    for size in (20, 200):
        label = np.repeat(np.arange(3), size)
        centres = 30 * rng.normal(size=(3, 8))
        x, new = (centres[label] + rng.normal(size=(3 * size, 8)) for _ in range(2))
        known = novelty.spread(_gaussians(x, label), 0, EVERY, 0.01)
        assert known is not None
        assert novelty.distance(known, new).mean() == pytest.approx(1, rel=0.15)


def test_classes_of_one_sample_or_none():
    x, label = np.eye(3), np.arange(3)
    known = novelty.spread(_gaussians(x, label), 0, EVERY, 0.05)
    assert known is not None and known.freedom == 0
    assert np.isfinite(novelty.distance(known, x, label)).all()
    alone = novelty.spread(_gaussians(x, label), 0, np.arange(3) == 1, 0.05)
    assert alone is not None
    assert np.isinf(novelty.distance(alone, x[1:2], label[1:2])).all()
    assert novelty.spread(_gaussians(x, label), 0, ~EVERY, 0.05) is None


# quantiles


def test_percentiles_of_samples_of_the_same_kind_are_even():
    rng = np.random.default_rng(0)
    kept = [novelty.quantiles(rng.normal(size=4000) + shift) for shift in (0, 5)]
    new = np.concatenate([rng.normal(size=4000) + shift for shift in (0, 5)])
    share = novelty.percentile([k for k in kept if k], new)
    for rate in (0.01, 0.05, 0.3):
        assert (share > 1 - rate).mean() == pytest.approx(rate, abs=0.01)
    assert novelty.quantiles(np.array([np.inf])) is None
    assert np.isnan(novelty.percentile([], new)).all()


def test_a_snapshot_knows_its_own_stages():
    table = novelty.Quantiles(3, tuple(novelty.LEVELS.tolist()))._asdict()
    stages = {0: {"image": table}, 1: {"audio": table}, 2: {"image": table}}
    found = novelty.kept_at(stages, 1)
    assert found is not None and found.keys() == {"image", "audio"}
    found = novelty.kept_at(stages, 2)
    assert found is not None and len(found["image"]) == 2
    assert novelty.kept_at({1: {}}, 1) is None


def test_quantiles_on_disk(tmp_path: pathlib.Path):
    table = novelty.Quantiles(3, tuple(novelty.LEVELS.tolist()))._asdict()
    owner = identity.Owner("run")
    assert stored.read(tmp_path, owner) == {}
    stored.write(tmp_path, "run", {0: {"image": table}})
    assert novelty.kept_at(stored.read(tmp_path, owner), 0) is not None
    with pytest.raises(DataError, match="of the run 'run'"):
        stored.read(tmp_path, identity.Owner("other"))
    table["values"] = table["values"][::-1]
    stored.write(tmp_path, "run", {0: {"image": table}})
    with pytest.raises(DataError, match=r"novelty\.json"):
        stored.read(tmp_path, owner)


# how well the unknown is told apart


def test_auroc_counts_pairs():
    rng = np.random.default_rng(0)
    known = rng.integers(0, 8, 30).astype(float)
    unknown = rng.integers(3, 12, 20).astype(float)
    pairs = [(u > k) + 0.5 * (u == k) for u, k in itertools.product(unknown, known)]
    assert novelty.auroc(known, unknown) == pytest.approx(np.mean(pairs))
    assert novelty.auroc(known, known) == pytest.approx(0.5)


def test_fpr95_is_read_off_the_curve():
    rng = np.random.default_rng(0)
    known, unknown = rng.normal(size=40), rng.normal(size=25) + 1
    # of all thresholds that let at least 95 % of the known pass, the strictest
    curve = [
        (np.mean(unknown <= t), np.mean(known <= t))
        for t in np.concatenate([known, unknown])
    ]
    wanted = min(passed for passed, kept in curve if kept >= 0.95 - 1e-12)
    assert novelty.fpr95(known, unknown) == pytest.approx(wanted)
    assert novelty.fpr95(np.zeros(3), np.ones(2)) == 0
    assert novelty.fpr95(np.ones(3), np.zeros(2)) == 1


def test_a_stage_by_hand():
    stream = procedural.build(
        tasks=3,
        classes_per_task=2,
        modalities=("image", "audio"),
        order="interleaved",
        train_per_class=1,
        test_per_class=1,
        order_seed=0,
        data_seed=0,
        reserve="image/world/*",
    )
    assert [task.modality for task in stream.tasks] == ["audio"]
    controls = ControlPredictions(
        np.zeros(2, int), np.arange(2), np.arange(2), np.arange(2), *2 * [np.ones(2)]
    )
    scores = novelty.Scores(np.array([1.0, 2.0]), np.array([0.5, 0.96]))
    found = novelty.of_stage(stream, [0], *2 * [np.zeros(2, int)], scores, controls)
    # images were not met, so they are not told apart: they are not predicted at all
    assert found == {"false_alarms": {"audio": 0.5}, "upcoming": {}, "reserved": {}}


def test_a_class_that_returns_is_not_unknown():
    stream = procedural.build(
        tasks=2,
        classes_per_task=2,
        modalities=("image",),
        order="interleaved",
        train_per_class=1,
        test_per_class=1,
        order_seed=0,
        data_seed=0,
    )
    task, label = np.array([0, 0, 1, 1]), np.array([0, 1, 1, 2])
    scores = novelty.Scores(np.array([1.0, 2.0, 1.5, 3.0]), np.full(4, 0.5))
    found = novelty.of_stage(stream, [0], task, label, scores, None)
    # the third sample is of another domain: it is neither known nor unknown
    assert found["upcoming"] == {"image": {"auroc": 1.0, "fpr95": 0.0, "rejected": 0.0}}


def test_accuracy_of_a_control_set():
    canonical = np.array([0, 1, 0, 2])
    label = np.array([0, 1, 3])
    assert accuracy(np.array([2, 0, 3]), label, canonical) == pytest.approx(2 / 3)
    assert accuracy(np.array([2]), np.array([0]), canonical) is None


# a run


@pytest.fixture(scope="module")
def reserving(encoder_folder: pathlib.Path, tmp_path_factory: pytest.TempPathFactory):
    """A run over one modality, with a second one as a control set."""
    return helpers.run(
        "--config=configs/demo.py:smoke,method=sequential,sharing=shared",
        f"--config.encoder.path={encoder_folder}",
        "--config.stream.tasks=4",
        "--config.stream.classes_per_task=3",
        "--config.stream.modalities=('image', 'audio')",
        "--config.stream.reserve=audio",
        "--config.stream.train_per_class=5",
        "--config.stream.test_per_class=4",
        "--config.train.batch_size=8",
        "--config.report=off",
        workdir=tmp_path_factory.mktemp("reserving"),
    )


@runs
def test_a_modality_that_is_never_learnt_is_scored(reserving: helpers.Finished):
    assert reserving.code == 0, reserving.errors
    results = reserving.results()
    assert results["modalities"] == ["image"]
    (control,) = results["reserved"]
    assert (control["modality"], control["classes"]) == ("audio", 6)
    assert control["samples"] == 24 and len(control["accuracy"]) == 2
    shares = [control["zero_shot"], *control["accuracy"]]
    assert all(0 <= share <= 1 for share in shares)
    assert results["novelty"]["0"]["upcoming"]["image"].keys() == {
        "auroc",
        "fpr95",
        "rejected",
    }
    assert reproduce.differences(str(reserving.workdir)) == []


@runs
def test_a_page_shows_them(reserving: helpers.Finished):
    run = run_loader.load(reserving.workdir)
    (table,) = unknown.controls(run).blocks
    assert isinstance(table, Table)
    before = reserving.results()["reserved"][0]["zero_shot"]
    assert (table.body[0][0].text, table.body[0][3].value) == ("audio", before)
    (table,) = unknown.unknown(run).blocks
    assert isinstance(table, Table)
    assert [cell.text for cell in table.body[0][:2]] == ["image", "tasks to come"]
    # a page of a version that did not measure it
    for name in ("novelty", "reserved"):
        del run.results[name]
    assert "did not measure" in unknown.unknown(run).absent
    assert "stream.reserve" in unknown.controls(run).absent


@runs
def test_results_on_the_unknown_are_checked(
    reserving: helpers.Finished, tmp_path: pathlib.Path
):
    forged = tmp_path / "forged"
    shutil.copytree(reserving.workdir, forged)
    results = helpers.results(forged)
    results["novelty"]["0"]["upcoming"]["image"]["auroc"] = 0.987
    results["reserved"][0]["accuracy"][1] = 0.987
    seal(forged, results)
    assert reproduce.differences(str(forged)) == [
        "novelty: not what the predictions give",
        "reserved: not what the predictions give",
    ]


@runs
def test_files_are_rejected(reserving: helpers.Finished, tmp_path: pathlib.Path):
    path = helpers.write(tmp_path, "image")
    commands = [
        [f"--workdir={reserving.workdir}", *flags, path]
        for flags in ((), ("--reject=0.2",), ("--json", "--reject=0.2"))
    ]
    plain, told, as_json = run_each("mmcl_jax.predict", commands, tmp_path)
    assert "unlike" not in plain.output
    assert "of the classes learnt: more unlike them than " in told.output
    row = json.loads(as_json.output)
    assert row["unknown"] == (row["percentile"] > 80)
    classifier = mmcl_jax.load(reserving.workdir)
    (said,) = classifier.predict([path], reject=0.2)
    assert said.novelty is not None
    assert said.novelty.score == pytest.approx(row["novelty"], rel=1e-4)
    assert classifier.predict([path])[0].novelty is None
    with pytest.raises(ConfigError, match="reject: 5 is no share"):
        classifier.predict([path], reject=5)


@runs
def test_a_run_without_quantiles_rejects_nothing(
    reserving: helpers.Finished, tmp_path: pathlib.Path
):
    old = tmp_path / "old"
    shutil.copytree(reserving.workdir, old)
    (old / "novelty.json").unlink()
    classifier = mmcl_jax.load(old)
    with pytest.raises(ConfigError, match=r"no novelty quantiles \(novelty\.json\)"):
        classifier.predict([helpers.write(tmp_path, "image")], reject=0.1)
