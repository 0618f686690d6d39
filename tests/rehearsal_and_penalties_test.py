"""What penalties, replay and averaging add to sequential tuning, on a small stream."""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmcl_jax import losses, reservoir
from mmcl_jax.methods.base import Method
from mmcl_jax.methods.combine import with_averaging, with_interpolation
from mmcl_jax.methods.derpp import DerppOptions, derpp, logit_distance
from mmcl_jax.methods.er import ErOptions, er
from mmcl_jax.methods.ewc import EwcOptions, ewc
from mmcl_jax.methods.lwf import LwfOptions, lwf
from mmcl_jax.methods.replay import with_replay
from mmcl_jax.methods.sequential import sequential
from mmcl_jax.methods.zscl import ZsclOptions, zscl
from mmcl_jax.models import Model, adapters, dual
from mmcl_jax.models.pretrained.huggingface_clip import Encoder
from mmcl_jax.types import Batch, Classes, Context

MODALITIES = ("image", "depth", "video", "text")
# two classes a stage, of a modality in turn
STAGES, ROWS = 8, 4
ADAPTER = adapters.deep_prompts(2, None)
KEY = jax.random.key(0)
GIVEN, SHARED = "per_modality_given", "shared"


def _jit(function):
    """Compiles a function of a method; that it trains is static."""
    return jax.jit(
        lambda params, context, *rest: function(
            params, context._replace(train=True), *rest
        )
    )


class Stream:
    """The functions of a method by hand, and tasks of random samples."""

    def __init__(self, encoder: Encoder, build, sharing: str = GIVEN) -> None:
        spec, pixels = encoder.spec, (encoder.spec.image_size,) * 2
        still = {"pixels": jax.ShapeDtypeStruct((1, *pixels, 3), np.float32)}
        clip = {"pixels": jax.ShapeDtypeStruct((2, *pixels, 3), np.float32)}
        words = jax.ShapeDtypeStruct((spec.context_length,), np.int32)
        self.model = Model(
            spec=spec,
            modalities=MODALITIES,
            towers=("visual", "visual", "visual", "text"),
            num_classes=2 * STAGES,
            num_stages=STAGES,
            logit_scale=10.0,
            input_shapes=(still, still, clip, {"tokens": words}),
            embed=lambda frozen, inputs, injection: dual.embed(
                spec, frozen, inputs, injection
            ),
            layer_features=lambda frozen, inputs: dual.layer_features(
                spec, frozen, inputs
            ),
        )
        self.frozen = jax.tree.map(jnp.asarray, encoder.frozen)
        self.method: Method = build(self.model, sharing)
        self.params, self.memory = self.method.init(KEY, self.model)

    def context(self, stage: int, train: bool = True) -> Context:
        of = np.repeat(np.arange(STAGES), 2)
        text = np.random.default_rng(1).normal(size=(2 * STAGES, 16))
        text /= np.linalg.norm(text, axis=1, keepdims=True)
        classes = Classes(
            jnp.asarray(text, jnp.float32),
            jnp.asarray(of <= stage),
            jnp.asarray(of == stage),
            jnp.asarray(of % len(MODALITIES), jnp.int32),
        )
        return Context(self.frozen, self.memory, jnp.asarray(stage), classes, train)

    def batch(self, stage: int, rows: int = ROWS, seed: int = 0) -> Batch:
        index = stage % len(MODALITIES)
        rng = np.random.default_rng([stage, seed])

        def draw(shape: jax.ShapeDtypeStruct):
            shape_of_rows = (rows, *shape.shape)
            if shape.dtype == np.int32:
                return jnp.asarray(rng.integers(3, 99, shape_of_rows), jnp.int32)
            return jnp.asarray(rng.normal(size=shape_of_rows), jnp.float32)

        inputs = jax.tree.map(draw, self.model.input_shapes[index])
        return Batch(
            inputs=inputs,
            query=self.model.embed(self.frozen, inputs, None),
            label=jnp.asarray(np.resize([2 * stage, 2 * stage + 1], rows), jnp.int32),
            weight=jnp.ones(rows),
            id=jnp.arange(rows, dtype=jnp.int32) + rows * (stage + 100 * seed),
            hint=jnp.full(rows, index, jnp.int32),
            modality=MODALITIES[index],
        )

    def begin(self, stage: int) -> None:
        batch = self.batch(stage)
        self.memory = _jit(self.method.prepare)(
            self.params, self.context(stage), batch, KEY
        )
        self.params, self.memory = _jit(self.method.begin_task)(
            self.params, self.context(stage), KEY
        )

    def move(self, by: float) -> None:
        # a shift of all entries would be lost in the layer norms
        rng = np.random.default_rng(3)
        self.params = jax.tree.map(
            lambda x: x + by * jnp.asarray(rng.normal(size=x.shape), x.dtype),
            self.params,
        )

    def gradient(self, stage: int, seed: int = 0):
        """The loss of a batch with its metrics, and the gradient."""
        batch = self.batch(stage, seed=seed)
        function = jax.value_and_grad(self.method.loss, has_aux=True)
        return _jit(function)(self.params, self.context(stage), batch, KEY)

    def end(self, stage: int) -> None:
        at, batch = self.context(stage), self.batch(stage)
        self.memory = _jit(self.method.observe)(self.params, at, batch, KEY)
        self.params, self.memory = _jit(self.method.end_task)(
            self.params, self.context(stage), KEY
        )

    def learn(self, stages: Sequence[int], by: float = 0.5) -> None:
        for stage in stages:
            self.begin(stage)
            self.move(by)
            self.end(stage)


def _with(method, options, label_space="task"):
    return lambda model, sharing: method(model, ADAPTER, options, sharing, label_space)


def _plain(model, sharing):
    return sequential(model, ADAPTER, sharing, "task")


CASES = {
    "lwf": (_with(lwf, LwfOptions()), "distillation"),
    "zscl": (_with(zscl, ZsclOptions()), "distillation"),
    "ewc": (_with(ewc, EwcOptions()), "penalty"),
    "er": (_with(er, ErOptions()), "replay"),
    "derpp": (_with(derpp, DerppOptions()), "replay"),
}


# another program may round otherwise where it adds zeros; an empty reservoir adds none
@pytest.mark.parametrize(
    ("name", "tolerance"),
    [("lwf", 1e-6), ("zscl", 1e-6), ("ewc", 1e-6), ("er", 0), ("derpp", 0)],
)
def test_nothing_is_added_in_the_first_task_and_something_later(
    encoder, name: str, tolerance: float
):
    build, metric = CASES[name]
    stream, plain = Stream(encoder, build, SHARED), Stream(encoder, _plain, SHARED)
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
    stream.begin(1)
    stream.move(0.5)
    assert stream.gradient(1)[0][1][metric] > 0


@pytest.mark.parametrize("name", CASES)
def test_a_batch_of_padding_has_no_loss(encoder, name: str):
    build, _ = CASES[name]
    stream = Stream(encoder, build)
    stream.learn([0])
    stream.begin(1)
    stream.move(0.5)
    padding = dataclasses.replace(stream.batch(1), weight=jnp.zeros(ROWS))
    value, _ = stream.method.loss(stream.params, stream.context(1), padding, KEY)
    assert value == 0


def test_lwf_distils_what_the_adapters_before_said(encoder):
    stream = Stream(encoder, CASES["lwf"][0], SHARED)
    stream.learn([0])
    stream.begin(1)
    at, batch = stream.context(1), stream.batch(1)
    before = stream.method.predict(stream.params, at, batch).logits
    stream.move(0.5)
    after = stream.method.predict(stream.params, at, batch).logits
    old = jnp.arange(2 * STAGES) < 2
    expected = losses.distillation(before, after, 2.0, old, batch.weight)
    (value, metrics), _ = stream.gradient(1)
    np.testing.assert_allclose(metrics["distillation"], expected, rtol=1e-2)
    np.testing.assert_allclose(value, metrics["alignment"] + expected, rtol=1e-5)


def test_zscl_distils_the_frozen_encoder_in_both_directions(encoder):
    stream = Stream(encoder, CASES["zscl"][0], SHARED)
    stream.learn([0])
    stream.begin(1)
    at, batch = stream.context(1), stream.batch(1)
    student = np.asarray(stream.method.predict(stream.params, at, batch).logits)[:, :2]
    teacher = 10 * np.asarray(batch.query @ at.classes.text[:2].T)

    def divergence(p, q):
        p, q = (np.exp(x / 2) for x in (p, q))
        p, q = (x / x.sum(-1, keepdims=True) for x in (p, q))
        return 4 * np.mean(np.sum(p * np.log(p / q), -1))

    expected = divergence(teacher, student) + divergence(teacher.T, student.T)
    metrics = stream.gradient(1)[0][1]
    np.testing.assert_allclose(metrics["distillation"], expected, rtol=1e-3)


@pytest.mark.parametrize("kind", ["true", "empirical", "batch"])
def test_information_of_tasks_is_added_up_as_it_decays(encoder, kind: str):
    options = EwcOptions(fisher=kind, decay=0.5)
    stream = Stream(encoder, _with(ewc, options), SHARED)
    alone = Stream(encoder, _with(ewc, options), SHARED)
    stream.learn([0], by=0.0)
    first = stream.memory["fisher"]
    stream.learn([1], by=0.0)
    alone.learn([1], by=0.0)
    jax.tree.map(
        lambda both, a, b: np.testing.assert_allclose(
            both, 0.5 * a + b, rtol=1e-4, atol=1e-8
        ),
        stream.memory["fisher"],
        first,
        alone.memory["fisher"],
    )


def test_the_square_of_a_mean_is_less_than_the_mean_of_squares(encoder):
    sums = {}
    for kind in ("empirical", "batch"):
        stream = Stream(encoder, _with(ewc, EwcOptions(fisher=kind)), SHARED)
        stream.learn([0], by=0.0)
        sums[kind] = sum(x.sum() for x in jax.tree.leaves(stream.memory["fisher"]))
    assert 0 < sums["batch"] < sums["empirical"]


def test_information_is_the_mean_over_samples_of_squared_gradients(encoder):
    stream = Stream(encoder, _with(ewc, EwcOptions(fisher="empirical")), SHARED)
    stream.begin(0)
    batch, at = stream.batch(0), stream.context(0)
    plain = _plain(stream.model, SHARED)
    squares = []
    for row in range(ROWS):
        alone = jax.tree.map(lambda x, row=row: x[row : row + 1], batch)
        gradient = jax.grad(plain.loss, has_aux=True)(stream.params, at, alone, KEY)[0]
        squares.append(jax.tree.map(jnp.square, gradient))
    expected = jax.tree.map(lambda *rows: sum(rows) / ROWS, *squares)
    stream.end(0)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-9),
        stream.memory["fisher"],
        expected,
    )


def test_stored_logits_by_hand():
    stored = losses.mask_logits(
        jnp.array([[0.0, 4, 7]], jnp.float16), jnp.array([True, True, False])
    )
    value = logit_distance(jnp.array([[1.0, 2, 99]]), stored, jnp.ones(1))
    np.testing.assert_allclose(0.3 * value, 0.75)


def test_reservoirs_of_all_shapes_share_the_bytes(encoder):
    budget = 100_000
    stream = Stream(encoder, _with(derpp, DerppOptions(buffer_bytes=budget)))
    buffers = stream.memory["buffers"]
    # depth maps and pictures have one shape
    assert list(buffers) == ["image", "video", "text"]
    sizes = [sum(x.nbytes for x in jax.tree.leaves(b)) for b in buffers.values()]
    rows = [
        size / len(b.priority) for size, b in zip(sizes, buffers.values(), strict=True)
    ]
    for size, row in zip(sizes, rows, strict=True):
        assert budget / 3 - row < size <= budget / 3
    assert buffers["text"].rows["inputs"]["tokens"].dtype == jnp.uint16
    assert buffers["image"].rows["inputs"]["pixels"].dtype == jnp.float16
    tiny = Stream(encoder, _with(er, ErOptions(buffer_bytes=1)))
    assert [len(b.priority) for b in tiny.memory["buffers"].values()] == [1, 1, 1]


def test_samples_are_stored_as_they_are_and_with_the_logits_left_behind(encoder):
    stream = Stream(encoder, _with(derpp, DerppOptions(buffer_bytes=10**6)))
    stream.learn([0, 1, 2, 3])
    counts = [int(reservoir.filled(b)) for b in stream.memory["buffers"].values()]
    assert counts == [2 * ROWS, ROWS, ROWS]
    stored = stream.memory["buffers"]["text"]
    there = np.asarray(stored.priority) >= 0
    batch = stream.batch(3)
    logits = stream.method.predict(stream.params, stream.context(3), batch).logits
    tokens = np.asarray(stored.rows["inputs"]["tokens"])[there]
    for row, kept in zip(tokens, np.asarray(stored.rows["logits"])[there], strict=True):
        own = (np.asarray(batch.inputs["tokens"]) == row).all(1).argmax()
        np.testing.assert_allclose(kept[:8], logits[own, :8], rtol=1e-2, atol=1e-2)
        assert (kept[8:] < -6e4).all()


def test_replayed_rows_reach_the_adapters_of_their_own_modality(encoder):
    stream = Stream(encoder, _with(er, ErOptions(buffer_bytes=10**6)))
    stream.learn([0, 1])
    stream.begin(2)
    _, gradient = stream.gradient(2)
    image, depth, video = np.abs(gradient["visual"]["prompts"]).max((1, 2, 3))
    assert image > 0 and depth > 0 and video > 0
    assert np.all(np.asarray(gradient["text"]["prompts"]) == 0)


def test_replay_is_half_of_the_loss(encoder):
    stream = Stream(encoder, _with(er, ErOptions()), SHARED)
    stream.learn([0])
    stream.begin(1)
    (value, metrics), _ = stream.gradient(1)
    expected = (metrics["alignment"] + metrics["replay"]) / 2
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    # a task's whole loss over all samples: the reservoir holds every row of the first
    rehearsed = sequential(stream.model, ADAPTER, SHARED, "all_seen")
    whole = rehearsed.loss(stream.params, stream.context(1), stream.batch(0), KEY)[0]
    np.testing.assert_allclose(metrics["replay"], whole, rtol=1e-2)


def _averaged(interval: int, share: float | None = None):
    def build(model, sharing):
        method = _plain(model, sharing)
        if share is not None:
            method = with_interpolation(method, share)
        return with_averaging(method, interval)

    return build


def _step(stream: Stream, stage: int, value: float) -> None:
    """A training step that ends at a value."""
    stream.params = jax.tree.map(lambda x: jnp.full_like(x, value), stream.params)
    stream.memory = stream.method.after_step(
        stream.params, stream.context(stage), stream.batch(stage)
    )


@pytest.mark.parametrize(
    ("interval", "steps", "expected"),
    [
        (1, (2.0, 4.0), 7 / 3),
        (2, (9.0, 2.0, 9.0, 4.0), 7 / 3),
        # the last step counts, between two that are due as well
        (2, (9.0, 2.0, 4.0), 7 / 3),
        (10, (3.0,), 2.0),
        (10, (), 1.0),
    ],
)
def test_mean_of_start_and_steps_is_left_behind(encoder, interval, steps, expected):
    stream = Stream(encoder, _averaged(interval), SHARED)
    stream.params = jax.tree.map(jnp.ones_like, stream.params)
    stream.begin(0)
    for value in steps:
        _step(stream, 0, value)
    stream.end(0)
    for leaf in jax.tree.leaves(stream.params):
        np.testing.assert_allclose(leaf, expected, rtol=1e-6)


def test_the_mean_is_what_is_interpolated_within(encoder):
    stream = Stream(encoder, _averaged(1, 0.75), SHARED)
    stream.params = jax.tree.map(jnp.ones_like, stream.params)
    stream.begin(0)
    _step(stream, 0, 4.0)  # the mean is 2.5
    stream.end(0)
    for leaf in jax.tree.leaves(stream.params):
        np.testing.assert_allclose(leaf, 0.25 + 0.75 * 2.5, rtol=1e-6)


@pytest.mark.parametrize("outside", [True, False])
def test_what_lies_inside_observes_what_a_task_leaves_behind(encoder, outside: bool):
    def build(model, sharing):
        if outside:
            replayed = derpp(model, ADAPTER, DerppOptions(), sharing, "task")
            return with_averaging(replayed, 1)
        # the wrong way round: averaged parameters are unknown to what is around them
        averaged = with_averaging(_plain(model, sharing), 1)
        return with_replay(averaged, model, 10**6, {}, lambda v, _: v, True)

    stream = Stream(encoder, build, SHARED)
    stream.begin(0)
    _step(stream, 0, 0.5)
    stream.end(0)
    stored = stream.memory["buffers"]["image"]
    batch = stream.batch(0)
    logits = stream.method.predict(stream.params, stream.context(0), batch).logits
    kept = np.sort(
        np.asarray(stored.rows["logits"])[np.asarray(stored.priority) >= 0, 0]
    )
    same = np.allclose(kept, np.sort(np.asarray(logits)[:, 0]), atol=1e-2)
    assert same == outside


def test_zscl_without_its_parts_is_sequential(encoder):
    options = ZsclOptions(weight=0.0, averaging_interval=None, wise=1.0)
    stream, plain = Stream(encoder, _with(zscl, options)), Stream(encoder, _plain)
    for each in (stream, plain):
        each.learn([0])
        each.begin(1)
    left, right = stream.gradient(1), plain.gradient(1)
    jax.tree.map(np.testing.assert_array_equal, left, right)
    assert stream.memory.keys() == plain.memory.keys()
