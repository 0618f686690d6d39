"""What remembered samples add to sequential tuning."""

import collections

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmcl_jax.methods.base import Method
from mmcl_jax.methods.derpp import Options as DerppOptions
from mmcl_jax.methods.derpp import logit_distance
from mmcl_jax.methods.derpp import make as derpp
from mmcl_jax.methods.er import Options as ErOptions
from mmcl_jax.methods.er import make as er
from mmcl_jax.methods.replay import with_replay
from mmcl_jax.methods.sequential import sequential
from mmcl_jax.methods.wrappers import with_averaging
from mmcl_jax.ops import losses
from tests import by_hand
from tests.tuned import KEY, ROWS, SHARED, Stream, common, tuned, with_options


def test_stored_logits_by_hand():
    stored = losses.mask_logits(
        jnp.array([[0.0, 4, 7]], jnp.float16), jnp.array([True, True, False])
    )
    value = logit_distance(jnp.array([[1.0, 2, 99]]), stored, jnp.ones(1))
    np.testing.assert_allclose(0.3 * value, 0.75)


def test_reservoirs_of_all_shapes_share_the_bytes(encoder):
    budget = 100_000
    stream = Stream(
        encoder, with_options(derpp, DerppOptions(modality_bytes=budget // 4))
    )
    buffers = stream.memory["buffers"]
    # depth maps and pictures have one shape
    assert sorted(buffers) == ["image", "text", "video"]
    of_shape = [buffers[name] for name in ("image", "video", "text")]
    sizes = [sum(x.nbytes for x in jax.tree.leaves(b)) for b in of_shape]
    rows = [size / len(b.priority) for size, b in zip(sizes, of_shape, strict=True)]
    for size, row, share in zip(sizes, rows, (2 / 4, 1 / 4, 1 / 4), strict=True):
        assert share * budget - row < size <= share * budget
    assert buffers["text"].rows["inputs"]["tokens"].dtype == jnp.uint16
    assert buffers["image"].rows["inputs"]["pixels"].dtype == jnp.float16
    tiny = Stream(encoder, with_options(er, ErOptions(modality_bytes=1)))
    assert [len(b.priority) for b in tiny.memory["buffers"].values()] == [1, 1, 1]


@pytest.mark.full("methods")
def test_what_is_rehearsed_is_what_was_met_and_not_what_fits(encoder):
    stream = Stream(encoder, with_options(er, ErOptions(modality_bytes=1)))
    stream.learn([0, 1, 2, 3])
    met = {name: float(n) for name, n in stream.memory["offered"].items()}
    assert met == {"image": 2 * ROWS, "video": ROWS, "text": ROWS}
    replayed = collections.Counter(
        round(float(stream.gradient(3, key=jax.random.key(i))[0][1]["replay"]), 4)
        for i in range(120)
    )
    # one sample of each shape is kept, so each draw is one of three
    assert len(replayed) == 3
    assert sorted(replayed.values())[-1] > 50


def test_samples_are_stored_as_they_are_and_with_the_logits_left_behind(encoder):
    stream = Stream(encoder, with_options(derpp, DerppOptions(modality_bytes=10**6)))
    stream.learn([0, 1, 2, 3])
    buffers = stream.memory["buffers"].values()
    counts = [int((buffer.priority >= 0).sum()) for buffer in buffers]
    assert counts == [2 * ROWS, ROWS, ROWS]
    stored = stream.memory["buffers"]["text"]
    there = np.asarray(stored.priority) >= 0
    batch = stream.batch(3)
    logits = stream.logits(3)
    tokens = np.asarray(stored.rows["inputs"]["tokens"])[there]
    for row, kept in zip(tokens, np.asarray(stored.rows["logits"])[there], strict=True):
        own = (np.asarray(batch.inputs["tokens"]) == row).all(1).argmax()
        np.testing.assert_allclose(kept[:8], logits[own, :8], rtol=1e-2, atol=1e-2)
        assert (kept[8:] < -6e4).all()


def test_replayed_rows_reach_the_adapters_of_their_own_modality(encoder):
    stream = Stream(encoder, with_options(er, ErOptions(modality_bytes=10**6)))
    stream.learn([0, 1])
    stream.begin(2)
    _, gradient = stream.gradient(2)
    image, depth, video = np.abs(gradient["visual"]["prompts"]).max((1, 2, 3))
    assert image > 0 and depth > 0 and video > 0
    assert np.all(np.asarray(gradient["text"]["prompts"]) == 0)


def test_replay_is_half_of_the_loss(encoder):
    stream = Stream(encoder, with_options(er, ErOptions()), SHARED)
    stream.learn([0])
    stream.begin(1)
    (value, metrics), _ = stream.gradient(1)
    expected = (metrics["alignment"] + metrics["replay"]) / 2
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    # a task's whole loss over all samples: the reservoir holds every row of the first
    rehearsed = sequential(stream.model, common(SHARED, "all_seen"))
    loss = by_hand.loss(rehearsed, stream.model)
    whole = loss(stream.params, stream.context(1), stream.batch(0), KEY)[0]
    np.testing.assert_allclose(metrics["replay"], whole, rtol=1e-2)


def _noting(method: Method) -> Method:
    """Notes the parameters that are observed."""

    def init(key, room):
        params, memory = by_hand.init(method, key, room)
        return params, memory | {"noted": jax.tree.map(jnp.zeros_like, params)}

    def observe(params, context, batch, features, key):
        return context.memory | {"noted": params}

    return method._replace(init=init, observe=observe, observes=True)


@pytest.mark.parametrize("outside", [True, False])
def test_what_lies_inside_observes_what_a_task_leaves_behind(encoder, outside: bool):
    def build(model, sharing):
        if outside:
            return with_averaging(_noting(tuned(model, sharing)), 1)
        # the wrong way round: averaged parameters are unknown to what is around them
        return _noting(with_averaging(tuned(model, sharing), 1))

    stream = Stream(encoder, build, SHARED)
    stream.params = jax.tree.map(jnp.ones_like, stream.params)
    stream.begin(0)
    stream.step(0, 0.5)
    stream.end(0)
    for left, noted in zip(
        jax.tree.leaves(stream.params),
        jax.tree.leaves(stream.memory["noted"]),
        strict=True,
    ):
        np.testing.assert_allclose(left, 0.75)
        np.testing.assert_allclose(noted, 0.75 if outside else 0.5)


@pytest.mark.parametrize("outside", [True, False])
def test_features_are_of_what_a_task_leaves_behind(encoder, outside: bool):
    """Also around it: the passes of `observe` are those under the averaged adapters."""

    def build(model, sharing):
        if outside:
            replayed = derpp(model, DerppOptions(), common(sharing))
            return with_averaging(replayed, 1)
        averaged = with_averaging(tuned(model, sharing), 1)
        return with_replay(averaged, model, 10**6, {}, lambda v, _: v, True)

    stream = Stream(encoder, build, SHARED)
    stream.begin(0)
    stream.step(0, 0.5)
    last_step = stream.logits(0)
    stream.end(0)
    stored = stream.memory["buffers"]["image"]
    kept = np.sort(
        np.asarray(stored.rows["logits"])[np.asarray(stored.priority) >= 0, 0]
    )
    for logits, same in ((stream.logits(0), True), (last_step, False)):
        expected = np.sort(np.asarray(logits)[:, 0])
        assert np.allclose(kept, expected, atol=1e-2) == same
