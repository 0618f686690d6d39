"""Adapters: what they put into towers, blended and alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmcl_jax.config import AdapterOptions
from mmcl_jax.models import adapters
from mmcl_jax.models.adapters import make_adapter
from mmcl_jax.models.injection import LowRank
from mmcl_jax.models.pretrained import Encoder
from mmcl_jax.models.specs import TowerSpec
from tests.towers import KINDS, blend, embed, kinds, random_inputs, stack_of, towers

EMPTY = {
    "deep_prompts": adapters.deep_prompts(length=0, layers=None),
    "shallow_prompts": adapters.shallow_prompts(length=0),
    "prefix": adapters.prefix(length=0, layers=None),
    "residual_prefix": adapters.residual_prefix(length=0, layers=1),
}
# what starts from the frozen tower
NEUTRAL = ("low_rank", "residual_prefix")


@towers
@pytest.mark.parametrize("kind", EMPTY)
def test_no_prompt_at_all_is_the_frozen_tower(
    tower: str, kind: str, encoder: Encoder
) -> None:
    inputs, spec = random_inputs(encoder, tower), encoder.spec.tower(tower)
    none = jax.tree.map(lambda x: x[None], EMPTY[kind].init(jax.random.key(0), spec))
    injection = EMPTY[kind].blend(none, jnp.ones((3, 1)))
    np.testing.assert_array_equal(
        embed(encoder, inputs, injection), embed(encoder, inputs)
    )


@towers
@pytest.mark.parametrize("kind", NEUTRAL)
def test_some_new_adapters_are_the_frozen_tower(
    tower: str, kind: str, encoder: Encoder
) -> None:
    inputs, spec = random_inputs(encoder, tower), encoder.spec.tower(tower)
    new = jax.tree.map(lambda x: x[None], KINDS[kind].init(jax.random.key(0), spec))
    assert any(np.any(leaf) for leaf in jax.tree.leaves(new))
    injection = KINDS[kind].blend(new, jnp.ones((3, 1)))
    np.testing.assert_array_equal(
        embed(encoder, inputs, injection), embed(encoder, inputs)
    )


def test_every_kind_is_made_from_options() -> None:
    assert sorted(KINDS) == sorted(adapters.ADAPTERS)
    spec = TowerSpec(16, 2, 2, 32, "gelu", 1e-5)
    for kind in adapters.ADAPTERS:
        made = make_adapter(AdapterOptions(kind, length=5, layers=2, rank=3))
        leaves = jax.tree.leaves(made.init(jax.random.key(0), spec))
        sizes = {size for leaf in leaves for size in leaf.shape}
        assert (3 if kind == "low_rank" else 5) in sizes


@towers
@kinds
def test_blend_of_one_is_that_adapter_alone(
    tower: str, kind: str, encoder: Encoder
) -> None:
    stack = stack_of(encoder, tower, kind)
    whole = blend(encoder, tower, kind, stack, np.eye(3))
    for m in range(3):
        only = jax.tree.map(lambda x, m=m: x[m : m + 1], stack)
        alone = blend(encoder, tower, kind, only, np.ones((3, 1)))
        np.testing.assert_allclose(whole[m], alone[m], atol=2e-6)
    assert np.ptp(whole, axis=0).max() > 1e-3


@towers
@kinds
def test_blend_of_equal_adapters_does_not_depend_on_weights(
    tower: str, kind: str, encoder: Encoder
) -> None:
    stack = jax.tree.map(
        lambda x: jnp.stack([x[0]] * 3), stack_of(encoder, tower, kind)
    )
    weights = np.random.default_rng(0).dirichlet(np.ones(3), size=3)
    mixed = blend(encoder, tower, kind, stack, weights)
    own = blend(encoder, tower, kind, stack, np.eye(3))
    np.testing.assert_allclose(mixed, own, atol=2e-6)


def test_blended_prompts_are_the_weighted_sum() -> None:
    stack = {"prompts": jnp.array([1.0, 10.0, 100.0]).reshape(3, 1, 1, 1)}
    weights = jnp.array([[0.5, 0.25, 0.25], [0.0, 1.0, 0.0]])
    blended = KINDS["deep_prompts"].blend(stack, weights).prompts
    np.testing.assert_allclose(blended.ravel(), [28.0, 10.0])


def test_blended_updates_are_the_weighted_sum() -> None:
    rng = np.random.default_rng(0)
    down, up = rng.normal(size=(3, 1, 4, 2)), rng.normal(size=(3, 1, 2, 5))
    stack = {
        "qkv": LowRank(jnp.asarray(down, jnp.float32), jnp.asarray(up, jnp.float32))
    }
    weights, x = rng.dirichlet(np.ones(3), size=2), rng.normal(size=(2, 4))
    injection = KINDS["low_rank"].blend(stack, jnp.asarray(weights, jnp.float32))
    merged = injection.low_rank["qkv"]
    got = (x @ merged.down[0] * injection.gate) @ merged.up[0]
    for row in range(2):
        matrix = sum(weights[row, m] * down[m, 0] @ up[m, 0] for m in range(3))
        np.testing.assert_allclose(got[row], x[row] @ matrix, rtol=1e-4, atol=1e-5)


def test_fewer_layers_than_asked_for_get_prompts(encoder: Encoder) -> None:
    spec, key = encoder.spec.tower("visual"), jax.random.key(0)
    shapes = {
        layers: adapters.deep_prompts(4, layers).init(key, spec)["prompts"].shape
        for layers in (None, 1, 2, 9)
    }
    assert shapes == {None: (2, 4, 16), 1: (1, 4, 16), 2: (2, 4, 16), 9: (2, 4, 16)}
    # prompts of the first layer alone leave their outputs to the second
    stack = {"prompts": stack_of(encoder, "visual", "deep_prompts")["prompts"][:, :1]}
    deep = stack_of(encoder, "visual", "deep_prompts")
    weights = np.eye(3)
    shallow = blend(encoder, "visual", "deep_prompts", stack, weights)
    whole = blend(encoder, "visual", "deep_prompts", deep, weights)
    assert np.abs(shallow - whole).max() > 1e-3


def test_parameter_counts() -> None:
    large = TowerSpec(768, 12, 12, 3072, "quick_gelu", 1e-5)

    def count(adapter: adapters.Adapter) -> int:
        shapes = jax.eval_shape(lambda: adapter.init(jax.random.key(0), large))
        return sum(leaf.size for leaf in jax.tree.leaves(shapes))

    # 8 prompts in each of 8 layers of ViT-B
    assert count(adapters.deep_prompts(8, 8)) == 49_152
    assert count(adapters.deep_prompts(8, None)) == 73_728
    assert count(adapters.shallow_prompts(10)) == 7_680
    # keys and values
    assert count(adapters.prefix(5, 2)) == 15_360
    assert count(adapters.residual_prefix(8, 8)) == 98_304
    # 12 layers of 4 (768 + 2304) and 4 (768 + 3072)
    assert count(adapters.low_rank(4)) == 331_776


def test_new_prompts_are_small_and_random(encoder: Encoder) -> None:
    spec = encoder.spec.tower("visual")
    first, second = (
        KINDS["deep_prompts"].init(jax.random.key(i), spec)["prompts"] for i in range(2)
    )
    assert 0.01 < np.std(first) < 0.03
    assert not np.array_equal(first, second)
