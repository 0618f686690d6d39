"""Towers, adapters and the files that encoders come from."""

import functools
import hashlib
import json
import math
import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from mmcl_jax import assemble
from mmcl_jax.config import AdapterOptions
from mmcl_jax.methods import make_adapter
from mmcl_jax.modalities import MODALITIES
from mmcl_jax.models import adapters, dual
from mmcl_jax.models.pretrained import huggingface_clip
from mmcl_jax.models.pretrained.huggingface_clip import Encoder
from mmcl_jax.models.tower import Injection, LowRank, Prefix

TOWERS = ("visual", "text")
KINDS = {
    "deep_prompts": adapters.deep_prompts(length=3, layers=None),
    "shallow_prompts": adapters.shallow_prompts(length=3),
    "prefix": adapters.prefix(length=3, layers=None),
    "residual_prefix": adapters.residual_prefix(length=3, layers=1),
    "low_rank": adapters.low_rank(rank=2),
}
SMALL = dual.TowerSpec(16, 2, 2, 32, "gelu", 1e-5)
towers = pytest.mark.parametrize("tower", TOWERS)
kinds = pytest.mark.parametrize("kind", KINDS)


def _inputs(encoder: Encoder, tower: str, rows: int = 3, frames: int = 2) -> dict:
    rng, spec = np.random.default_rng(3), encoder.spec
    if tower == "visual":
        shape = (rows, frames, spec.image_size, spec.image_size, 3)
        return {"pixels": rng.normal(size=shape).astype(np.float32)}
    tokens = np.full((rows, spec.context_length), 0, np.int32)
    for row in range(rows):
        length = 3 + 4 * row
        tokens[row, 0], tokens[row, length] = 2, spec.end_token
        tokens[row, 1:length] = rng.integers(3, spec.vocabulary, length - 1)
    return {"tokens": tokens}


@functools.lru_cache(maxsize=2)
def _compiled(spec: dual.DualSpec):
    return jax.jit(functools.partial(dual.embed, spec))


def _embed(encoder: Encoder, inputs: dict, injection: Injection | None = None):
    return np.asarray(_compiled(encoder.spec)(encoder.frozen, inputs, injection))


def _stack(encoder: Encoder, tower: str, kind: str, number: int = 3) -> dict:
    """Adapters of several modalities, every entry of them random."""
    spec, rng = encoder.spec.tower(tower), np.random.default_rng(5)
    keys = jax.random.split(jax.random.key(0), number)
    drawn = jax.vmap(lambda key: KINDS[kind].init(key, spec))(keys)
    return jax.tree.map(
        lambda x: jnp.asarray(x + 0.2 * rng.normal(size=x.shape), jnp.float32), drawn
    )


def _blend(encoder: Encoder, tower: str, kind: str, stack: dict, weights):
    inputs = _inputs(encoder, tower)
    injection = KINDS[kind].blend(stack, jnp.asarray(weights, jnp.float32))
    return _embed(encoder, inputs, injection)


# the same encoder once more, slowly, from the tensors of the file


class Slow:
    """CLIP in float64 by its file's own names: one sample, one head, one token."""

    def __init__(self, folder: pathlib.Path) -> None:
        tensors = safetensors.numpy.load_file(folder / "model.safetensors")
        self.tensors = {k: v.astype(np.float64) for k, v in tensors.items()}
        self.config = json.loads((folder / "config.json").read_text())

    def linear(self, x: np.ndarray, name: str, update=None) -> np.ndarray:
        t = self.tensors
        y = np.stack([t[f"{name}.weight"] @ row + t[f"{name}.bias"] for row in x])
        return y if update is None else y + x @ update

    def norm(self, x: np.ndarray, name: str, epsilon: float) -> np.ndarray:
        rows = []
        for row in x:
            row = (row - row.mean()) / math.sqrt(row.var() + epsilon)
            t = self.tensors
            rows.append(row * t[f"{name}.weight"] + t[f"{name}.bias"])
        return np.stack(rows)

    def attention(
        self, x, at: str, heads: int, causal: bool, update, prefix=None
    ) -> np.ndarray:
        width = x.shape[1] // heads
        parts = np.split(update, 3, axis=1) if update is not None else [None] * 3
        q, k, v = (
            self.linear(x, f"{at}self_attn.{name}_proj", part)
            for name, part in zip("qkv", parts, strict=True)
        )
        mixed = np.zeros_like(x)
        for h in range(heads):
            columns = slice(h * width, (h + 1) * width)
            for i in range(len(x)):
                met = slice(0, i + 1 if causal else len(x))
                read = [(k[met, columns], v[met, columns], 1.0)]
                if prefix is not None:
                    keys, values = (p[:, columns] for p in prefix[:2])
                    if prefix[2] is None:
                        joined = zip((keys, values), read[0][:2], strict=True)
                        read = [(*map(np.concatenate, joined), 1.0)]
                    else:
                        read.append((keys, values, prefix[2]))
                for keys, values, weight in read:
                    scores = [q[i, columns] @ key / width**0.5 for key in keys]
                    share = np.exp(np.array(scores) - max(scores))
                    share /= share.sum()
                    for part, value in zip(share, values, strict=True):
                        mixed[i, columns] += weight * part * value
        return self.linear(mixed, f"{at}self_attn.out_proj")

    def layers(
        self, x, prefix: str, prompts, updates, causal: bool, prefixes=()
    ) -> np.ndarray:
        config = self.config[f"{prefix}_config"]
        prefix = f"{prefix}_model"
        epsilon, act = config["layer_norm_eps"], config["hidden_act"]
        for i in range(config["num_hidden_layers"]):
            at = f"{prefix}.encoder.layers.{i}."
            if i < len(prompts):
                x = np.concatenate([x[:1], prompts[i], x[1 + len(prompts[i]) :]])
            qkv, fc1 = (update[i] if updates else None for update in updates or (0, 0))
            h = self.norm(x, f"{at}layer_norm1", epsilon)
            heads = config["num_attention_heads"]
            given = prefixes[i] if i < len(prefixes) else None
            x = x + self.attention(h, at, heads, causal, qkv, given)
            h = self.linear(
                self.norm(x, f"{at}layer_norm2", epsilon), f"{at}mlp.fc1", fc1
            )
            if act == "gelu":
                h = h * np.vectorize(lambda v: (1 + math.erf(v / 2**0.5)) / 2)(h)
            else:
                h = h / (1 + np.exp(-1.702 * h))
            x = x + self.linear(h, f"{at}mlp.fc2")
        return x

    def picture(
        self, picture: np.ndarray, prompts=(), updates=None, prefixes=()
    ) -> np.ndarray:
        config, t = self.config["vision_config"], self.tensors
        patch, grid = config["patch_size"], config["image_size"] // config["patch_size"]
        kernel = t["vision_model.embeddings.patch_embedding.weight"]
        tokens = [t["vision_model.embeddings.class_embedding"]]
        for row in range(grid):
            for column in range(grid):
                top, left = row * patch, column * patch
                part = picture[top : top + patch, left : left + patch]
                tokens.append(np.einsum("wchk,hkc->w", kernel, part))
        x = np.stack(tokens)
        x = x + t["vision_model.embeddings.position_embedding.weight"]
        epsilon = config["layer_norm_eps"]
        x = self.norm(x, "vision_model.pre_layrnorm", epsilon)
        x = self._room(x, prompts)
        x = self.layers(x, "vision", prompts, updates, False, prefixes)
        x = self.norm(x[:1], "vision_model.post_layernorm", epsilon)
        return t["visual_projection.weight"] @ x[0]

    def sentence(
        self, tokens: np.ndarray, prompts=(), updates=None, prefixes=()
    ) -> np.ndarray:
        config, t = self.config["text_config"], self.tensors
        at = "text_model.embeddings."
        positions = t[f"{at}position_embedding.weight"]
        x = np.stack(
            [
                t[f"{at}token_embedding.weight"][k] + positions[i]
                for i, k in enumerate(tokens)
            ]
        )
        length = len(prompts[0]) if len(prompts) else 0
        x = self._room(x, prompts)
        x = self.layers(x, "text", prompts, updates, True, prefixes)
        end = list(tokens).index(config["eos_token_id"]) + length
        x = self.norm(x, "text_model.final_layer_norm", config["layer_norm_eps"])
        return t["text_projection.weight"] @ x[end]

    def _room(self, x: np.ndarray, prompts) -> np.ndarray:
        if not len(prompts):
            return x
        return np.concatenate([x[:1], np.zeros_like(prompts[0]), x[1:]])

    def embed(self, inputs: dict, **injections) -> np.ndarray:
        """Unit embeddings of all samples; injections are those of every sample."""
        features = []
        for sample in inputs.get("tokens", ()):
            features.append(self.sentence(sample, **injections))
        for clip in inputs.get("pixels", ()):
            frames = [self.picture(f.astype(np.float64), **injections) for f in clip]
            features.append(np.mean(frames, axis=0))
        return np.stack([z / np.linalg.norm(z) for z in features])


@towers
def test_tower_is_the_slow_one(
    tower: str, encoder: Encoder, encoder_folder: pathlib.Path
) -> None:
    inputs = _inputs(encoder, tower)
    slow = Slow(encoder_folder).embed(inputs)
    np.testing.assert_allclose(_embed(encoder, inputs), slow, atol=1e-5)


def test_exact_gelu_is_the_slow_one(
    encoder: Encoder, encoder_folder: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    shutil.copytree(encoder_folder, tmp_path, dirs_exist_ok=True)
    config = (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").write_text(config.replace("quick_gelu", "gelu"))
    other, inputs = huggingface_clip.load(tmp_path), _inputs(encoder, "visual")
    slow = Slow(tmp_path).embed(inputs)
    np.testing.assert_allclose(_embed(other, inputs), slow, atol=1e-5)
    assert np.abs(_embed(encoder, inputs) - slow).max() > 1e-4


@towers
@pytest.mark.parametrize("layers", [1, 2])
def test_prompts_are_the_slow_ones(
    tower: str, layers: int, encoder: Encoder, encoder_folder: pathlib.Path
) -> None:
    inputs = _inputs(encoder, tower)
    stack = _stack(encoder, tower, "deep_prompts", number=1)
    prompts = np.asarray(stack["prompts"], np.float64)[0, :layers]
    injection = Injection(prompts=jnp.stack([jnp.asarray(prompts, jnp.float32)] * 3))
    slow = Slow(encoder_folder).embed(inputs, prompts=prompts)
    fast = _embed(encoder, inputs, injection)
    np.testing.assert_allclose(fast, slow, atol=1e-5)
    assert np.abs(fast - _embed(encoder, inputs)).max() > 1e-3


@towers
def test_low_rank_updates_are_the_slow_ones(
    tower: str, encoder: Encoder, encoder_folder: pathlib.Path
) -> None:
    inputs = _inputs(encoder, tower)
    stack = _stack(encoder, tower, "low_rank", number=1)
    updates = [
        np.einsum("lwr,lro->lwo", *(np.asarray(x[0], np.float64) for x in stack[name]))
        for name in ("qkv", "mlp_in")
    ]
    fast = _blend(encoder, tower, "low_rank", stack, np.ones((3, 1)))
    slow = Slow(encoder_folder).embed(inputs, updates=updates)
    np.testing.assert_allclose(fast, slow, atol=1e-5)
    assert np.abs(fast - _embed(encoder, inputs)).max() > 1e-3


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
    inputs = _inputs(encoder, tower)
    # a run of its own, and length, for each block
    runs = np.random.default_rng(1).normal(size=(layers, 2, 5, 16))
    lengths = (3, 5)[:layers]
    given = [(*run[:, :n], residual) for run, n in zip(runs, lengths, strict=True)]
    weight = None if residual is None else jnp.full(3, residual)
    prefixes = []
    for keys, values, _ in given:
        every = (jnp.asarray([[x]] * 3, jnp.float32) for x in (keys, values))
        prefixes.append(Prefix(*every, weight))
    slow = Slow(encoder_folder).embed(inputs, prefixes=given)
    fast = _embed(encoder, inputs, Injection(prefixes=tuple(prefixes)))
    np.testing.assert_allclose(fast, slow, atol=1e-5)
    assert np.abs(fast - _embed(encoder, inputs)).max() > 1e-3


# samples


def test_a_still_may_be_repeated(encoder: Encoder) -> None:
    still = _inputs(encoder, "visual", frames=1)["pixels"]
    one = _embed(encoder, {"pixels": still})
    for frames in (2, 5):
        many = _embed(encoder, {"pixels": np.repeat(still, frames, axis=1)})
        np.testing.assert_allclose(many, one, atol=1e-6)


def test_frames_have_no_order(encoder: Encoder) -> None:
    clip = _inputs(encoder, "visual", frames=2)["pixels"]
    there, back = (_embed(encoder, {"pixels": x}) for x in (clip, clip[:, ::-1]))
    np.testing.assert_allclose(there, back, atol=1e-6)


@kinds
def test_adapters_serve_all_frames_of_their_sample(kind: str, encoder: Encoder) -> None:
    clip = _inputs(encoder, "visual", frames=2)["pixels"]
    stack, weights = _stack(encoder, "visual", kind), jnp.eye(3)
    blend = KINDS[kind].blend
    whole = _embed(encoder, {"pixels": clip}, blend(stack, weights))
    for row in range(3):
        alone = np.repeat(clip[row : row + 1], 3, axis=0)
        own = jnp.repeat(weights[row : row + 1], 3, axis=0)
        expected = _embed(encoder, {"pixels": alone}, blend(stack, own))[0]
        np.testing.assert_allclose(whole[row], expected, atol=1e-6)


@pytest.mark.parametrize("kind", [None, *KINDS])
def test_what_follows_the_end_token_is_not_read(
    kind: str | None, encoder: Encoder
) -> None:
    inputs, injection = _inputs(encoder, "text"), None
    if kind:
        stack = _stack(encoder, "text", kind)
        injection = KINDS[kind].blend(stack, jnp.eye(3))
    other = inputs["tokens"].copy()
    for row in other:
        end = list(row).index(encoder.spec.end_token)
        row[end + 1 :] = [7, encoder.spec.end_token, *range(9, 7 + len(row[end + 1 :]))]
    before, after = (
        _embed(encoder, {"tokens": t}, injection) for t in (inputs["tokens"], other)
    )
    np.testing.assert_array_equal(before, after)
    changed = inputs["tokens"].copy()
    changed[:, 1] += 1
    moved = np.abs(_embed(encoder, {"tokens": changed}, injection) - before)
    assert moved.max(axis=1).min() > 1e-4


# adapters


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
    inputs, spec = _inputs(encoder, tower), encoder.spec.tower(tower)
    none = jax.tree.map(lambda x: x[None], EMPTY[kind].init(jax.random.key(0), spec))
    injection = EMPTY[kind].blend(none, jnp.ones((3, 1)))
    np.testing.assert_array_equal(
        _embed(encoder, inputs, injection), _embed(encoder, inputs)
    )


@towers
@pytest.mark.parametrize("kind", NEUTRAL)
def test_some_new_adapters_are_the_frozen_tower(
    tower: str, kind: str, encoder: Encoder
) -> None:
    inputs, spec = _inputs(encoder, tower), encoder.spec.tower(tower)
    new = jax.tree.map(lambda x: x[None], KINDS[kind].init(jax.random.key(0), spec))
    assert any(np.any(leaf) for leaf in jax.tree.leaves(new))
    injection = KINDS[kind].blend(new, jnp.ones((3, 1)))
    np.testing.assert_array_equal(
        _embed(encoder, inputs, injection), _embed(encoder, inputs)
    )


def test_every_kind_is_made_from_options() -> None:
    assert sorted(KINDS) == sorted(adapters.ADAPTERS)
    for kind in adapters.ADAPTERS:
        made = make_adapter(AdapterOptions(kind, length=5, layers=2, rank=3))
        leaves = jax.tree.leaves(made.init(jax.random.key(0), SMALL))
        sizes = {size for leaf in leaves for size in leaf.shape}
        assert (3 if kind == "low_rank" else 5) in sizes


@towers
@kinds
def test_blend_of_one_is_that_adapter_alone(
    tower: str, kind: str, encoder: Encoder
) -> None:
    stack = _stack(encoder, tower, kind)
    whole = _blend(encoder, tower, kind, stack, np.eye(3))
    for m in range(3):
        only = jax.tree.map(lambda x, m=m: x[m : m + 1], stack)
        alone = _blend(encoder, tower, kind, only, np.ones((3, 1)))
        np.testing.assert_allclose(whole[m], alone[m], atol=2e-6)
    assert np.ptp(whole, axis=0).max() > 1e-3


@towers
@kinds
def test_blend_of_equal_adapters_does_not_depend_on_weights(
    tower: str, kind: str, encoder: Encoder
) -> None:
    stack = jax.tree.map(lambda x: jnp.stack([x[0]] * 3), _stack(encoder, tower, kind))
    weights = np.random.default_rng(0).dirichlet(np.ones(3), size=3)
    mixed = _blend(encoder, tower, kind, stack, weights)
    own = _blend(encoder, tower, kind, stack, np.eye(3))
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
    spec, key = encoder.spec.visual, jax.random.key(0)
    shapes = {
        layers: adapters.deep_prompts(4, layers).init(key, spec)["prompts"].shape
        for layers in (None, 1, 2, 9)
    }
    assert shapes == {None: (2, 4, 16), 1: (1, 4, 16), 2: (2, 4, 16), 9: (2, 4, 16)}
    # prompts of the first layer alone leave their outputs to the second
    stack = {"prompts": _stack(encoder, "visual", "deep_prompts")["prompts"][:, :1]}
    deep = _stack(encoder, "visual", "deep_prompts")
    weights = np.eye(3)
    shallow = _blend(encoder, "visual", "deep_prompts", stack, weights)
    whole = _blend(encoder, "visual", "deep_prompts", deep, weights)
    assert np.abs(shallow - whole).max() > 1e-3


def test_parameter_counts() -> None:
    large = dual.TowerSpec(768, 12, 12, 3072, "quick_gelu", 1e-5)

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
    first, second = (
        KINDS["deep_prompts"].init(jax.random.key(i), encoder.spec.visual)["prompts"]
        for i in range(2)
    )
    assert 0.01 < np.std(first) < 0.03
    assert not np.array_equal(first, second)


# files


def _tensors(folder: pathlib.Path) -> dict[str, np.ndarray]:
    return safetensors.numpy.load_file(folder / "model.safetensors")


def test_saved_encoder_loads_exactly(
    encoder: Encoder, encoder_folder: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    config = json.loads((encoder_folder / "config.json").read_text())
    huggingface_clip.save(
        tmp_path, encoder.spec, encoder.frozen, config["preprocessing"]
    )
    shutil.copy(encoder_folder / "tokenizer.json", tmp_path)
    again = huggingface_clip.load(tmp_path)
    assert again.spec == encoder.spec
    jax.tree.map(np.testing.assert_array_equal, again.frozen, encoder.frozen)
    assert jax.tree.structure(again.frozen) == jax.tree.structure(encoder.frozen)
    before, after = _tensors(encoder_folder), _tensors(tmp_path)
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        np.testing.assert_array_equal(tensor, after[name])


def test_fingerprint_is_that_of_the_weight_file(
    encoder: Encoder, encoder_folder: pathlib.Path
) -> None:
    data = (encoder_folder / "model.safetensors").read_bytes()
    assert encoder.fingerprint == hashlib.sha256(data).hexdigest()


def _without(tensors: dict, name: str) -> dict:
    return {key: value for key, value in tensors.items() if key != name}


_FC1, _SCALE = "text_model.encoder.layers.1.mlp.fc1.weight", "logit_scale"
DAMAGES = {
    "missing": (lambda t: _without(t, _FC1), rf"tensor '{_FC1}' is missing"),
    "extra": (
        lambda t: t | {"spare.bias": np.zeros(2)},
        r"without a use.*'spare.bias'",
    ),
    "transposed": (
        lambda t: t | {_FC1: np.ascontiguousarray(t[_FC1].T)},
        rf"tensor '{_FC1}' has shape \(16, 32\), expected \(32, 16\)",
    ),
    "NaN": (
        lambda t: t | {_FC1: np.full_like(t[_FC1], np.nan)},
        rf"tensor '{_FC1}' is not finite",
    ),
    "infinite": (
        lambda t: t | {_SCALE: np.array(np.inf, np.float32)},
        rf"tensor '{_SCALE}' is not finite",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_weights_are_named(
    damage: str, encoder_folder: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    shutil.copytree(encoder_folder, tmp_path, dirs_exist_ok=True)
    change, message = DAMAGES[damage]
    path = tmp_path / "model.safetensors"
    safetensors.numpy.save_file(change(_tensors(encoder_folder)), path)
    with pytest.raises(ValueError, match=message) as caught:
        huggingface_clip.load(tmp_path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_missing_files_are_named(
    name: str, encoder_folder: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    shutil.copytree(encoder_folder, tmp_path, dirs_exist_ok=True)
    (tmp_path / name).unlink()
    with pytest.raises(ValueError, match=f"{name}: no such file"):
        huggingface_clip.load(tmp_path)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_damaged_files_are_named(
    name: str, encoder_folder: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    shutil.copytree(encoder_folder, tmp_path, dirs_exist_ok=True)
    data = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match=name):
        huggingface_clip.load(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"projection_dim": None}, "projection_dim"),
        ({"preprocessing": None}, "preprocessing"),
        ({"preprocessing": {"frames": 2}}, "mean"),
        ({"vision_config": {"hidden_act": "relu"}}, "hidden_act 'relu'"),
    ],
)
def test_fields_of_the_config_are_named(
    change: dict, message: str, encoder_folder: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    shutil.copytree(encoder_folder, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    for key, value in change.items():
        if value is None:
            del config[key]
        else:
            config[key] = config[key] | value if key == "vision_config" else value
    path.write_text(json.dumps(config))
    with pytest.raises(ValueError, match=message) as caught:
        huggingface_clip.load(tmp_path)
    assert str(path) in str(caught.value)


def test_builtin_encoder() -> None:
    folder = assemble.BUILTIN_ENCODER
    builtin = assemble.load_encoder("builtin")
    parameters = sum(leaf.size for leaf in jax.tree.leaves(builtin.frozen))
    assert 2e6 < parameters < 5e6
    size = sum(path.stat().st_size for path in folder.iterdir())
    assert size < 12 * 2**20
    sentences = ("a spinning star", "", "Ein völlig neuer Satz, 12 Mal.", "star " * 99)
    for sentence in sentences:
        tokens = MODALITIES["text"].preprocess(sentence, builtin.inputs)["tokens"]
        assert (tokens == builtin.spec.end_token).sum() == 1
        assert tokens.max() < builtin.spec.vocabulary
