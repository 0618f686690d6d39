"""Towers, held to a slow encoder."""

import pathlib
import shutil

import jax.numpy as jnp
import numpy as np
import pytest

from mmcl_jax.models import pretrained
from mmcl_jax.models.injection import Injection, Prefix
from mmcl_jax.models.pretrained import Encoder
from tests.towers import (
    KINDS,
    SlowClip,
    blend,
    embed,
    kinds,
    random_inputs,
    stack_of,
    towers,
)


@towers
def test_tower_is_the_slow_one(
    tower: str, encoder: Encoder, encoder_folder: pathlib.Path
) -> None:
    inputs = random_inputs(encoder, tower)
    slow = SlowClip(encoder_folder).embed(inputs)
    np.testing.assert_allclose(embed(encoder, inputs), slow, atol=1e-5)


def test_exact_gelu_is_the_slow_one(
    encoder: Encoder, encoder_folder: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    shutil.copytree(encoder_folder, tmp_path, dirs_exist_ok=True)
    config = (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").write_text(config.replace("quick_gelu", "gelu"))
    other, inputs = pretrained.load(tmp_path), random_inputs(encoder, "visual")
    slow = SlowClip(tmp_path).embed(inputs)
    np.testing.assert_allclose(embed(other, inputs), slow, atol=1e-5)
    assert np.abs(embed(encoder, inputs) - slow).max() > 1e-4


@towers
@pytest.mark.parametrize("layers", [1, 2])
def test_prompts_are_the_slow_ones(
    tower: str, layers: int, encoder: Encoder, encoder_folder: pathlib.Path
) -> None:
    inputs = random_inputs(encoder, tower)
    stack = stack_of(encoder, tower, "deep_prompts", number=1)
    prompts = np.asarray(stack["prompts"], np.float64)[0, :layers]
    injection = Injection(prompts=jnp.stack([jnp.asarray(prompts, jnp.float32)] * 3))
    slow = SlowClip(encoder_folder).embed(inputs, prompts=prompts)
    fast = embed(encoder, inputs, injection)
    np.testing.assert_allclose(fast, slow, atol=1e-5)
    assert np.abs(fast - embed(encoder, inputs)).max() > 1e-3


@towers
def test_low_rank_updates_are_the_slow_ones(
    tower: str, encoder: Encoder, encoder_folder: pathlib.Path
) -> None:
    inputs = random_inputs(encoder, tower)
    stack = stack_of(encoder, tower, "low_rank", number=1)
    updates = [
        np.einsum("lwr,lro->lwo", *(np.asarray(x[0], np.float64) for x in stack[name]))
        for name in ("qkv", "mlp_in")
    ]
    fast = blend(encoder, tower, "low_rank", stack, np.ones((3, 1)))
    slow = SlowClip(encoder_folder).embed(inputs, updates=updates)
    np.testing.assert_allclose(fast, slow, atol=1e-5)
    assert np.abs(fast - embed(encoder, inputs)).max() > 1e-3


@towers
@pytest.mark.parametrize("residual", [None, 0.7])
@pytest.mark.parametrize("layers", [1, 2])
def test_prefixes_are_the_slow_ones(
    tower: str,
    residual: float | None,
    layers: int,
    encoder: Encoder,
    encoder_folder: pathlib.Path,
) -> None:
    inputs = random_inputs(encoder, tower)
    # a run of its own, and length, for each block
    runs = np.random.default_rng(1).normal(size=(layers, 2, 5, 16))
    lengths = (3, 5)[:layers]
    given = [(*run[:, :n], residual) for run, n in zip(runs, lengths, strict=True)]
    weight = None if residual is None else jnp.full(3, residual)
    prefixes = []
    for keys, values, _ in given:
        every = (jnp.asarray([[x]] * 3, jnp.float32) for x in (keys, values))
        prefixes.append(Prefix(*every, weight))
    slow = SlowClip(encoder_folder).embed(inputs, prefixes=given)
    fast = embed(encoder, inputs, Injection(prefixes=tuple(prefixes)))
    np.testing.assert_allclose(fast, slow, atol=1e-5)
    assert np.abs(fast - embed(encoder, inputs)).max() > 1e-3


# samples


def test_a_still_may_be_repeated(encoder: Encoder) -> None:
    still = random_inputs(encoder, "visual", frames=1)["pixels"]
    one = embed(encoder, {"pixels": still})
    for frames in (2, 5):
        many = embed(encoder, {"pixels": np.repeat(still, frames, axis=1)})
        np.testing.assert_allclose(many, one, atol=1e-6)


def test_frames_have_no_order(encoder: Encoder) -> None:
    clip = random_inputs(encoder, "visual", frames=2)["pixels"]
    there, back = (embed(encoder, {"pixels": x}) for x in (clip, clip[:, ::-1]))
    np.testing.assert_allclose(there, back, atol=1e-6)


@kinds
def test_adapters_serve_all_frames_of_their_sample(kind: str, encoder: Encoder) -> None:
    clip = random_inputs(encoder, "visual", frames=2)["pixels"]
    stack, weights = stack_of(encoder, "visual", kind), jnp.eye(3)
    blend = KINDS[kind].blend
    whole = embed(encoder, {"pixels": clip}, blend(stack, weights))
    for row in range(3):
        alone = np.repeat(clip[row : row + 1], 3, axis=0)
        own = jnp.repeat(weights[row : row + 1], 3, axis=0)
        expected = embed(encoder, {"pixels": alone}, blend(stack, own))[0]
        np.testing.assert_allclose(whole[row], expected, atol=1e-6)


@pytest.mark.parametrize("kind", [None, *KINDS])
def test_what_follows_the_end_token_is_not_read(
    kind: str | None, encoder: Encoder
) -> None:
    inputs, injection = random_inputs(encoder, "text"), None
    if kind:
        stack = stack_of(encoder, "text", kind)
        injection = KINDS[kind].blend(stack, jnp.eye(3))
    other = inputs["tokens"].copy()
    for row in other:
        end = list(row).index(encoder.spec.text.end_token)
        row[end + 1 :] = [
            7,
            encoder.spec.text.end_token,
            *range(9, 7 + len(row[end + 1 :])),
        ]
    before, after = (
        embed(encoder, {"tokens": t}, injection) for t in (inputs["tokens"], other)
    )
    np.testing.assert_array_equal(before, after)
    changed = inputs["tokens"].copy()
    changed[:, 1] += 1
    moved = np.abs(embed(encoder, {"tokens": changed}, injection) - before)
    assert moved.max(axis=1).min() > 1e-4
