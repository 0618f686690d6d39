"""What is trained, against steps and penalties of the authors' own functions.

Their models are one linear layer. Here the layer is what an adapter injects, and the
encoder applies it; the class texts are unit vectors, so that logits are its outputs.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmcl_jax.methods import er, ewc
from mmcl_jax.methods.base import Common
from mmcl_jax.methods.sequential import sequential
from mmcl_jax.models.adapters import Adapter
from mmcl_jax.models.injection import Injection
from mmcl_jax.models.model import Model
from mmcl_jax.models.specs import clip
from mmcl_jax.ops import fisher, losses, trees
from mmcl_jax.ops.reservoir import Reservoir
from mmcl_jax.types import Batch, Capacity, Classes, Context
from tests import by_hand
from tests.published import KEY, TOWER, published

pytestmark = pytest.mark.full("methods")

WIDTH, CLASSES = 16, 5


def _init(key, spec):
    return {"head": jnp.zeros((CLASSES, WIDTH)), "bias": jnp.zeros(CLASSES)}


def _blend(stack, weights) -> Injection:
    layer = jnp.concatenate([stack["head"], stack["bias"][..., None]], axis=-1)
    return Injection(prompts=jnp.einsum("bm,mcw->bcw", weights, layer)[:, None])


def _apply(frozen, modality, inputs, injection):
    layer = injection.prompts[:, 0]
    outputs = jnp.einsum("bcw,bw->bc", layer[..., :-1], inputs["features"])
    return outputs + layer[..., -1]


COMMON = Common(Adapter(_init, _blend), "shared", "all_seen")
MODEL = Model(
    spec=clip(TOWER, TOWER, CLASSES, 16, 8, 99, 9, 98),
    modalities=("image",),
    logit_scale=1.0,
    input_shapes=({"features": jax.ShapeDtypeStruct((WIDTH,), jnp.float32)},),
    embed=_apply,
    embed_layers=lambda *given: (None, _apply(*given[:4])),
)


def rows_of(features, label) -> Batch:
    number = len(features)
    return Batch(
        inputs={"features": jnp.asarray(features, jnp.float32)},
        query=jnp.zeros((number, CLASSES)),
        label=jnp.asarray(label, jnp.int32),
        weight=jnp.ones(number),
        id=jnp.arange(number),
        hint=jnp.zeros(number, jnp.int32),
        modality="image",
    )


def context(memory) -> Context:
    every, none = jnp.ones(CLASSES, bool), jnp.zeros(CLASSES, jnp.int32)
    classes = Classes(jnp.eye(CLASSES), every, every, none)
    return Context(None, memory, jnp.asarray(0), classes, "train")


def params_of(head, bias):
    return {
        "visual": {"head": jnp.asarray(head)[None], "bias": jnp.asarray(bias)[None]}
    }


def of_vector(vector):
    """Returns the layer of a vector: its head by rows, then its bias."""
    head, bias = np.split(np.asarray(vector), [CLASSES * WIDTH])
    return params_of(head.reshape(CLASSES, WIDTH), bias)


def assert_close(told, expected, tolerance: float = 1e-5) -> None:
    told = {"visual": told["visual"]}
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=tolerance), told, expected
    )


def slope_of(method):
    """Returns `(params, memory, batch) -> (loss, metrics), gradient`, compiled."""
    whole = jax.value_and_grad(by_hand.loss(method, MODEL), has_aux=True)

    @jax.jit
    def slope(params, memory, batch: Batch):
        return whole(params, context(memory), batch, KEY)

    return slope


def test_er_takes_the_mean_over_new_and_remembered_samples() -> None:
    found = published("er")
    method = er.make(MODEL, er.Options(), COMMON)
    _, memory = method.init(KEY, Capacity(CLASSES, 1))
    slope, plain = slope_of(method), slope_of(sequential(MODEL, COMMON))
    now = params_of(found["weights_head_start"], found["weights_bias_start"])
    for step in range(4):
        batch = rows_of(found["inputs_features"][step], found["inputs_labels"][step])
        (value, metrics), gradient = slope(
            now, _remembering(memory, found, step), batch
        )
        _, of_new = plain(now, {}, batch)
        if step:
            # ours are halves, since it draws as many samples as there are new ones;
            # six rows and four make one mean over ten
            np.testing.assert_allclose(
                value, (metrics["alignment"] + metrics["replay"]) / 2, rtol=1e-6
            )
            value = 0.6 * metrics["alignment"] + 0.4 * metrics["replay"]
            gradient = jax.tree.map(
                lambda g, new: 0.6 * new + 0.4 * (2 * g - new), gradient, of_new
            )
        np.testing.assert_allclose(value, found[f"expected_loss_step{step}"], atol=1e-5)
        now = jax.tree.map(lambda x, g: x - found["constants_rate"] * g, now, gradient)
        after = (found[f"expected_{name}_step{step}"] for name in ("head", "bias"))
        assert_close(now, params_of(*after))


def _remembering(memory, found, step: int):
    """Returns a memory of the samples that the published buffer handed out."""
    if not step:
        return memory
    features, label = (
        jnp.asarray(found[f"inputs_replayed_{name}_step{step}"])
        for name in ("features", "labels")
    )
    number = len(label)
    rows = {
        "inputs": {"features": features},
        "query": jnp.zeros((number, CLASSES)),
        "label": label.astype(jnp.int32),
        "modality": jnp.zeros(number, jnp.int32),
    }
    kept = Reservoir(rows, jnp.linspace(0.1, 0.9, number))
    offered = jnp.asarray(float(number))
    return memory | {"buffers": {"image": kept}, "offered": {"image": offered}}


@pytest.mark.parametrize(("kind", "size"), [("empirical", 1), ("batch", 6)])
def test_ewc_adds_up_importances_and_penalizes_as_a_library_does(
    kind: str, size: int
) -> None:
    found = published("ewc_avalanche")
    decay = float(found["constants_decay"])
    # its penalty has no factor 1/2
    weight = 2 * float(found["constants_lambda"])
    method = ewc.make(MODEL, ewc.Options(weight, decay, kind), COMMON)
    _, memory = method.init(KEY, Capacity(CLASSES, 1))
    observe = jax.jit(
        lambda params, memory, batch: by_hand.observe(method, MODEL)(
            params, context(memory), batch, KEY
        )
    )
    expected = None
    for task in range(2):
        params = params_of(
            *(found[f"weights_{name}_task{task}"] for name in ("head", "bias"))
        )
        x, label = found["inputs_features"][task], found["inputs_labels"][task]
        memory = method.prepare(params, context(memory), rows_of(x, label), KEY)
        _, memory = method.begin_task(params, context(memory), KEY)
        for part in (slice(6), slice(6, 12)):
            memory = observe(params, memory, rows_of(x[part], label[part]))
        _, memory = method.end_task(params, context(memory), KEY)
        own = params_of(
            *(
                found[f"expected_importance_{name}_batch{size}_task{task}"]
                for name in ("head", "bias")
            )
        )
        expected = own if task == 0 else jax.tree.map(_after(decay), expected, own)
        assert_close(memory["fisher"], expected, 1e-6)
    _, memory = method.begin_task(params, context(memory), KEY)
    moved = params_of(found["weights_head_moved"], found["weights_bias_moved"])
    (_, metrics), _ = slope_of(method)(moved, memory, rows_of(x[:6], label[:6]))
    if kind == "empirical":
        value = weight * metrics["penalty"]
        np.testing.assert_allclose(value, found["expected_penalty_online"], rtol=1e-5)


def _after(decay: float):
    return lambda old, new: decay * old + new


def test_online_ewc_weighs_a_sample_by_the_probability_of_its_label() -> None:
    found = published("ewc_online")
    gamma, rate = float(found["constants_gamma"]), float(found["constants_rate"])
    method = ewc.make(
        MODEL, ewc.Options(2 * float(found["constants_lambda"]), gamma), COMMON
    )
    _, memory = method.init(KEY, Capacity(CLASSES, 1))
    slope, plain = slope_of(method), sequential(MODEL, COMMON)
    now = params_of(found["weights_head_start"], found["weights_bias_start"])
    information = jax.tree.map(jnp.zeros_like, now)
    for task in range(2):
        batches = [
            rows_of(found["inputs_features"][i], found["inputs_labels"][i])
            for i in (2 * task, 2 * task + 1)
        ]
        for step, batch in enumerate(batches):
            (_, metrics), gradient = slope(now, memory, batch)
            place = f"task{task}_step{step}"
            loss = found[f"expected_loss_{place}"]
            np.testing.assert_allclose(metrics["alignment"], loss, atol=1e-5)
            now = jax.tree.map(lambda x, g: x - rate * g, now, gradient)
            assert_close(now, of_vector(found[f"expected_params_{place}"]))
        both = jax.tree.map(lambda *x: jnp.concatenate(x), *batches)
        added = _weighted_information(plain, now, both)
        information = jax.tree.map(_after(gamma), information, added)
        expected = of_vector(found[f"expected_fisher_after_task{task}"])
        assert_close(information, expected)
        anchor = of_vector(found[f"expected_anchor_after_task{task}"])
        assert_close(now, anchor)
        memory = memory | {"fisher": information, "before": now}
    moved = of_vector(found["inputs_params_moved"])

    def penalty(params):
        return (
            2
            * found["constants_lambda"]
            * trees.quadratic_penalty(params, now, information)
        )

    value, gradient = jax.value_and_grad(penalty)(moved)
    np.testing.assert_allclose(value, found["expected_penalty"], rtol=1e-5)
    assert_close(gradient, of_vector(found["expected_penalty_gradient"]))


def _weighted_information(method, params, rows: Batch):
    """Returns the mean over rows of `p(y | x)` times the squared gradient."""
    at = context({})

    def of_row(params, row: Batch):
        one = jax.tree.map(lambda x: x[None], row)
        return by_hand.loss(method, MODEL)(params, at, one, KEY)[0]

    logits = by_hand.predict(method, MODEL)(params, at, rows).logits
    probability = jax.nn.softmax(logits)[jnp.arange(len(logits)), rows.label]
    share = probability / len(logits)
    return jax.jit(functools.partial(fisher.squared_gradients, of_row))(
        params, rows, share
    )


def test_zscl_averages_and_interpolates() -> None:
    found = published("zscl")
    for name in ("visual", "text"):
        start = mean = jnp.asarray(found[f"weights_{name}_start"])
        steps = jnp.asarray(found[f"expected_{name}"])
        # after iterations 0, 2 and 4; ours ends the interval with a step
        for number, iteration in enumerate((0, 2, 4), start=1):
            mean = trees.running_mean(mean, steps[iteration], number)
        assert start.shape == mean.shape
        np.testing.assert_allclose(mean, found[f"expected_{name}_averaged"], atol=1e-6)
        tuned = jnp.asarray(found[f"expected_{name}_finetuned"])
        mixed = trees.interpolate(
            jnp.asarray(found[f"weights_{name}_pretrained"]),
            tuned,
            float(found["constants_wise_alpha"]),
        )
        np.testing.assert_allclose(mixed, found[f"expected_{name}_wise"], atol=1e-6)


def test_lwf_distils_as_a_library_does() -> None:
    found = published("ewc_avalanche")
    old = jnp.arange(CLASSES) < 3
    teacher = jnp.asarray(found["inputs_lwf_old_logits"])

    def value(student):
        # its code leaves out the factor T^2
        return losses.distillation(teacher, student, 2.0, old, jnp.ones(6)) / 4

    told, slope = jax.value_and_grad(value)(jnp.asarray(found["inputs_lwf_logits"]))
    np.testing.assert_allclose(told, found["expected_lwf_distillation"], rtol=1e-5)
    np.testing.assert_allclose(slope, found["expected_lwf_grad"], atol=1e-6)


def test_lwf_adds_the_distillation_of_past_classes() -> None:
    found = published("lwf")
    past = jnp.arange(CLASSES) < int(found["constants_past_classes"])
    temperature = float(found["constants_temperature"])
    batch = rows_of(found["inputs_features"], found["inputs_labels"])
    now = params_of(found["weights_head"], found["weights_bias"])
    plain, at = by_hand.loss(sequential(MODEL, COMMON), MODEL), context({})

    def loss(params):
        value, _ = plain(params, at, batch, KEY)
        logits = _apply(
            None, "image", batch.inputs, _blend(params["visual"], jnp.ones((6, 1)))
        )
        distilled = losses.distillation(
            jnp.asarray(found["inputs_stored_logits"]),
            logits,
            temperature,
            past,
            batch.weight,
            "cross_entropy",
        )
        # its code leaves out the factor T^2
        return value + found["constants_alpha"] * distilled / temperature**2

    value, gradient = jax.jit(jax.value_and_grad(loss))(now)
    np.testing.assert_allclose(value, found["expected_loss"], atol=1e-5)
    now = jax.tree.map(lambda x, g: x - found["constants_rate"] * g, now, gradient)
    assert_close(now, params_of(found["expected_head"], found["expected_bias"]))
