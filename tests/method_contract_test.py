"""What every method promises, on a stream of random features that are told apart.

No test here asks which method it has before it, down to the line that says so.
"""

import collections
import contextlib
import dataclasses
import functools
import hashlib
import pathlib
import socket
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmcl_jax import assemble, config, learner, sharding
from mmcl_jax.methods import METHODS
from mmcl_jax.methods.comm_options import CommOptions
from mmcl_jax.methods.rail import RailOptions
from mmcl_jax.methods.ranpac import RanpacOptions
from mmcl_jax.methods.ridge import RidgeOptions
from mmcl_jax.modalities import MODALITIES
from mmcl_jax.models import Model, dual
from mmcl_jax.models.pretrained.huggingface_clip import Encoder
from mmcl_jax.optim import OptimizerOptions
from mmcl_jax.snapshots import Snapshots
from mmcl_jax.streams import base
from mmcl_jax.types import Batch, Classes, Context
from tests import helpers

ROWS = 8  # of a batch
TRAIN, TEST = 12, 8  # samples of a task: the second training batch is half padding
HALF, STAGES = 6, 12

_adapter = functools.partial(config.AdapterOptions, length=2, rank=2)


def _options(name: str = "comm", kind: str = "deep_prompts", **sections: Any):
    # heads that are well conditioned on a dozen samples
    heads = {
        "ridge": RidgeOptions(regularization=0.1),
        "ranpac": RanpacOptions(width=32, regularization=0.1),
        "rail": RailOptions(width=32, regularization=1.0),
    }
    adapter = _adapter(kind)
    return config.MethodOptions(name, adapter=adapter, **heads | sections)


ALL, SIGHTS = ("image", "video", "text"), ("image", "video")
_PLAIN = CommOptions(
    aggregation="latest",
    self_regularization=None,
    blend="none",
    warm_start=False,
    realignment="off",
)
_COMM = {
    "comm plain": _PLAIN,
    "comm residual": CommOptions(
        blend="residual", given_route="one_hot", realignment="regression"
    ),
    "comm two-stage": CommOptions(
        relevance="two_stage",
        self_regularization_form="distillation",
        mix_support="seen_when_last_trained",
        realignment="gradient",
        granularity="task",
        covariance="low_rank",
        covariance_rank=2,
        pseudo_samples=4,
    ),
    "comm joint": CommOptions(
        relevance="joint",
        aggregation="exponential",
        self_regularization_form="parameters",
        weighting="task",
        self_weight=None,
        realignment="mean_shift",
        granularity="modality",
        covariance="diagonal",
    ),
    "comm hard": CommOptions(
        blend="hard", granularity="modality", covariance="isotropic"
    ),
    "comm uniform": CommOptions(
        blend="uniform", realignment="gradient", covariance="full", pseudo_samples=4
    ),
}
CASES = (
    {name: (_options(name), ALL) for name in METHODS}
    | {"comm low-rank": (_options("comm", "low_rank"), SIGHTS)}
    | {name: (_options(comm=switches), SIGHTS) for name, switches in _COMM.items()}
)
# what some of them become where there is nothing to tell them apart
ALONE = {
    "sequential alone": (_options("sequential"), ("image",)),
    "sequential sights": (_options("sequential"), SIGHTS),
    "comm plain alone": (CASES["comm plain"][0], ("image",)),
}


def over(names: Iterable[str]) -> pytest.MarkDecorator:
    """Runs a test with the bench of each case, all tests of a case in one worker."""
    benches = [pytest.param(n, marks=pytest.mark.xdist_group(n)) for n in names]
    return pytest.mark.parametrize("bench", benches, indirect=True)


cases = over(CASES)

Tree = Any


class Bench:
    """A compiled method, and a stream of classes that random prototypes stand for.

    The first task has a single class. Later ones have two, of a modality in turn after
    the first two; every class is met once.
    """

    def __init__(self, encoder: Encoder, case: str, devices: int = 1) -> None:
        self.case, self.encoder = case, encoder
        options, modalities = (CASES | ALONE)[case]
        self.modalities = modalities
        turns = [modalities[0], *modalities * STAGES]
        self.tasks = [
            (turns[i], [0] if i == 0 else [2 * i - 1, 2 * i]) for i in range(STAGES)
        ]
        slots = [self.modalities.index(name) for name, own in self.tasks for _ in own]
        self.slots = np.array(slots)
        scale = float(np.exp(encoder.frozen["log_scale"]))
        self.model = Model(
            spec=encoder.spec,
            modalities=self.modalities,
            towers=tuple(MODALITIES[name].tower for name in modalities),
            num_classes=len(slots),
            num_stages=STAGES,
            logit_scale=scale,
            input_shapes=assemble.input_shapes(encoder.inputs, modalities),
            embed=lambda frozen, inputs, injection: dual.embed(
                encoder.spec, frozen, inputs, injection
            ),
            layer_features=functools.partial(dual.layer_features, encoder.spec),
        )
        self.config = config.Config(
            method=options,
            train=config.TrainOptions(
                optimizer=OptimizerOptions(learning_rate=1e-2, weight_decay=0.1)
            ),
        )
        self.mesh = sharding.make_mesh(jax.devices()[:devices])
        self.learner = self.make_learner()
        self.method = METHODS[options.name](self.model, self.config)
        self.frozen = sharding.put(encoder.frozen, self.mesh)
        text = np.random.default_rng(1).normal(size=(len(slots), 16))
        text /= np.linalg.norm(text, axis=1, keepdims=True)
        self.text = text.astype(np.float32)

    def make_learner(self) -> learner.Learner:
        return learner.make_learner(
            lambda model: METHODS[self.config.method.name](model, self.config),
            self.model,
            self.config.train.optimizer,
            seed=0,
            mesh=self.mesh,
        )

    def classes(self, stage: int, of_task: Sequence[int] | None = None) -> Classes:
        seen = sum((own for _, own in self.tasks[: stage + 1]), [])
        own = self.tasks[stage][1] if of_task is None else of_task
        return learner.make_classes(self.text, self.slots, seen, own, self.mesh)

    def at(self, stage: int) -> tuple:
        return self.frozen, self.classes(stage), np.int32(stage)

    def rows(self, stage: int, test: bool = False) -> Batch:
        """Samples of a task as one NumPy batch, classes in turn."""
        modality, own = self.tasks[stage]
        number = TEST if test else TRAIN
        label = np.resize(own, number).astype(np.int32)
        inputs = _inputs(self.encoder, modality, label, 2 * stage + test)
        return Batch(
            inputs=inputs,
            query=_queries(self.encoder, modality, inputs),
            label=label,
            weight=np.ones(number, np.float32),
            id=np.arange(number, dtype=np.int32),
            hint=np.full(number, self.modalities.index(modality), np.int32),
            modality=modality,
        )

    def batches(self, stage: int) -> list[Batch]:
        rows = self.rows(stage)
        return [take(rows, range(i, min(i + ROWS, TRAIN))) for i in (0, ROWS)]

    def put(self, batch: Batch) -> Batch:
        return sharding.put_batch(batch, self.mesh)

    def learn(self, state: learner.LearnerState, stages: Sequence[int]) -> "History":
        """Learns some stages one after the other and keeps what passes by."""
        kept = History()
        for stage in stages:
            with compilations() as compiled:
                state = self._learn(state, stage, kept)
            kept.compiled[stage] = len(compiled)
            kept.ended[stage] = host(state)
            kept.traces[stage] = dict(self.learner.traces)
        kept.state = state
        return kept

    def _learn(self, state, stage: int, kept: "History") -> learner.LearnerState:
        at, batches = self.at(stage), [self.put(b) for b in self.batches(stage)]
        for i, batch in enumerate(batches):
            bare = batch.replace(inputs={})
            state = self.learner.prepare(state, *at, bare, np.int32(i))
        state = self.learner.begin_task(state, *at)
        kept.begun[stage] = host(state)
        if self.method.trains:
            for batch in batches:
                steps = np.int32(len(batches))
                state, metrics = self.learner.train_step(state, *at, steps, batch)
                kept.metrics.setdefault(stage, []).append(host(metrics))
                kept.middle.setdefault(stage, host(state))
        kept.trained[stage] = host(state)
        if self.method.observes:
            for i, batch in enumerate(batches):
                state = self.learner.observe(state, *at, batch, np.int32(i))
        return self.learner.end_task(state, *at)

    def predict(
        self, state: Tree, stage: int, batch: Batch, classes: Classes | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Logits and modality scores, `[routes, b, ...]`."""
        frozen, met, task = self.at(stage)
        result = self.learner.predict(
            sharding.put(state, self.mesh),
            frozen,
            classes or met,
            task,
            self.put(batch),
        )
        return np.asarray(result.logits), np.asarray(result.modality)

    def last_of(self, modality: str) -> int:
        """The last task of a modality."""
        return max(i for i, (name, _) in enumerate(self.tasks) if name == modality)

    @functools.cached_property
    def history(self) -> "History":
        """The whole stream; the first task's model has been asked about modalities
        that it has never seen."""
        first = self.learn(self.learner.init(), [0])
        first.initial = host(self.learner.init())
        first.strange = [
            self.predict(first.ended[0], 0, self.rows(self.last_of(m), test=True))
            for m in self.modalities
        ]
        rest = self.learn(first.state, range(1, STAGES))
        first.absorb(rest)
        return first


class History:
    """What was seen of a stream, on the host, by stage; `state` is on the devices."""

    def __init__(self) -> None:
        self.begun, self.middle, self.trained, self.ended = {}, {}, {}, {}
        self.metrics, self.compiled, self.traces = {}, {}, {}
        self.state = self.initial = None
        self.strange = []

    def absorb(self, later: "History") -> None:
        for name, value in vars(later).items():
            if isinstance(value, dict):
                getattr(self, name).update(value)
        self.state = later.state


@pytest.fixture(scope="module")
def benches(encoder: Encoder):
    """Returns the bench of a case, made once."""

    @functools.lru_cache(maxsize=4)
    def make(case: str) -> Bench:
        # every compiled program is mapped into memory, and a process has only so many
        # mappings; those of earlier cases are not needed any more
        jax.clear_caches()
        return Bench(encoder, case)

    return make


@pytest.fixture(scope="module")
def bench(benches, request: pytest.FixtureRequest) -> Bench:
    return benches(request.param)


def _inputs(encoder: Encoder, modality: str, label: np.ndarray, seed: int) -> dict:
    rng = np.random.default_rng([seed, len(label)])
    spec = encoder.spec
    if MODALITIES[modality].tower == "text":
        tokens = np.full((len(label), spec.context_length), 0, np.int32)
        tokens[:, 0], tokens[:, 7] = 2, spec.end_token
        tokens[:, 1:4] = 20 + label[:, None]
        tokens[:, 4:7] = rng.integers(50, 300, (len(label), 3))
        return {"tokens": tokens}
    frames = encoder.inputs.frames if modality == "video" else 1
    shape = (frames, spec.image_size, spec.image_size, 3)
    prototypes = [np.random.default_rng([7, c]).normal(size=shape) for c in label]
    noise = rng.normal(size=(len(label), *shape))
    return {"pixels": (np.stack(prototypes) + 0.5 * noise).astype(np.float32)}


@functools.lru_cache(maxsize=4)
def _embed(spec: dual.DualSpec, modality: str):
    del modality  # a function to compile for each
    return jax.jit(functools.partial(dual.embed, spec))


def _queries(encoder: Encoder, modality: str, inputs: dict) -> np.ndarray:
    return np.asarray(_embed(encoder.spec, modality)(encoder.frozen, inputs))


def take(batch: Batch, rows: Sequence[int], pad: str = "zeros") -> Batch:
    """Chosen rows in front, padding of weight 0 behind them.

    `pad` says what the padding holds: "zeros", or "rubbish": NaN and numbers that are
    no class, no token and no modality.
    """
    rows = list(rows)
    rubbish = {"weight": 0, "id": -1} if pad == "rubbish" else {}

    def fill(path, column):
        name = path[0].name
        value = 0
        if pad == "rubbish":
            value = np.nan if column.dtype.kind == "f" else -(10**6)
        value = rubbish.get(name, value)
        padding = np.full((ROWS - len(rows), *column.shape[1:]), value, column.dtype)
        return np.concatenate([column[rows], padding])

    return jax.tree_util.tree_map_with_path(fill, batch)


def host(tree: Tree) -> Tree:
    return jax.tree.map(np.array, tree)


def signature(tree: Tree) -> list:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return [
        (jax.tree_util.keystr(path), x.shape, x.dtype, x.weak_type, x.sharding)
        for path, x in leaves
    ]


def digest(tree: Tree) -> str:
    parts = [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)]
    return hashlib.sha256(b"".join(parts)).hexdigest()


def assert_same(left: Tree, right: Tree) -> None:
    """Every leaf is bitwise equal."""
    jax.tree_util.tree_map_with_path(
        lambda path, a, b: np.testing.assert_array_equal(
            a, b, jax.tree_util.keystr(path)
        ),
        left,
        right,
    )


def assert_near(left: Tree, right: Tree, tolerance: float, least: float = 1e-3) -> None:
    """Leaves differ by at most `tolerance` of their largest entry, or of `least`.

    The fields of a re-alignment are terms of one sum and share the largest entry: what
    the matrix cannot express is a difference of much larger numbers.
    """

    def of_realignment(path) -> bool:
        return any(getattr(key, "key", None) == "realignment" for key in path)

    leaves = jax.tree_util.tree_leaves_with_path(right)
    shared = [np.abs(leaf).max() for path, leaf in leaves if of_realignment(path)]

    def check(path, a, b):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        entries = np.append(np.abs(b), shared if of_realignment(path) else [])
        limit = tolerance * entries.max(initial=least)
        np.testing.assert_allclose(
            a, b, rtol=0, atol=limit, err_msg=jax.tree_util.keystr(path)
        )

    jax.tree_util.tree_map_with_path(check, left, right)


@contextlib.contextmanager
def compilations() -> Iterator[list]:
    """Collects a mark for every program that is compiled."""
    marks, listening = [], [True]

    def listen(event: str, *_: object, **__: object) -> None:
        if listening[0] and event == "/jax/core/compile/backend_compile_duration":
            marks.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield marks
    finally:
        listening[0] = False


# 1. fixed structure, one trace a modality


@cases
def test_state_keeps_its_structure(bench: Bench) -> None:
    last = bench.history.state
    assert signature(last) == signature(bench.learner.init())


@cases
def test_every_function_is_traced_once_a_modality(bench: Bench) -> None:
    history = bench.history
    after_five, after_all = history.traces[4], history.traces[STAGES - 1]
    assert {name: n for name, n in after_all.items() if n != 1} == {}
    # all modalities have been met by then
    assert after_five == after_all
    trained = [m for name, m in after_all if name == "train_step"]
    assert sorted(trained) == sorted(bench.modalities if bench.method.trains else [])


@cases
def test_a_new_task_compiles_nothing(bench: Bench) -> None:
    later = [bench.history.compiled[i] for i in range(HALF, STAGES)]
    assert later == [0] * (STAGES - HALF)


# 2. a prediction depends on its sample alone


def _states(bench: Bench) -> list[tuple[str, Tree, int]]:
    history, last = bench.history, STAGES - 1
    return [
        ("between tasks", history.ended[HALF], HALF),
        ("within a task", history.middle.get(last, history.begun[last]), last),
        ("at the end", history.ended[last], last),
    ]


@cases
def test_prediction_is_that_of_the_sample_alone(bench: Bench) -> None:
    for when, state, stage in _states(bench):
        for modality in bench.modalities:
            rows = bench.rows(bench.last_of(modality), test=True)
            whole, scores = bench.predict(state, stage, rows)
            order = np.random.default_rng(0).permutation(TEST)
            shuffled = bench.predict(state, stage, take(rows, order))
            alone = [
                bench.predict(state, stage, take(rows, [i], "rubbish"))
                for i in range(TEST)
            ]
            logits = np.concatenate([logits[:, :1] for logits, _ in alone], axis=1)
            assert_near(logits, whole, 1e-4)
            assert_near(shuffled[0], whole[:, order], 1e-4)
            assert_near(shuffled[1], scores[:, order], 1e-4)
            assert (logits.argmax(-1) == whole.argmax(-1)).all(), (when, modality)


@cases
def test_prediction_knows_nothing_of_the_task_or_the_label(bench: Bench) -> None:
    state, stage = bench.history.ended[HALF], HALF
    rows = bench.rows(stage, test=True)
    before = bench.predict(state, stage, rows)
    other = bench.classes(stage, of_task=bench.tasks[0][1])
    disguised = rows.replace(label=rows.label[::-1] * 0, id=rows.id + 99)
    after = bench.predict(state, stage, disguised, other)
    assert_same(before, after)
    frozen, classes, _ = bench.at(stage)
    elsewhere = bench.learner.predict(
        sharding.put(state, bench.mesh), frozen, classes, np.int32(0), bench.put(rows)
    )
    assert_same(before, (elsewhere.logits, elsewhere.modality))


@cases
def test_predicted_route_does_not_see_the_hint(bench: Bench) -> None:
    stage = STAGES - 1
    state, differs = bench.history.ended[stage], False
    for modality in bench.modalities:
        rows = bench.rows(bench.last_of(modality), test=True)
        made = [
            bench.predict(state, stage, rows.replace(hint=np.full_like(rows.hint, i)))
            for i in range(-1, len(bench.modalities))
        ]
        for logits, scores in made:
            np.testing.assert_array_equal(logits[-1], made[0][0][-1])
            np.testing.assert_array_equal(scores[-1], made[0][1][-1])
        # without a hint both routes are one
        np.testing.assert_array_equal(made[0][0][0], made[0][0][-1])
        differs |= any((logits[0] != made[0][0][0]).any() for logits, _ in made)
    assert differs == bench.method.uses_hint


# 3. rows of weight 0


def _steps(bench: Bench, stage: int, state: Tree, batch: Batch) -> dict[str, Tree]:
    """What each function that reads a batch makes of it, from one state."""
    run, at, placed = bench.learner, bench.at(stage), bench.put(batch)
    fresh = lambda: sharding.put(state, bench.mesh)  # noqa: E731
    first = np.int32(0)
    bare = placed.replace(inputs={})
    done = {"prepare": run.prepare(fresh(), *at, bare, first)}
    if bench.method.trains:
        done["train"] = run.train_step(fresh(), *at, np.int32(9), placed)
    if bench.method.observes:
        done["observe"] = run.observe(fresh(), *at, placed, first)
    return host(done)


@cases
def test_what_padding_holds_changes_nothing(bench: Bench) -> None:
    for modality in bench.modalities:
        stage = bench.last_of(modality)
        state, rows = bench.history.begun[stage], bench.rows(stage)
        clean, dirty = (
            _steps(bench, stage, state, take(rows, range(5), pad))
            for pad in ("zeros", "rubbish")
        )
        assert_same(clean, dirty)
        left, right = (
            bench.predict(state, stage, take(rows, range(5), pad))
            for pad in ("zeros", "rubbish")
        )
        for a, b in zip(left, right, strict=True):
            np.testing.assert_array_equal(a[:, :5], b[:, :5])


@cases
def test_a_batch_of_padding_changes_no_memory(bench: Bench) -> None:
    stage = bench.last_of(bench.modalities[0])
    state = bench.history.begun[stage]
    done = _steps(bench, stage, state, take(bench.rows(stage), [], "rubbish"))
    assert_same(done["prepare"].memory, state.memory)
    if "observe" in done:
        assert_same(done["observe"].memory, state.memory)
    if "train" in done:
        _, metrics = done["train"]
        assert metrics["loss"] == metrics["gradient_norm"] == 0


@cases
def test_loss_and_gradient_are_weighted_means(bench: Bench) -> None:
    if not bench.method.trains:
        pytest.skip("nothing is trained")
    stage = bench.last_of(bench.modalities[0])
    state, rows = bench.history.begun[stage], bench.rows(stage)
    half = _steps(bench, stage, state, take(rows, range(4)))["train"]
    twice = _steps(bench, stage, state, take(rows, [*range(4)] * 2))["train"]
    assert_near(half[1], twice[1], 1e-5)
    assert_near(half[0].optimizer, twice[0].optimizer, 1e-4)


# 4. what is masked or frozen


@cases
def test_masked_parameters_are_bitwise_unchanged(bench: Bench) -> None:
    history = bench.history
    for stage in range(STAGES):
        begun, trained = history.begun[stage], history.trained[stage]
        _, classes, task = bench.at(stage)
        placed = sharding.put(begun, bench.mesh)
        context = Context(bench.frozen, placed.memory, task, classes, train=True)
        mask = bench.method.trainable(placed.params, context)
        pairs = zip(
            *(jax.tree.leaves(tree) for tree in (begun.params, trained.params, mask)),
            strict=True,
        )
        moved = []
        for before, after, free in pairs:
            free = np.broadcast_to(np.asarray(free) > 0, before.shape)
            np.testing.assert_array_equal(before[~free], after[~free])
            moved.append((before[free] != after[free]).any())
        assert any(moved) == bench.method.trains


@cases
def test_frozen_weights_stay_as_they_are(bench: Bench) -> None:
    assert bench.history.ended
    assert digest(bench.frozen) == digest(bench.encoder.frozen)
    again = Bench(bench.encoder, "zero_shot")
    assert digest(again.frozen) == digest(bench.frozen)


# 5. to stop and to go on


@cases
def test_resumed_state_goes_on_bitwise(bench: Bench, tmp_path: pathlib.Path) -> None:
    history = bench.history
    kept = history.ended[HALF]
    tree = {"params": kept.params, "memory": kept.memory}
    snapshots = Snapshots(tmp_path)
    snapshots.save(HALF, sharding.put(tree, bench.mesh), {"seen": HALF})
    snapshots.close()
    snapshots = Snapshots(tmp_path)
    fresh = bench.learner.init()
    like = {"params": fresh.params, "memory": fresh.memory}
    restored, results = snapshots.restore(snapshots.numbers()[-1], like)
    snapshots.close()
    assert results == {"seen": HALF}
    again = bench.learn(fresh.replace(**restored), [HALF + 1, HALF + 2])
    for stage in (HALF + 1, HALF + 2):
        assert_same(again.ended[stage], history.ended[stage])
    assert again.compiled == {HALF + 1: 0, HALF + 2: 0}


@pytest.mark.slow
@pytest.mark.xdist_group("runs")
def test_a_run_stopped_and_gone_on_with_ends_bitwise_alike(
    whole_run: helpers.Finished, tmp_path: pathlib.Path
) -> None:
    workdir = tmp_path / "halved"
    first = helpers.run(*whole_run.flags, "--stop_after=2", workdir=workdir)
    assert first.code == 0, first.errors
    assert "stopped after stage 2 of 3" in first.output
    assert not (workdir / "results.json").exists()
    second = helpers.run(workdir=workdir)
    assert second.code == 0, second.errors
    assert "going on after stage 2 of 3" in second.output
    for stage in range(3):
        pair = [helpers.snapshot(r.workdir, stage) for r in (second, whole_run)]
        assert_same(*pair)
        assert_same(
            *[helpers.predictions(r.workdir, stage) for r in (second, whole_run)]
        )
    reports = [run.results() for run in (second, whole_run)]
    for report in reports:
        assert report["cost"].pop("seconds")
    assert reports[0] == reports[1]
    lines = [(r.workdir / "metrics.jsonl").read_text() for r in (second, whole_run)]
    assert lines[0] == lines[1]


# 6. devices


@over(METHODS)
def test_four_devices_learn_what_one_learns(bench: Bench, encoder: Encoder) -> None:
    many = Bench(encoder, bench.case, devices=4)
    assert many.mesh.devices.size == 4
    cut = many.learn(many.learner.init(), [0, 1])
    whole = bench.history
    for stage in (0, 1):
        assert_near(cut.ended[stage].params, whole.ended[stage].params, 1e-5)
        memories = [history.ended[stage].memory for history in (cut, whole)]
        # some of it is a small difference of large numbers
        assert_near(*memories, 1e-4, least=1.0)
    rows = bench.rows(1, test=True)
    left = many.predict(cut.ended[1], 1, rows)
    right = bench.predict(whole.ended[1], 1, rows)
    assert_near(left, right, 1e-4)


@pytest.mark.slow
@pytest.mark.xdist_group("runs")
def test_four_devices_report_what_one_reports(
    whole_run: helpers.Finished, tmp_path: pathlib.Path
) -> None:
    cut = helpers.run(*whole_run.flags, workdir=tmp_path / "cut", devices=4)
    assert_alike(cut, whole_run)


@pytest.mark.slow
@pytest.mark.xdist_group("runs")
def test_two_processes_report_what_one_reports(
    whole_run: helpers.Finished, tmp_path: pathlib.Path
) -> None:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    workdir = tmp_path / "shared"
    joined = (f"--coordinator=localhost:{port}", "--processes=2")
    processes = [
        helpers.start_run(*whole_run.flags, *joined, f"--process={i}", workdir=workdir)
        for i in range(2)
    ]
    first, second = [process.finish() for process in processes]
    assert_alike(first, whole_run)
    assert second.code == 0, second.errors
    # only one of them speaks and writes
    assert "accuracy" not in second.output + second.errors
    told, alone = (
        r.workdir.joinpath("log.txt").read_text() for r in (first, whole_run)
    )
    assert len(told.splitlines()) == len(alone.splitlines())


def assert_alike(left: helpers.Finished, right: helpers.Finished) -> None:
    """Two runs end with the same numbers, but for rounding."""
    for run in (left, right):
        assert run.code == 0, run.errors
    stored, wanted = (helpers.snapshot(run.workdir, 2) for run in (left, right))
    assert stored.keys() == wanted.keys()
    for name, leaf in wanted.items():
        if "params" in name:
            assert_near(stored[name], leaf, 1e-5)
        else:
            assert_near(stored[name], leaf, 1e-4, least=1.0)
    reports = [run.results() for run in (left, right)]
    for part in ("accuracy", "metrics", "modality_identification", "tasks"):
        assert reports[0][part] == reports[1][part]


# 7. finite


@cases
def test_all_stays_finite(bench: Bench) -> None:
    history = bench.history
    checked = history.metrics, history.ended, history.middle, history.strange
    for path, leaf in jax.tree_util.tree_leaves_with_path(checked):
        assert np.isfinite(leaf).all(), jax.tree_util.keystr(path)


@cases
def test_full_size_is_well_formed(bench: Bench) -> None:
    towers = [
        dual.TowerSpec(width, 12, width // 64, 4 * width, "quick_gelu", 1e-5)
        for width in (768, 512)
    ]
    spec = dual.DualSpec(*towers, 512, 224, 16, 49408, 77, 49407)
    frozen = jax.eval_shape(lambda: dual.init(jax.random.key(0), spec))
    inputs = dataclasses.replace(
        bench.encoder.inputs, image_size=224, frames=8, context_length=77
    )
    large = Bench.__new__(Bench)
    large.__dict__.update(bench.__dict__)
    large.model = bench.model._replace(
        spec=spec,
        input_shapes=assemble.input_shapes(inputs, bench.modalities),
        embed=functools.partial(dual.embed, spec),
        layer_features=functools.partial(dual.layer_features, spec),
    )
    run = large.make_learner()
    rows = 2
    batch = bench.rows(bench.last_of("video"), test=True)
    batch = jax.tree.map(lambda x: jnp.zeros((rows, *x.shape[1:]), x.dtype), batch)
    pixels = jax.ShapeDtypeStruct((rows, 8, 224, 224, 3), np.float32)
    batch = batch.replace(inputs={"pixels": pixels}, query=jnp.zeros((rows, 512)))
    classes = bench.classes(0)._replace(text=jnp.zeros((len(bench.slots), 512)))
    state = jax.eval_shape(run.init)
    at = frozen, classes, np.int32(0)
    after, metrics = run.train_step.eval_shape(state, *at, np.int32(1), batch)
    assert jax.tree.map(jnp.shape, after) == jax.tree.map(jnp.shape, state)
    assert all(x.shape == () for x in metrics.values())
    logits = run.predict.eval_shape(state, *at, batch).logits
    assert logits.shape[1:] == (rows, len(bench.slots))


# 9. completeness


@pytest.mark.parametrize("name", METHODS)
def test_method_has_a_row_in_the_readme(name: str) -> None:
    lines = (helpers.REPOSITORY / "README.md").read_text().splitlines()
    assert any(line.startswith("|") and f"`{name}`" in line for line in lines)


# what methods have to do with each other


@pytest.mark.xdist_group("sequential")
def test_joint_is_sequential_on_the_joined_stream(benches, encoder: Encoder) -> None:
    left, right = benches("joint"), benches("sequential")
    stage = STAGES - 1
    assert_same(left.history.ended[stage], right.history.ended[stage])
    world = config.World(tasks=4, classes_per_task=2, modalities=("image", "audio"))
    streams = [
        assemble.build_stream(config.Config(world, method=config.MethodOptions(name)))
        for name in ("joint", "sequential")
    ]
    assert streams[0] == base.joint(streams[1])
    assert streams[0].stages == ((0, 1, 2, 3),)


@pytest.mark.xdist_group("ridge")
def test_ridge_of_tasks_in_turn_is_ridge_of_all_at_once(benches) -> None:
    bench = benches("ridge")
    state, last = bench.learner.init(), STAGES - 1
    for stage in reversed(range(STAGES)):
        for batch in bench.batches(stage):
            bare = bench.put(batch).replace(inputs={})
            state = bench.learner.prepare(state, *bench.at(last), bare, np.int32(0))
    at_once = bench.learner.end_task(state, *bench.at(last))
    assert_near(at_once.memory["head"], bench.history.ended[last].memory["head"], 1e-4)


@pytest.mark.parametrize(
    "pair",
    [
        pytest.param(pair, marks=pytest.mark.xdist_group(pair[0]))
        for pair in (
            ("comm plain alone", "sequential alone"),
            # without blending it is the routing of every per-modality method
            ("comm plain", "sequential sights"),
        )
    ],
)
def test_comm_without_its_parts_is_sequential(benches, pair: tuple[str, str]) -> None:
    left, right = (benches(case) for case in pair)
    stages = range(4)
    plain = left.learn(left.learner.init(), stages)
    sequential = right.learn(right.learner.init(), stages)
    for stage in stages:
        ended = [history.ended[stage] for history in (plain, sequential)]
        assert_same(ended[0].params["adapters"], ended[1].params)
        rows = left.rows(stage, test=True)
        logits = [
            bench.predict(state, stage, rows)[0]
            for bench, state in zip((left, right), ended, strict=True)
        ]
        np.testing.assert_array_equal(*logits)


def _learn_by_hand(bench: Bench, values: Sequence[float]) -> list[dict[str, Any]]:
    """Ends tasks of the first modality with prompts full of given numbers."""
    own = [i for i, (name, _) in enumerate(bench.tasks) if name == bench.modalities[0]]
    state, memories = bench.learner.init(), []
    for stage, value in zip(own, values, strict=False):
        state = bench.learner.begin_task(state, *bench.at(stage))
        params = host(state.params)
        params["adapters"]["visual"]["prompts"][0] = value
        state = state.replace(params=sharding.put(params, bench.mesh))
        state = bench.learner.end_task(state, *bench.at(stage))
        memories.append(host(state.memory))
    return memories


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        pytest.param("comm", (1, 3 / 2, 7 / 3), marks=pytest.mark.xdist_group("comm")),
        pytest.param(
            "comm plain", (1, 2, 4), marks=pytest.mark.xdist_group("comm plain")
        ),
    ],
)
def test_anchor_is_the_mean_of_snapshots_or_the_latest(
    benches, case: str, expected: tuple[float, ...]
) -> None:
    memories = _learn_by_hand(benches(case), (1, 2, 4))
    for k, (memory, value) in enumerate(zip(memories, expected, strict=True), 1):
        anchor = memory["anchor"]["visual"]["prompts"]
        np.testing.assert_allclose(anchor[0], value, rtol=1e-6)
        assert np.abs(anchor[1:]).max() < 0.2  # as it was drawn
        assert memory["snapshots"].tolist()[:2] == [k, 0]


@pytest.mark.xdist_group("comm")
def test_a_change_of_the_newest_of_three_moves_the_anchor_by_a_third(benches) -> None:
    last, moved = (
        _learn_by_hand(benches("comm"), (1, 2, value))[-1]["anchor"]["visual"]
        for value in (4, 4.6)
    )
    change = moved["prompts"][0] - last["prompts"][0]
    np.testing.assert_allclose(change, 0.2, rtol=1e-5)


@pytest.mark.xdist_group("comm")
def test_a_new_modality_starts_from_its_only_relative(benches) -> None:
    history, tasks = benches("comm").history, benches("comm").tasks
    video, text = (
        next(i for i, (name, _) in enumerate(tasks) if name == new)
        for new in ("video", "text")
    )
    begun = history.begun[video]
    np.testing.assert_array_equal(
        begun.params["adapters"]["visual"]["prompts"][1],
        begun.memory["anchor"]["visual"]["prompts"][0],
    )
    # the other tower has nothing to offer
    text_adapters = [
        state.params["adapters"]["text"]
        for state in (history.begun[text], history.initial)
    ]
    assert_same(*text_adapters)
    plain = benches("comm plain").history
    assert_same(
        plain.begun[video].params["adapters"]["visual"]["prompts"][1],
        plain.initial.params["adapters"]["visual"]["prompts"][1],
    )


@pytest.mark.xdist_group("comm")
def test_a_task_leaves_the_adapters_of_other_modalities(benches) -> None:
    bench = benches("comm")

    def by_modality(tree: Tree) -> list[np.ndarray]:
        return [*tree["visual"]["prompts"], *tree["text"]["prompts"]]

    for stage, (name, _) in enumerate(bench.tasks):
        begun, ended = bench.history.begun[stage], bench.history.ended[stage]
        trained = [by_modality(s.params["adapters"]) for s in (begun, ended)]
        anchors = [by_modality(state.memory["anchor"]) for state in (begun, ended)]
        for i, other in enumerate(bench.modalities):
            if other == name:
                assert (trained[0][i] != trained[1][i]).any()
                continue
            np.testing.assert_array_equal(trained[0][i], trained[1][i])
            if begun.memory["snapshots"][i]:
                np.testing.assert_array_equal(anchors[0][i], anchors[1][i])


@pytest.mark.xdist_group("comm")
def test_no_gradient_flows_into_other_modalities(benches) -> None:
    bench = benches("comm")
    stage = bench.last_of("video")
    state = sharding.put(bench.history.begun[stage], bench.mesh)
    _, classes, task = bench.at(stage)
    context = Context(bench.frozen, state.memory, task, classes, train=True)
    batch = bench.put(bench.batches(stage)[0])

    @jax.jit
    def gradient(params):
        return jax.grad(bench.method.loss, has_aux=True)(
            params, context, batch, jax.random.key(0)
        )[0]["adapters"]

    image, video = gradient(state.params)["visual"]["prompts"]
    np.testing.assert_array_equal(image, 0)
    assert np.abs(video).max() > 0
    np.testing.assert_array_equal(gradient(state.params)["text"]["prompts"], 0)


@pytest.mark.xdist_group("comm")
def test_features_are_held_to_the_anchor_from_the_second_task_on(benches) -> None:
    bench = benches("comm")
    met = collections.Counter()
    for stage, (name, _) in enumerate(bench.tasks):
        steps = bench.history.metrics[stage]
        moved = [bool(step["self_regularization"] > 1e-6) for step in steps]
        # nothing has moved before the second task's first step; later on the mean of
        # the snapshots and the newest of them differ from the start
        assert moved == [[False, False], [False, True], [True, True]][min(met[name], 2)]
        for step in steps:
            total = step["alignment"] + step["self_regularization"]
            np.testing.assert_allclose(step["loss"], total, rtol=1e-6)
        met[name] += 1
