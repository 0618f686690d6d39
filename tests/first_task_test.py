"""Nothing is added to sequential tuning in the first task, nor by padding."""

import dataclasses
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmcl_jax.methods.comm.aggregation import Blend
from mmcl_jax.methods.comm.method import Options as CommOptions
from mmcl_jax.methods.comm.method import make as comm
from tests.tuned import (
    CASES,
    KEY,
    MODALITIES,
    ROWS,
    SHARED,
    Stream,
    tuned,
    with_options,
)

# one that is built as another which every suite has
ALIKE = pytest.mark.full("methods")


# another program may round otherwise where it adds zeros; an empty reservoir adds none
@pytest.mark.parametrize(
    ("name", "tolerance"),
    [
        ("er", 0),
        pytest.param("lwf", 1e-6, marks=ALIKE),
        pytest.param("ewc", 1e-6, marks=ALIKE),
        pytest.param("zscl", 1e-6, marks=ALIKE),
        pytest.param("derpp", 0, marks=ALIKE),
    ],
)
def test_nothing_is_added_in_the_first_task_and_something_later(
    encoder, name: str, tolerance: float
):
    build, metric = CASES[name]
    stream, plain = Stream(encoder, build, SHARED), Stream(encoder, tuned, SHARED)
    for each in (stream, plain):
        each.begin(0)
        each.move(0.5)
    (value, metrics), gradient = stream.gradient(0)
    (expected, _), plain_gradient = plain.gradient(0)
    assert metrics[metric] == 0
    np.testing.assert_array_equal(value, expected)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=tolerance),
        gradient,
        plain_gradient,
    )
    stream.end(0)
    again = len(MODALITIES)  # of the same modality, so that nothing is compiled anew
    stream.begin(again)
    stream.move(0.5)
    assert stream.gradient(again)[0][1][metric] > 0


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[ALIKE] * (n != "er")) for n in CASES],
)
def test_a_batch_of_padding_has_no_loss(encoder, name: str):
    build, _ = CASES[name]
    stream = Stream(encoder, build)
    stream.learn([0])
    stream.begin(1)
    stream.move(0.5)
    padding = dataclasses.replace(stream.batch(1), weight=jnp.zeros(ROWS))
    value, _ = stream.loss(stream.params, stream.context(1), padding, KEY)
    assert value == 0


@pytest.mark.parametrize("blend", get_args(Blend))
def test_comm_predicts_before_anything_was_met(encoder, blend: Blend):
    options = CommOptions(blend=blend)
    stream = Stream(encoder, with_options(comm, options))
    for stage in (0, 3):  # pictures, sentences
        assert np.isfinite(stream.logits(stage, "predict")).all()
