"""Arrays grow by doubling, and what comes later is nowhere to be seen before."""

import dataclasses

import jax
import numpy as np
import pytest

from mmcl_jax import config
from mmcl_jax.models.pretrained import Encoder
from mmcl_jax.parallel import sharding
from mmcl_jax.streams.base import Stream
from mmcl_jax.streams.loader import Decoder
from mmcl_jax.training import build, capacity
from mmcl_jax.types import Batch, Capacity
from tests.bench.growth import make_stream
from tests.contract import assert_same, compilations

TASKS = 200


def _run(encoder: Encoder, stream: Stream, method: str = "ncm") -> build.Run:
    made = config.Config(
        method=config.MethodOptions(method, adapter=config.AdapterOptions(length=2)),
        train=config.TrainOptions(batch_size=4),
    )
    mesh = sharding.make_mesh(jax.devices()[:1])
    return build.compose(made, encoder, stream, mesh, Decoder(encoder.inputs, 0))


def _text(stream: Stream, width: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    text = rng.normal(size=(len(stream.classes), width)).astype(np.float32)
    return text / np.linalg.norm(text, axis=1, keepdims=True)


@pytest.mark.parametrize(
    ("stage", "expected"),
    [(0, (64, 16)), (15, (64, 16)), (16, (64, 32)), (63, (64, 64)), (64, (128, 128))],
)
def test_capacities_double(stage: int, expected: tuple[int, int]) -> None:
    assert capacity.at_stage(make_stream(TASKS, 1), stage) == Capacity(*expected)


def test_a_stage_knows_nothing_of_later_ones(encoder: Encoder) -> None:
    stream = make_stream(6, 2)
    prefix = dataclasses.replace(
        stream,
        classes=stream.classes[:6],
        tasks=stream.tasks[:3],
        stages=stream.stages[:3],
    )
    text = _text(stream, encoder.spec.embedding)
    whole, short = (
        build.classes_at(_run(encoder, each), text[: len(each.classes)], 2)
        for each in (stream, prefix)
    )
    assert_same(whole, short)
    assert not np.asarray(whole.text)[6:].any()
    upcoming = build.classes_at(_run(encoder, stream), text, 2, upcoming=True)
    assert np.asarray(upcoming.named).sum() == 12


@pytest.mark.parametrize(
    "method", ["ncm", pytest.param("s_prompts", marks=pytest.mark.full("extension"))]
)
def test_programs_are_compiled_anew_at_each_doubling_alone(
    method: str, encoder: Encoder
) -> None:
    stream = make_stream(TASKS, 1)
    run = _run(encoder, stream, method)
    text, learner = _text(stream, encoder.spec.embedding), run.learner
    shapes = dict(zip(run.model.modalities, run.model.input_shapes, strict=True))
    state, anew = learner.init(capacity.at_stage(stream, 0)), []
    for i, task in enumerate(stream.tasks):
        room = capacity.at_stage(stream, i)
        inputs = {
            name: np.zeros((4, *leaf.shape), leaf.dtype)
            for name, leaf in shapes[task.modality].items()
        }
        batch = Batch(
            inputs=inputs,
            query=text[:4].copy(),
            label=np.full(4, i, np.int32),
            weight=np.ones(4, np.float32),
            id=np.arange(4, dtype=np.int32),
            hint=np.full(4, run.model.modalities.index(task.modality), np.int32),
            modality=task.modality,
        )
        batch = sharding.put_batch(batch, run.mesh)
        at = encoder.frozen, build.classes_at(run, text, i), np.int32(i)
        with compilations() as compiled:
            if i and room != capacity.at_stage(stream, i - 1):
                state = learner.grow(state, room)
            state = learner.prepare(state, *at, batch.replace(inputs={}), np.int32(0))
            state = learner.begin_task(state, *at)
            if run.method.trains:
                state, _ = learner.train_step(state, *at, np.int32(1), batch)
            state = learner.end_task(state, *at)
        if compiled:
            anew.append(i)
    # the two modalities are met in the first two tasks, and again after each doubling
    assert {0, 1, 64} <= set(anew) <= {0, 1, 16, 17, 32, 33, 64, 65, 128, 129}
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(state.params))
