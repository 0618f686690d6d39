"""COMM: its anchor, warm start and self-regularization, and what it is without."""

import collections
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import pytest
import scipy.special

from mmcl_jax.parallel import sharding
from mmcl_jax.types import Context
from tests import by_hand
from tests.contract import Bench, Tree, assert_same, host


# without blending, `comm plain` has the routing of every per-modality method
@pytest.mark.parametrize(
    "pair",
    [
        pytest.param(pair, marks=[pytest.mark.xdist_group(pair[0]), *more])
        for pair, more in (
            (("comm plain alone", "sequential alone"), ()),
            (("comm plain", "sequential sights"), [pytest.mark.full("methods")]),
        )
    ],
)
def test_comm_without_its_parts_is_sequential(benches, pair: tuple[str, str]) -> None:
    left, right = (benches(case) for case in pair)
    stages = range(4)
    plain = left.learn(left.learner.init(left.room), stages)
    sequential = right.learn(right.learner.init(right.room), stages)
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
    state, memories = bench.learner.init(bench.room), []
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
            "comm plain",
            (1, 2, 4),
            marks=[pytest.mark.xdist_group("comm plain"), pytest.mark.full("methods")],
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


@pytest.mark.xdist_group("comm plain")
@pytest.mark.full("methods")
def test_without_a_warm_start_a_new_modality_starts_as_drawn(benches) -> None:
    plain, tasks = benches("comm plain").history, benches("comm plain").tasks
    video = next(i for i, (name, _) in enumerate(tasks) if name == "video")
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
    context = Context(bench.frozen, state.memory, task, classes, "train")
    batch = bench.put(bench.batches(stage)[0])

    loss = by_hand.loss(bench.method, bench.model)

    @jax.jit
    def gradient(params):
        return jax.grad(loss, has_aux=True)(params, context, batch, jax.random.key(0))[
            0
        ]["adapters"]

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


@pytest.mark.xdist_group("comm")
def test_what_was_never_learnt_is_ranked_as_by_the_frozen_encoder(benches) -> None:
    bench = benches("comm")
    stage, later = 5, 6
    rows = bench.rows(later, test=True)
    logits, _ = bench.predict(bench.history.ended[stage], stage, rows)
    _, classes, _ = bench.at(stage)
    cosines = bench.model.logit_scale * rows.query @ np.asarray(classes.text).T
    expected = scipy.special.log_softmax(cosines, axis=1)
    unmet = np.setdiff1d(np.arange(len(bench.slots)), np.flatnonzero(classes.seen))
    assert set(bench.tasks[later][1]) <= set(unmet.tolist())
    for route in logits:
        np.testing.assert_allclose(route[:, unmet], expected[:, unmet], atol=1e-3)
