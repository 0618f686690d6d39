"""Methods that must come to the same."""

import numpy as np
import pytest

from mmcl_jax import config
from mmcl_jax.methods.registry import METHODS
from mmcl_jax.streams import base
from mmcl_jax.training import build
from tests.contract import STAGES, assert_near


def test_joint_is_sequential_on_the_joined_stream() -> None:
    assert METHODS["joint"].make is METHODS["sequential"].make
    world = config.World(tasks=4, classes_per_task=2, modalities=("image", "audio"))
    streams = [
        build.build_stream(config.Config(world, method=config.MethodOptions(name)))
        for name in ("joint", "sequential")
    ]
    assert streams[0] == base.joint(streams[1])
    assert streams[0].stages == ((0, 1, 2, 3),)


@pytest.mark.xdist_group("ridge")
def test_ridge_of_tasks_in_turn_is_ridge_of_all_at_once(benches) -> None:
    bench = benches("ridge")
    state, last = bench.learner.init(bench.room), STAGES - 1
    for stage in reversed(range(STAGES)):
        for batch in bench.batches(stage):
            bare = bench.put(batch).replace(inputs={})
            state = bench.learner.prepare(state, *bench.at(last), bare, np.int32(0))
    at_once = bench.learner.end_task(state, *bench.at(last))
    assert_near(at_once.memory["head"], bench.history.ended[last].memory["head"], 1e-4)
