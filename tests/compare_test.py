"""Comparisons are what the stored predictions and snapshots say, counted again."""

import itertools
import json
import pathlib
import shutil

import numpy as np
import pytest
import scipy.stats

from mmcl_jax.analysis import embeddings, snapshot_comparison, statistics
from mmcl_jax.analysis.run_comparison import compare_pairs, compare_runs
from mmcl_jax.analysis.snapshot_comparison import compare_snapshots
from mmcl_jax.errors import ComparisonError, DataError, WorkdirError
from mmcl_jax.workdir import identity, predictions, reading, states
from tests import helpers
from tests.pages import reseal
from tests.programs import run_each

KEY = np.array([4_000_000_000], np.uint32)

runs = pytest.mark.xdist_group("compare")

# real runs


@pytest.fixture(scope="session")
def trained(
    whole_run: helpers.Finished, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, pathlib.Path]:
    """Runs of two methods over one stream, and what could be both over another."""
    folder = tmp_path_factory.mktemp("compared")
    variant, *flags = whole_run.flags
    tuned = (f"{variant},method=sequential", *flags, "--config.report=off")
    done = helpers.run(*tuned, workdir=folder / "tuned")
    assert (whole_run.code, done.code) == (0, 0), whole_run.errors + done.errors
    first = {"comm": whole_run.workdir, "sequential": done.workdir}
    return first | {
        f"{name} again": _over_another_stream(workdir, folder / f"{name} again")
        for name, workdir in first.items()
    }


def _over_another_stream(workdir: pathlib.Path, copy: pathlib.Path) -> pathlib.Path:
    """Returns a copy of a run that says to be over other classes, by other seeds."""
    shutil.copytree(workdir, copy)
    made = json.loads((copy / "config.json").read_text())
    made["seeds"] = {"order": 1, "init": 1, "data": 1}
    (copy / "config.json").write_text(json.dumps(made))
    text = (copy / "stream.json").read_text()
    stream = json.loads(text.replace(json.loads(text)["classes"][0]["name"], "other"))
    stream["hash"] = stream["hash"][::-1]
    (copy / "stream.json").write_text(json.dumps(stream))
    columns = helpers.predictions(copy, 2)
    label = columns["label"]
    # what it has right is another draw
    right = np.random.default_rng(len(str(copy))).random(len(label)) < 0.7
    chosen = {
        name: np.where(right, label, column)
        for name, column in columns.items()
        if name.startswith("chosen/")
    }
    np.savez(copy / "predictions" / "002.npz", **columns | chosen)
    reseal(copy)
    return copy


def _rows(workdir: pathlib.Path, stage: int, task: int, space: str, route: str):
    columns = helpers.predictions(workdir, stage)
    here = columns["task"] == task
    chosen = columns[f"chosen/{space}/{route}"][here]
    return columns["id"][here], columns["label"][here], chosen


@runs
@pytest.mark.slow
def test_runs_are_compared_sample_by_sample(trained):
    found = compare_runs(trained["comm"], trained["sequential"])
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    results = {
        name: json.loads((trained[name] / "results.json").read_text())
        for name in ("comm", "sequential")
    }
    for space, route in itertools.product(
        ("task", "modality", "union", "universe"), ("given", "predicted")
    ):
        table = found["spaces"][space][route]
        for task, row in enumerate(table["tasks"]):
            ids, label, one = _rows(trained["comm"], 2, task, space, route)
            others, _, other = _rows(trained["sequential"], 2, task, space, route)
            np.testing.assert_array_equal(ids, others)
            # all names of the procedural world differ: a slot is a name
            first, second = one == label, other == label
            assert row["samples"] == len(ids)
            assert row["first"] == first.mean()
            assert row["second"] == pytest.approx(
                results["sequential"]["accuracy"][space][route][-1][task]
            )
            assert row["difference"] == pytest.approx(second.mean() - first.mean())
            assert row["low"] <= row["difference"] <= row["high"]
            assert row["predicted_alike"] == np.mean(one == other)
            counts = int((first & ~second).sum()), int((second & ~first).sum())
            test = row["mcnemar"]
            assert (test["only_first"], test["only_second"]) == counts
            if sum(counts):
                p = scipy.stats.binomtest(counts[0], sum(counts)).pvalue
                assert test["p_value"] == pytest.approx(p)
        for side, name in (("first", "comm"), ("second", "sequential")):
            last = results[name]["metrics"][space][route]["last_average_accuracy"]
            assert table["all"][side] == pytest.approx(last)


@runs
@pytest.mark.slow
def test_a_run_may_be_compared_at_an_earlier_stage(trained):
    found = compare_runs(trained["comm"], trained["sequential"], stage=1)
    (row,) = found["spaces"]["union"]["given"]["tasks"]
    _, label, chosen = _rows(trained["comm"], 0, 0, "union", "given")
    assert row["first"] == np.mean(chosen == label)


@runs
@pytest.mark.slow
def test_pairs_are_over_seeds(trained):
    pairs = [
        (trained["comm"], trained["sequential"]),
        (trained["comm again"], trained["sequential again"]),
    ]
    found = compare_pairs(pairs)
    assert found["over"] == ["seeds.order", "seeds.init", "seeds.data"]
    cells = [pair["spaces"]["union"]["predicted"]["all"] for pair in found["pairs"]]
    values = [cell["second"] - cell["first"] for cell in cells]
    difference = found["differences"]["union"]["predicted"]
    assert difference["values"] == pytest.approx(values)
    assert difference["mean"] == pytest.approx(np.mean(values))
    ends = difference["low"], difference["high"]
    assert ends == pytest.approx(statistics.t_interval(values))
    for k, task in enumerate(found["tasks"]["union"]["predicted"]):
        rows = [p["spaces"]["union"]["predicted"]["tasks"][k] for p in found["pairs"]]
        assert task["name"] == rows[0]["name"] == rows[1]["name"]
        assert task["values"] == pytest.approx([row["difference"] for row in rows])
    with pytest.raises(ComparisonError, match="pair 2 has the seeds of pair 1"):
        compare_pairs([pairs[0], pairs[0]])
    with pytest.raises(ComparisonError, match="pair 2 of sequential and comm"):
        compare_pairs([pairs[0], pairs[1][::-1]])


@runs
@pytest.mark.slow
def test_snapshots_are_compared_array_by_array(trained):
    workdir = trained["sequential"]
    found = compare_snapshots(workdir, 1, 3)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    before, after = helpers.snapshot(workdir, 0), helpers.snapshot(workdir, 2)
    kinds = {"params": "['params']", "memory": "['memory']"}
    for kind, prefix in kinds.items():
        assert len(found[kind]) == sum(path.startswith(prefix) for path in before)
    one, other = (x["['params']['visual']['prompts']"] for x in (before, after))
    drift = found["params"]["visual/prompts"]
    change = np.linalg.norm((other - one).astype(np.float64))
    assert drift["change"] == pytest.approx(change, rel=1e-6)
    assert drift["relative"] == pytest.approx(change / np.linalg.norm(one), rel=1e-5)
    cosine = np.sum(one * other) / np.linalg.norm(one) / np.linalg.norm(other)
    assert drift["cosine"] == pytest.approx(cosine, rel=1e-5)
    parts = json.loads((workdir / "stream.json").read_text())["modalities"]
    for axis, names in (("modality", parts), ("layer", "01")):
        of = [
            np.linalg.norm(np.take(other - one, k, "ml".index(axis[0])))
            for k in range(len(drift[axis]))
        ]
        assert list(drift[axis]) == list(names)
        changes = [part["change"] for part in drift[axis].values()]
        assert changes == pytest.approx(of, rel=1e-5)


@runs
@pytest.mark.slow
def test_what_was_forgotten_is_listed(trained):
    workdir = trained["sequential"]
    found = compare_snapshots(workdir, 1, 3, with_embeddings=False)
    ids, label, one = _rows(workdir, 0, 0, "union", "predicted")
    _, _, other = _rows(workdir, 2, 0, "union", "predicted")
    lost, regained = (
        (one == label) & (other != label),
        (one != label) & (other == label),
    )
    assert lost.any()
    assert [row["id"] for row in found["forgotten"]] == ids[lost].tolist()
    assert [row["id"] for row in found["recovered"]] == ids[regained].tolist()
    classes = json.loads((workdir / "stream.json").read_text())["classes"]
    for row, slot, truth in zip(
        found["forgotten"], other[lost], label[lost], strict=True
    ):
        assert row["class"] == row["before"]["class"] == classes[truth]["name"]
        assert row["after"]["class"] == classes[slot]["name"]
        assert classes[truth]["name"] in row["sample"]
    (counts,) = found["counts"]["union"]["predicted"]
    assert counts["forgotten"] == lost.sum() and counts["recovered"] == regained.sum()
    assert counts["right"] + counts["wrong"] + lost.sum() + regained.sum() == len(ids)
    assert found["embeddings"] is None and found["notes"] == []


@runs
@pytest.mark.slow
def test_embeddings_are_those_that_predict(trained):
    """Two snapshots that are equal embed alike; the embeddings give the predictions."""
    found = compare_snapshots(trained["sequential"], 1, 3, samples=12)
    for row in found["embeddings"].values():
        assert 4 <= row["samples"] <= 12
        assert row["cka"] == pytest.approx(1, abs=0.2)
    # the modality of the first task is trained again by the third
    first = found["embeddings"]
    (modality,) = first
    assert first[modality]["cosine"] < 1 - 1e-6
    run = reading.read_run(trained["sequential"])
    state = states.read(trained["sequential"] / "snapshots" / "002")
    assembled = embeddings.assembled(run, reading.config_of(run))
    embedded = embeddings.embed(assembled, [(2, state), (2, state)], [0, 1, 2], 1000)
    feed_ids = {}
    for task in range(3):
        ids, _, chosen = _rows(trained["sequential"], 2, task, "union", "given")
        feed_ids |= dict(zip(ids.tolist(), chosen.tolist(), strict=True))
    text = embeddings.Feed(assembled, assembled.encoder.frozen).embed_class_names()
    for part in embedded.values():
        np.testing.assert_array_equal(part.features[0], part.features[1])
        chosen = (part.features[0] @ text.T).argmax(-1)
        assert [feed_ids[int(i)] for i in part.id] == chosen.tolist()


# what is refused


@runs
@pytest.mark.slow
def test_comparisons_that_mean_nothing_are_refused(trained, tmp_path):
    comm, sequential = trained["comm"], trained["sequential"]
    with pytest.raises(ComparisonError, match="different streams: .*task 1 differs"):
        compare_runs(comm, trained["comm again"])
    with pytest.raises(ComparisonError, match="twice the same run"):
        compare_runs(comm, comm)
    with pytest.raises(ComparisonError, match="no 4 in .*; there are 1 to 3"):
        compare_runs(comm, sequential, stage=4)
    with pytest.raises(ComparisonError, match="no 0 in .*; there are 1 to 3"):
        compare_snapshots(comm, 0, 2)
    with pytest.raises(ComparisonError, match="the earlier one first"):
        compare_snapshots(comm, 2, 2)
    with pytest.raises(WorkdirError, match="config.json is not there"):
        compare_runs(comm, tmp_path)
    shorter = tmp_path / "shorter"
    shutil.copytree(sequential, shorter)
    (shorter / "predictions" / "002.npz").unlink()
    with pytest.raises(DataError, match="002.npz: no such file, but the stage"):
        compare_runs(comm, shorter)
    (shorter / "results.json").unlink()
    shutil.rmtree(shorter / "snapshots" / "002")
    with pytest.raises(ComparisonError, match="has seen 3 tasks, .* 2: finish both"):
        compare_runs(comm, shorter)
    other = tmp_path / "other samples"
    shutil.copytree(sequential, other)
    columns = helpers.predictions(other, 2)
    columns["id"][0] += 1
    np.savez(other / "predictions" / "002.npz", **columns)
    with pytest.raises(ComparisonError, match="different test samples: task 1"):
        compare_runs(comm, other)


@runs
@pytest.mark.slow
@pytest.mark.parametrize("how", ["cut", "pickle", "range", "shape", "missing", "bomb"])
def test_damaged_predictions_are_named(trained, tmp_path, how: str, monkeypatch):
    workdir = tmp_path / "run"
    shutil.copytree(trained["comm"], workdir)
    path = workdir / "predictions" / "002.npz"
    columns = helpers.predictions(workdir, 2)
    if how == "cut":
        path.write_bytes(path.read_bytes()[:-40])
    elif how == "pickle":
        np.savez(path, **columns | {"id": np.array([object()], object)})
    elif how == "range":
        np.savez(path, **columns | {"label": columns["label"] + 99})
    elif how == "shape":
        np.savez(path, **columns | {"label": np.tile(columns["label"], (2, 1))})
    elif how == "missing":
        columns.pop("chosen/union/given")
        np.savez(path, **columns)
    else:
        monkeypatch.setattr(predictions, "MAX_BYTES", 100)
    with pytest.raises(DataError, match="002.npz"):
        compare_runs(workdir, trained["sequential"])


@runs
@pytest.mark.slow
def test_damaged_snapshots_and_other_data_are_named(trained, tmp_path, monkeypatch):
    # the description of the stream is changed here as if the data had been
    monkeypatch.setattr(identity.Owner, "check", lambda *_: None)
    workdir = tmp_path / "run"
    shutil.copytree(trained["comm"], workdir)
    stream = json.loads((workdir / "stream.json").read_text())
    stream["hash"] = "0" * 64
    (workdir / "stream.json").write_text(json.dumps(stream))
    with pytest.raises(DataError, match="another data than"):
        compare_snapshots(workdir, 1, 3)
    changed = stream | {"preprocessing": {"image": "image-0"}}
    changed["hash"] = reading.read_run(trained["comm"]).hash
    (workdir / "stream.json").write_text(json.dumps(changed))
    with pytest.raises(DataError, match="preprocesses samples as {'image': 'image-0'}"):
        compare_snapshots(workdir, 1, 3)
    (workdir / "stream.json").write_text(json.dumps(stream))
    found = compare_snapshots(workdir, 1, 3, with_embeddings=False)
    assert "not described" in found["notes"][0]
    victim = next((workdir / "snapshots" / "000").rglob("_METADATA"))
    victim.write_bytes(victim.read_bytes()[:-1])
    with pytest.raises(DataError, match="000: .*_METADATA is not what was written"):
        compare_snapshots(workdir, 1, 3, with_embeddings=False)
    stream["classes"][0]["canonical"] = 77
    (workdir / "stream.json").write_text(json.dumps(stream))
    with pytest.raises(DataError, match="stream.json"):
        reading.read_run(workdir)


def test_masks_of_classes_not_yet_met_are_neither_size_nor_drift():
    before = {"memory/offset": np.array([3.0, -1e9, -1e9]), "memory/key": KEY}
    after = {"memory/offset": np.array([4.0, 5.0, -1e9]), "memory/key": KEY}
    found = snapshot_comparison._drift(before, after, "memory/", {})
    offset = found["offset"]
    assert (offset["norm"], offset["change"], offset["cosine"]) == (3.0, 1.0, 1.0)
    assert found["key"]["norm"] == float(KEY[0])  # any number, and no mask


# the command


@runs
@pytest.mark.slow
def test_the_command_shows_what_was_found(trained, tmp_path):
    both = f"--workdirs={trained['comm']},{trained['sequential']}"
    one = f"--workdirs={trained['sequential']}"
    commands = (
        [both],
        [both, "--json"],
        [one, "--snapshots=1,3", "--noembeddings"],
    )
    runs, as_json, snapshots = run_each("mmcl_jax.compare", commands, tmp_path)
    for done in (runs, as_json, snapshots):
        assert (done.code, done.errors) == (0, "")
    assert "sequential" in runs.output and "kappa" in runs.output
    expected = compare_runs(trained["comm"], trained["sequential"])
    assert json.loads(as_json.output) == expected
    assert "visual/prompts" in snapshots.output and "forgotten: " in snapshots.output
