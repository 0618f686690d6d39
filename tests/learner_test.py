"""What the compiled step does about losses that are not finite."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmcl_jax.methods.base import Method, aligned, frozen_query
from mmcl_jax.models.model import Model
from mmcl_jax.ops import optim
from mmcl_jax.parallel import sharding
from mmcl_jax.training import learner
from mmcl_jax.types import Batch, Capacity


def _method(model: Model) -> Method:
    """Loss: a weight times the mean query; it counts its steps in its memory."""

    def init(key, room):
        return {"weight": jnp.ones(())}, {"steps": jnp.zeros(())}

    def loss(params, context, batch, features, key):
        return params["weight"] * batch.query.mean(), {}

    def after_step(params, context, batch):
        return {"steps": context.memory["steps"] + 1}

    method = aligned(model, init, "task", embed=frozen_query)
    return method._replace(loss=loss, after_step=after_step)


ROOM = Capacity(classes=1, stages=1)


def _learner(skip: bool) -> learner.Learner:
    nothing: Any = None
    model = Model(
        spec=nothing,
        modalities=("image",),
        logit_scale=1.0,
        input_shapes=({},),
        embed=nothing,
        embed_layers=nothing,
    )
    mesh = sharding.make_mesh(jax.devices()[:1])
    options = optim.OptimizerOptions(learning_rate=0.1)
    return learner.make_learner(_method, model, options, 0, mesh, skip)


def _batch(value: float) -> Batch:
    rows = {
        "query": np.full((2, 3), value, np.float32),
        "label": np.zeros(2, np.int32),
        "weight": np.ones(2, np.float32),
        "id": np.arange(2, dtype=np.int32),
        "hint": np.zeros(2, np.int32),
    }
    mesh = sharding.make_mesh(jax.devices()[:1])
    return sharding.put_batch(Batch(inputs={}, **rows, modality="image"), mesh)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("skip", [False, True])
def test_a_step_that_is_not_finite_changes_nothing(skip: bool, bad: float):
    made = _learner(skip)
    state, flags, moved, counted = made.init(ROOM), [], [], []
    for value in (1.0, bad, 1.0):
        before = float(state.params["weight"])
        state, logged = made.train_step(
            state, None, None, np.int32(0), np.int32(3), _batch(value)
        )
        flags.append(bool(logged["finite"]))
        moved.append(float(state.params["weight"]) != before)
        counted.append(int(state.refused))
    # the schedule and the order of the data go on all the same
    assert int(state.step) == 3
    assert flags == [True, False, True]
    # to stop is to leave the state alone until somebody looks
    assert moved == [True, False, skip]
    assert counted == [0, 1, 1]
    assert float(state.memory["steps"]) == 1 + skip
    assert int(state.optimizer[1].count) == 1 + skip
    assert bool(made.health(state)[0])


def test_what_is_learnt_and_remembered_must_be_finite():
    made = _learner(False)
    for part in ("params", "memory"):
        state = made.init(ROOM)
        tree = jax.tree.map(lambda leaf: leaf * jnp.inf, getattr(state, part))
        tree = jax.tree.map(lambda leaf: leaf - leaf, tree)  # NaN
        assert not bool(made.health(state.replace(**{part: tree}))[0])
