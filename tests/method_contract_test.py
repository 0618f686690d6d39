"""What every method promises, on a stream of random features that are told apart.

No test here asks which method it has before it.
"""

import dataclasses
import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmcl_jax.methods.registry import METHODS
from mmcl_jax.models import encoder as encoders
from mmcl_jax.models.pretrained import Encoder
from mmcl_jax.models.specs import TowerSpec, clip
from mmcl_jax.parallel import sharding
from mmcl_jax.training import build
from mmcl_jax.types import Batch, Capacity, Context
from mmcl_jax.workdir.snapshots import Snapshots
from tests import helpers
from tests.contract import (
    HALF,
    PLAIN,
    STAGES,
    TEST,
    Bench,
    Tree,
    assert_near,
    assert_same,
    cases,
    digest,
    host,
    over,
    signature,
    take,
)

# 1. fixed structure, one trace a modality


@cases
def test_state_keeps_its_structure(bench: Bench) -> None:
    last = bench.history.state
    assert signature(last) == signature(bench.learner.init(bench.room))


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


@cases
def test_a_prediction_in_two_parts_is_the_prediction(bench: Bench) -> None:
    stage = STAGES - 1
    state = sharding.put(bench.history.ended[stage], bench.mesh)
    at, kept = bench.at(stage), bench.method
    if kept.drives_tower:
        pytest.skip("it is predicted as a whole")
    for modality in bench.modalities:
        whole = bench.put(bench.rows(bench.last_of(modality), test=True))
        bare = whole.replace(inputs={})
        answers = bench.learner.answer(state, *at, whole)
        concluded, asked = bench.learner.conclude(state, *at, bare, answers)
        assert_same(host(concluded), host(bench.learner.predict(state, *at, whole)))
        # a digest of each pass of each route
        assert [len(passes) for passes in asked] == [
            len(each.embeddings) for each in answers
        ]


@cases
def test_who_needs_no_inputs_sends_nothing_through_the_tower(bench: Bench) -> None:
    if bench.method.needs_inputs:
        pytest.skip("it reads inputs")
    assert not bench.method.drives_tower
    assert bench.history.ended
    placed = sharding.put(bench.history.ended[0], bench.mesh)
    frozen, classes, task = bench.at(0)
    batch = bench.put(bench.rows(0)).replace(inputs={})
    for phase in ("train", "observe", "predict"):
        context = Context(frozen, placed.memory, task, classes, phase)
        assert bench.method.inject(placed.params, context, batch) == ()
    assert set(bench.learner.forwards.values()) == {0}


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
        context = Context(bench.frozen, placed.memory, task, classes, "train")
        mask = bench.method.trainable(placed.params, context)
        pairs = zip(
            *(jax.tree.leaves(tree) for tree in (begun.params, trained.params, mask)),
            strict=True,
        )
        moved, trained_now = [], []
        for before, after, free in pairs:
            free = np.broadcast_to(np.asarray(free) > 0, before.shape)
            np.testing.assert_array_equal(before[~free], after[~free])
            moved.append((before[free] != after[free]).any())
            trained_now.append(bench.method.trains and free.any())
        # later stages may train nothing any more
        assert any(moved) == any(trained_now)
        assert stage or any(trained_now) == bench.method.trains


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
    fresh = bench.learner.init(bench.room)
    like = {"params": fresh.params, "memory": fresh.memory}
    restored, results = snapshots.restore(snapshots.numbers()[-1], like)
    snapshots.close()
    assert results == {"seen": HALF}
    again = bench.learn(fresh.replace(**restored), [HALF + 1, HALF + 2])
    for stage in (HALF + 1, HALF + 2):
        assert_same(again.ended[stage], history.ended[stage])
    assert again.compiled == {HALF + 1: 0, HALF + 2: 0}


# 6. devices


@over(PLAIN, "devices")
def test_four_devices_learn_what_one_learns(bench: Bench, encoder: Encoder) -> None:
    many = Bench(encoder, bench.case, devices=4)
    assert many.mesh.devices.size == 4
    cut = many.learn(many.learner.init(many.room), [0, 1])
    whole = bench.history
    for stage in (0, 1):
        # sums in another order differ by rounding, which the first steps of Adam divide
        # by gradients close to zero: up to 1.06e-5 was seen, on one kind of processor
        assert_near(cut.ended[stage].params, whole.ended[stage].params, 2e-5)
        memories = [history.ended[stage].memory for history in (cut, whole)]
        # some of it is a small difference of large numbers
        assert_near(*memories, 1e-4, least=1.0)
    rows = bench.rows(1, test=True)
    left = many.predict(cut.ended[1], 1, rows)
    right = bench.predict(whole.ended[1], 1, rows)
    assert_near(left, right, 1e-4)


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
        TowerSpec(width, 12, width // 64, 4 * width, "quick_gelu", 1e-5)
        for width in (768, 512)
    ]
    spec = clip(*towers, 512, 224, 16, 49408, 77, 49407)
    frozen = encoders.shapes(spec)
    inputs = dataclasses.replace(
        bench.encoder.inputs, image_size=224, frames=8, context_length=77
    )
    large = Bench.__new__(Bench)
    large.__dict__.update(bench.__dict__)
    large.model = bench.model._replace(
        spec=spec,
        input_shapes=build.input_shapes(inputs, bench.modalities),
        embed=functools.partial(encoders.embed, spec),
        embed_layers=functools.partial(encoders.embed_layers, spec),
    )
    run = large.make_learner()
    rows = 2
    batch = bench.rows(bench.last_of("video"), test=True)
    batch = jax.tree.map(lambda x: jnp.zeros((rows, *x.shape[1:]), x.dtype), batch)
    pixels = jax.ShapeDtypeStruct((rows, 8, 224, 224, 3), np.float32)
    batch = batch.replace(inputs={"pixels": pixels}, query=jnp.zeros((rows, 512)))
    classes = bench.classes(0)._replace(text=jnp.zeros((len(bench.slots), 512)))
    state = jax.eval_shape(lambda: run.init(bench.room))
    at = frozen, classes, np.int32(0)
    after, metrics = run.train_step.eval_shape(state, *at, np.int32(1), batch)
    assert jax.tree.map(jnp.shape, after) == jax.tree.map(jnp.shape, state)
    assert all(x.shape == () for x in metrics.values())
    logits = run.predict.eval_shape(state, *at, batch).logits
    assert logits.shape[1:] == (rows, len(bench.slots))


# 8. completeness


@pytest.mark.parametrize("name", METHODS)
def test_method_has_a_row_in_the_readme(name: str) -> None:
    lines = (helpers.REPOSITORY / "README.md").read_text().splitlines()
    assert any(line.startswith("|") and f"`{name}`" in line for line in lines)


# 10. growth


@over(PLAIN, "methods")
def test_a_state_that_grows_starts_as_a_large_one(bench: Bench) -> None:
    small = bench.learner.init(Capacity(classes=3, stages=2))
    grown = bench.learner.grow(small, bench.room)
    assert signature(grown) == signature(bench.learner.init(bench.room))
    assert_same(host(grown), host(bench.learner.init(bench.room)))


@over(("comm", "slca", "l2p", "s_prompts", "rail"), "methods")
def test_growth_loses_nothing(bench: Bench) -> None:
    learnt = bench.history.ended[1]
    larger = Capacity(2 * bench.room.classes, 2 * bench.room.stages)
    grown = bench.learner.grow(sharding.put(learnt, bench.mesh), larger)
    rows, classes = bench.rows(1, test=True), bench.classes(1, room=larger.classes)
    after = bench.predict(grown, 1, rows, classes)
    before = bench.predict(learnt, 1, rows)
    assert_near(after[0][..., : bench.room.classes], before[0], 1e-4)
    assert_near(after[1], before[1], 1e-4)
