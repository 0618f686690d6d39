"""Comparisons are what the stored predictions and snapshots say, counted again."""

import itertools
import json
import pathlib
import shutil

import numpy as np
import pytest
import scipy.stats

from mmcl_jax import agreement, axes, compare, config, stored
from mmcl_jax.assemble import build_model, build_stream
from mmcl_jax.comparison import ComparisonError, compare_pairs, compare_runs
from mmcl_jax.methods import METHODS
from mmcl_jax.modalities.base import DataError
from mmcl_jax.snapshot_comparison import compare_snapshots
from tests import helpers

runs = pytest.mark.xdist_group("runs")

# mathematics


@pytest.mark.parametrize(("first", "second"), [(5, 1), (0, 9), (3, 3), (0, 0), (40, 9)])
def test_mcnemar_is_a_binomial_test(first: int, second: int):
    right = np.array([True] * first + [False] * second + [True] * 7)
    other = np.array([False] * first + [True] * second + [True] * 7)
    found = agreement.mcnemar(right, other)
    assert found[:2] == (first, second)
    expected = 1.0
    if first + second:
        expected = scipy.stats.binomtest(first, first + second).pvalue
    assert found.p_value == pytest.approx(expected, rel=1e-12)


def test_mcnemar_by_hand_and_at_its_ends():
    right = np.arange(9) < 8
    # 2 (C(9, 0) + C(9, 1)) / 2^9
    assert agreement.mcnemar(right, ~right).p_value == 20 / 512
    many = agreement.mcnemar(np.ones(500, bool), np.zeros(500, bool))
    assert many.p_value == 2.0**-499


def test_kappa_by_hand():
    # 20 both yes, 5 and 10 apart, 15 both no: p_o = .7, p_e = .5
    first = np.repeat([1, 1, 0, 0], [20, 5, 10, 15])
    second = np.repeat([1, 0, 1, 0], [20, 5, 10, 15])
    assert agreement.cohen_kappa(first, second) == pytest.approx(0.4)
    assert agreement.share_equal(first, second) == pytest.approx(0.7)
    assert agreement.cohen_kappa(first, first) == 1
    assert np.isnan(agreement.cohen_kappa(first[:3], first[:3]))
    assert np.isnan(agreement.cohen_kappa(first[:0], first[:0]))
    independent = np.tile([0, 1, 2], 300), np.repeat([0, 1, 2], 300)
    assert agreement.cohen_kappa(*independent) == pytest.approx(0, abs=1e-12)


def test_the_paired_interval_is_that_of_draws_of_samples():
    rng = np.random.default_rng(1)
    one, other = rng.random(60) < 0.5, rng.random(60) < 0.7
    found = agreement.paired_difference([one], [other])
    change = other.astype(float) - one
    drawn = change[rng.integers(60, size=(40_000, 60))].mean(1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    assert (found.first, found.second) == (one.mean(), other.mean())
    assert found.difference == pytest.approx(change.mean())
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.02)


def test_pairing_takes_away_what_both_have_in_common():
    hard = np.arange(100) < 50  # half of the samples, which both have wrong
    better = ~hard | (np.arange(100) < 4)
    found = agreement.paired_difference([~hard], [better])
    # of one Bernoulli difference of 4 %, not of two accuracies of 50 %
    assert found.high - found.low < 0.1
    assert found.low > 0


def test_tasks_count_alike_whatever_their_size():
    small, large = np.ones(2, bool), np.ones(200, bool)
    found = agreement.paired_difference([small, large], [~small, large])
    assert found == (1.0, 0.5, -0.5, -0.5, -0.5)
    assert np.isnan(agreement.paired_difference([], []).low)
    assert np.isnan(agreement.paired_difference([small[:0]], [small[:0]]).low)


def test_hsic_is_the_mean_over_all_fours_of_samples():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(6, 3)), rng.normal(size=(6, 2))
    k, l = x @ x.T, y @ y.T  # noqa: E741
    # Song et al. 2012, the U-statistic that their equation (5) is short for
    terms = [
        k[i, j] * l[i, j] + k[i, j] * l[q, r] - 2 * k[i, j] * l[i, q]
        for i, j, q, r in itertools.permutations(range(6), 4)
    ]
    assert agreement.hsic(k, l) == pytest.approx(np.mean(terms))
    with pytest.raises(ValueError, match="3 samples"):
        agreement.hsic(k[:3, :3], l[:3, :3])


@pytest.mark.parametrize("debiased", [True, False])
def test_cka_sees_neither_rotation_nor_scale_nor_place(debiased: bool):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(30, 8)), rng.normal(size=(30, 5))
    turn, _ = np.linalg.qr(rng.normal(size=(8, 8)))
    plain = agreement.linear_cka(x, y, debiased)
    assert agreement.linear_cka(x, x, debiased) == pytest.approx(1)
    assert agreement.linear_cka(x, 3 * x @ turn + 7, debiased) == pytest.approx(1)
    assert agreement.linear_cka(2 * x @ turn - 1, y, debiased) == pytest.approx(plain)
    assert agreement.linear_cka(y, x, debiased) == pytest.approx(plain)
    order = rng.permutation(30)
    assert agreement.linear_cka(x[order], y[order], debiased) == pytest.approx(plain)
    # another linear map is another space
    stretched = x * np.array([9, 1, 1, 1, 1, 1, 1, 1])
    assert agreement.linear_cka(x, stretched, debiased) < 0.9


def test_cka_by_hand():
    # centred already: cov(x, y)^2 / (var x var y) in one dimension
    x, y = np.array([[-1.0], [0], [0], [1]]), np.array([[-1.0], [1], [-1], [1]])
    assert agreement.linear_cka(x, y, debiased=False) == pytest.approx(4 / (2 * 4))
    # off the diagonal K has -1 at the ends of x alone, and L the signs of y
    k = -np.array([[0, 0, 0, 1], [0, 0, 0, 0], [0, 0, 0, 0], [1, 0, 0, 0]])
    l = np.array(  # noqa: E741
        [[0, -1, 1, -1], [-1, 0, -1, 1], [1, -1, 0, -1], [-1, 1, -1, 0]]
    )
    # tr(KL) = 2, sums -2 and -4, rows (-1 0 0 -1) and (-1 -1 -1 -1), over 4 (4 - 3)
    assert agreement.hsic(k, l) == pytest.approx((2 + 8 / 6 - 2 * 2 / 2) / 4)
    own = (2 + 4 / 6 - 2 * 2 / 2) / 4, (12 + 16 / 6 - 2 * 4 / 2) / 4
    expected = (2 + 8 / 6 - 2) / 4 / np.sqrt(own[0] * own[1])
    assert agreement.linear_cka(x, y) == pytest.approx(expected)


def test_the_debiased_cka_of_independent_spaces_is_about_zero():
    rng = np.random.default_rng(0)
    found = [
        [
            agreement.linear_cka(*rng.normal(size=(2, 40, 200)), debiased)
            for _ in range(20)
        ]
        for debiased in (True, False)
    ]
    assert abs(np.mean(found[0])) < 0.02
    assert np.mean(found[1]) > 0.7
    assert np.isnan(agreement.linear_cka(np.ones((5, 2)), np.ones((5, 2))))


def test_displacement_of_what_stays_and_of_nothing():
    x = np.array([1.0, -2.0])
    assert agreement.displacement(x, x)[1:] == (0.0, 0.0, 1.0)
    assert agreement.displacement(x, -2 * x)[2:] == pytest.approx((3.0, -1.0))
    moved = agreement.displacement(0 * x, x)
    assert moved.change == pytest.approx(np.sqrt(5))
    assert np.isnan(moved.relative) and np.isnan(moved.cosine)
    masks = agreement.displacement(np.array([True, False]), np.array([True, True]))
    assert masks.change == 1


@pytest.mark.parametrize("name", METHODS)
def test_axes_are_found_for_every_method(name: str, encoder):
    made = config.Config()
    model = build_model(encoder, build_stream(made))
    options = config.MethodOptions(name=name)
    made = config.Config(method=options)
    found = axes.find(lambda model: METHODS[name](model, made), model)
    for axis in itertools.chain.from_iterable(found.values()):
        expected = {
            "modality": {model.modalities, ("text",), model.modalities[:1]}
            | {tuple(m for m in model.modalities if m != "text")},
            "stage": {tuple(str(k + 1) for k in range(10))},
            "layer": {("0",), ("0", "1")},
        }
        assert axis.names in expected[axis.kind]
    if name == "comm":
        visual = tuple(m for m in model.modalities if m != "text")
        assert found["params/adapters/visual/prompts"] == (
            axes.Axis("modality", 0, visual),
            axes.Axis("layer", 1, ("0", "1")),
        )
    if name == "s_prompts":
        kinds = [axis.kind for axis in found["params/visual/prompts"]]
        assert kinds == ["stage", "layer"]


# real runs


@pytest.fixture(scope="session")
def trained(
    encoder_folder: pathlib.Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, pathlib.Path]:
    """Short runs of two methods over two orders."""
    folder = tmp_path_factory.mktemp("compared")
    started = {}
    for name, argument in {
        "comm": "method=comm",
        "sequential": "method=sequential",
        "again": "method=comm,seed=1",
        "sequential again": "method=sequential,seed=1",
    }.items():
        started[name] = helpers.start_run(
            f"--config=configs/demo.py:smoke,{argument}",
            f"--config.encoder.path={encoder_folder}",
            "--config.method.adapter.length=2",
            "--config.train.epochs=2",
            "--config.stream.tasks=3",
            "--config.stream.modalities=('image', 'audio')",
            workdir=folder / name,
        )
    for run in started.values():
        done = run.finish()
        assert done.code == 0, done.errors
    return {name: folder / name for name in started}


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
        (trained["again"], trained["sequential again"]),
    ]
    found = compare_pairs(pairs)
    assert found["over"] == ["seeds.order", "seeds.init", "seeds.data"]
    cells = [pair["spaces"]["union"]["predicted"]["all"] for pair in found["pairs"]]
    values = [cell["second"] - cell["first"] for cell in cells]
    difference = found["differences"]["union"]["predicted"]
    assert difference["values"] == pytest.approx(values)
    assert difference["mean"] == pytest.approx(np.mean(values))
    assert difference["low"] == pytest.approx(min(values))
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
    from mmcl_jax import embeddings, states

    run = stored.read_run(trained["sequential"])
    state = states.read(trained["sequential"] / "snapshots" / "002")
    assembled = embeddings.assembled(run)
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
        compare_runs(comm, trained["again"])
    with pytest.raises(ComparisonError, match="twice the same run"):
        compare_runs(comm, comm)
    with pytest.raises(ComparisonError, match="no stage 4; 3 are learnt"):
        compare_runs(comm, sequential, stage=4)
    with pytest.raises(ComparisonError, match="no stage 0"):
        compare_snapshots(comm, 0, 2)
    with pytest.raises(ComparisonError, match="the earlier one first"):
        compare_snapshots(comm, 2, 2)
    with pytest.raises(DataError, match="no config.json"):
        compare_runs(comm, tmp_path)
    shorter = tmp_path / "shorter"
    shutil.copytree(sequential, shorter)
    (shorter / "predictions" / "002.npz").unlink()
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
@pytest.mark.parametrize("how", ["cut", "pickle", "range", "missing", "bomb"])
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
    elif how == "missing":
        columns.pop("chosen/union/given")
        np.savez(path, **columns)
    else:
        monkeypatch.setattr(stored, "MAX_PREDICTION_BYTES", 100)
    with pytest.raises(DataError, match="002.npz"):
        compare_runs(workdir, trained["sequential"])


@runs
@pytest.mark.slow
def test_damaged_snapshots_and_other_data_are_named(trained, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(trained["comm"], workdir)
    stream = json.loads((workdir / "stream.json").read_text())
    stream["hash"] = "0" * 64
    (workdir / "stream.json").write_text(json.dumps(stream))
    with pytest.raises(DataError, match="another data than"):
        compare_snapshots(workdir, 1, 3)
    found = compare_snapshots(workdir, 1, 3, with_embeddings=False)
    assert "not described" in found["notes"][0]
    victim = next((workdir / "snapshots" / "000").rglob("_METADATA"))
    victim.write_bytes(victim.read_bytes()[:-1])
    with pytest.raises(DataError, match="000: .*_METADATA is not what was written"):
        compare_snapshots(workdir, 1, 3, with_embeddings=False)
    stream["classes"][0]["canonical"] = 77
    (workdir / "stream.json").write_text(json.dumps(stream))
    with pytest.raises(DataError, match="stream.json"):
        stored.read_run(workdir)


# the command


def _command(*flags: str, workdir: pathlib.Path) -> helpers.Finished:
    program = ("-m", "mmcl_jax.compare")
    return helpers.start(*program, flags=flags, workdir=workdir).finish()


@runs
@pytest.mark.slow
def test_the_command_shows_and_writes(trained, tmp_path):
    path = tmp_path / "found.json"
    both = f"--workdirs={trained['comm']},{trained['sequential']}"
    done = _command(both, f"--json={path}", workdir=tmp_path)
    assert (done.code, done.errors) == (0, "")
    assert "sequential" in done.output and "kappa" in done.output
    expected = compare_runs(trained["comm"], trained["sequential"])
    assert json.loads(path.read_text()) == expected
    one = f"--workdirs={trained['sequential']}"
    flags = ("--snapshots=1,3", "--no-embeddings")
    done = _command(one, *flags, workdir=tmp_path)
    assert (done.code, done.errors) == (0, "")
    assert "visual/prompts" in done.output and "forgotten: " in done.output


WRONG = {
    "nothing": ([], "--workdirs: give one run"),
    "one run": (["--workdirs=a"], "--snapshots: one run"),
    "no numbers": (["--workdirs=a", "--snapshots=1,last"], "'1,last' are not numbers"),
    "two stages": (["--workdirs=a,b", "--snapshots=1,2"], "at one stage"),
    "uneven": (["--workdirs=a,b", "--workdirs=a,b,c"], "each time as many"),
    "no run": (["--workdirs=/no/a,/no/b"], "/no/a: no config.json"),
    "stray": (["--workdirs=a,b", "c"], "unexpected argument 'c'"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_commands_are_one_clear_line(case: str, tmp_path, capsys):
    flags, message = WRONG[case]
    holder = compare.flags.FLAGS
    positional = holder(["compare", *flags])
    try:
        with pytest.raises(SystemExit) as caught:
            compare.main(positional)
    finally:
        for name in ("workdirs", "snapshots"):
            holder[name].unparse()
    assert caught.value.code == 2
    errors = capsys.readouterr().err
    assert errors.startswith("error: ") and message in errors
    assert len(errors.splitlines()) == 1
