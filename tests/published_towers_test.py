"""What goes into a tower, against what the authors' own functions make of it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmcl_jax.methods import dualprompt
from mmcl_jax.methods.base import Method
from mmcl_jax.models.injection import Prefix
from mmcl_jax.models.model import Model
from mmcl_jax.models.specs import TowerSpec, clip
from mmcl_jax.models.tower import attend_with, linear, split_heads
from mmcl_jax.types import Capacity, Phase
from tests import by_hand
from tests.published import COMMON, KEY, context, published, rows_of

pytestmark = pytest.mark.full("methods")

WIDTH, HEADS, TASKS = 16, 4, 3
SPEC = TowerSpec(WIDTH, 2, HEADS, 32, "gelu", 1e-6)


def attended(x, weights, prefix: Prefix, mask=None):
    """Returns an attention with its projections, as it stands in a block."""
    qkv, out = (
        {"kernel": jnp.asarray(kernel).T, "bias": jnp.asarray(bias)}
        for kernel, bias in weights
    )
    q, k, v = split_heads(SPEC, linear(jnp.asarray(x), qkv))
    mixed = attend_with(q, k, v, mask, prefix)
    return linear(mixed.reshape(x.shape), out)


def test_a_prefix_stands_before_keys_and_values() -> None:
    found = published("prefix_attention")
    x = found["inputs_tokens"]
    weights = [
        (found[f"weights_{name}"], found[f"weights_{name}_bias"])
        for name in ("qkv", "proj")
    ]

    def output(prefix: Prefix):
        return attended(x, weights, prefix)

    own = Prefix(
        *(jnp.asarray(found[f"inputs_prefix_{n}"]) for n in ("keys", "values"))
    )
    np.testing.assert_allclose(output(own), found["expected_output"], atol=1e-5)
    none = jax.tree.map(lambda leaf: leaf[:, :0], own)
    np.testing.assert_allclose(
        output(none), found["expected_output_without_prefix"], atol=1e-5
    )
    slope = jax.grad(lambda prefix: (output(prefix) * found["inputs_cotangent"]).sum())(
        own
    )
    for told, name in ((slope.keys, "keys"), (slope.values, "values")):
        np.testing.assert_allclose(
            told, found[f"expected_grad_prefix_{name}"], atol=1e-5
        )


def test_diki_adds_a_weighted_attention() -> None:
    found = published("diki_attention")
    x, task = found["inputs_tokens"], found["inputs_task_index"]
    weights = [
        (found[f"weights_{name}"], found[f"weights_{name}_bias"])
        for name in ("in_proj", "out_proj")
    ]

    def output(pool, share=found["inputs_weight"], mask=None):
        keys, values = jnp.moveaxis(pool[task], 1, 0)
        return attended(x, weights, Prefix(keys, values, jnp.asarray(share)), mask)

    pool = jnp.asarray(found["weights_prefix_pool"])
    causal = jnp.tril(jnp.ones((x.shape[1], x.shape[1]), bool))
    told = {
        "weighted": output(pool),
        "weight_one": output(pool, np.ones(len(x), np.float32)),
        "causal_weighted": output(pool, mask=causal),
        "zero_values": output(pool.at[:, 1].set(0)),
    }
    for name, value in told.items():
        np.testing.assert_allclose(value, found[f"expected_output_{name}"], atol=1e-5)
    slope = jax.grad(lambda pool: (output(pool) * found["inputs_cotangent"]).sum())(
        pool
    )
    np.testing.assert_allclose(slope, found["expected_grad_prefix_pool"], atol=1e-5)


def dualprompt_of(length: int, general_length: int, layers: tuple[int, int]):
    """Returns DualPrompt in a tower with so many blocks of either kind of prefix."""
    tower = TowerSpec(WIDTH, max(2, sum(layers)), HEADS, 32, "gelu", 1e-6)
    model = Model(
        spec=clip(tower, tower, WIDTH, 16, 8, 99, 9, 98),
        modalities=("image",),
        logit_scale=1.0,
        input_shapes=({},),
        embed=lambda frozen, modality, inputs, injection: inputs["features"],
        embed_layers=lambda *given: (None, given[2]["features"]),
    )
    options = dualprompt.Options(general_length, layers[0], length, layers[1])
    method = dualprompt.make(model, options, COMMON)
    params, memory = method.init(KEY, Capacity(TASKS, TASKS))
    # all stages had pictures
    return model, method, params, memory | {"met": jnp.ones((TASKS, 1), bool)}


def injected(method: Method, params, memory, query, task: int, phase: Phase):
    at = context(memory, TASKS, np.eye(TASKS, WIDTH), phase)
    at = at._replace(task=jnp.asarray(task))
    (made,) = method.inject(params, at, rows_of(query))
    return made.injection.prefixes


def pull(model: Model, method: Method, params, memory, query, task: int):
    """Returns the distance of the keys in training, and the gradient of the loss."""
    at = context(memory, TASKS, np.eye(TASKS, WIDTH), "train")
    at = at._replace(task=jnp.asarray(task))
    rows = rows_of(query).replace(inputs={"features": jnp.asarray(query)})
    whole = jax.value_and_grad(by_hand.loss(method, model), has_aux=True)
    (_, metrics), slope = whole(params, at, rows, KEY)
    return metrics["key_distance"], slope["expert_keys"]["visual"]


def stack_of(found, name: str):
    """Returns prefixes `[s, 1, p, w]` of a table whose first half are keys."""
    table = jnp.asarray(found[name]).reshape(-1, 1, *found[name].shape[-2:])
    keys, values = jnp.split(table, 2, axis=2)
    return {"keys": keys, "values": values}


def test_dualprompt_of_the_pytorch_port() -> None:
    found = published("dualprompt_coda")
    query = found["inputs_query"]
    model, method, params, memory = dualprompt_of(2, 3, (1, 1))
    params |= {
        "general": params["general"] | {"visual": stack_of(found, "weights_g_prompt")},
        "experts": params["experts"] | {"visual": stack_of(found, "weights_e_prompts")},
        "expert_keys": params["expert_keys"]
        | {"visual": jnp.asarray(found["weights_e_keys"])},
    }
    places = [("train", task, f"train_{{}}_task{task}") for task in range(TASKS)]
    for phase, task, place in [*places, ("predict", 0, "eval_{}")]:
        general, own = injected(method, params, memory, query, task, phase)
        for name in ("keys", "values"):
            told = getattr(general, name)[:, 0]
            np.testing.assert_allclose(told, found[f"expected_g_{name}"], atol=1e-6)
            told = getattr(own, name)[:, 0]
            expected = found[f"expected_{place.format(name)}"]
            np.testing.assert_allclose(told, expected, atol=1e-6)
    for task in range(TASKS):
        distance, slope = pull(model, method, params, memory, query, task)
        # the port takes the sum over the batch, of 1 - cos; ours is the mean
        rows = len(query)
        np.testing.assert_allclose(
            rows * (1 + distance), found[f"expected_train_loss_task{task}"], rtol=1e-5
        )
        expected = found[f"expected_train_grad_e_keys_task{task}"]
        np.testing.assert_allclose(rows * slope, expected, atol=1e-5)


def test_dualprompt_of_its_authors() -> None:
    found = published("dualprompt_l2p")
    query, table = found["inputs_query"], jnp.asarray(found["weights_e_prompt"])
    model, method, params, memory = dualprompt_of(3, 1, (0, 2))
    # [layer, key or value, slot, position, head, width] to [slot, layer, position, w]
    by_slot = jnp.moveaxis(table.reshape(*table.shape[:4], WIDTH), 2, 0)
    experts = {"keys": by_slot[:, :, 0], "values": by_slot[:, :, 1]}
    params |= {
        "experts": params["experts"] | {"visual": experts},
        "expert_keys": params["expert_keys"]
        | {"visual": jnp.asarray(found["weights_e_key"])},
    }
    places = [("train", task, f"task{task}") for task in range(TASKS)]
    for phase, task, place in [*places, ("predict", 0, "eval")]:
        *_, own = injected(method, params, memory, query, task, phase)
        expected = found[f"expected_batched_prompt_{place}"]
        expected = expected.reshape(*expected.shape[:4], WIDTH)
        for i, name in enumerate(("keys", "values")):
            told = jnp.moveaxis(getattr(own, name), 1, 0)
            np.testing.assert_allclose(told, expected[:, i], atol=1e-6)
    for task in range(TASKS):
        distance, slope = pull(model, method, params, memory, query, task)
        expected = found[f"expected_reduce_sim_task{task}"]
        np.testing.assert_allclose(-distance, expected, atol=1e-6)
        expected = found[f"expected_grad_key_task{task}"]
        np.testing.assert_allclose(-slope, expected, atol=1e-6)
