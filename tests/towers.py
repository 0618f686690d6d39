"""An encoder to compare with, and what tests put into towers."""

import functools
import json
import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from mmcl_jax.models import adapters
from mmcl_jax.models import encoder as encoders
from mmcl_jax.models.injection import Injection
from mmcl_jax.models.pretrained import Encoder
from mmcl_jax.models.specs import EncoderSpec

TOWERS = ("visual", "text")
KINDS = {
    "deep_prompts": adapters.deep_prompts(length=3, layers=None),
    "shallow_prompts": adapters.shallow_prompts(length=3),
    "prefix": adapters.prefix(length=3, layers=None),
    "residual_prefix": adapters.residual_prefix(length=3, layers=1),
    "low_rank": adapters.low_rank(rank=2),
}
towers = pytest.mark.parametrize("tower", TOWERS)
kinds = pytest.mark.parametrize("kind", KINDS)


def random_inputs(encoder: Encoder, tower: str, rows: int = 3, frames: int = 2) -> dict:
    rng, spec = np.random.default_rng(3), encoder.spec
    if tower == "visual":
        shape = (rows, frames, *spec.reader("visual").image_size, 3)
        return {"pixels": rng.normal(size=shape).astype(np.float32)}
    tokens = np.full((rows, spec.text.context_length), 0, np.int32)
    for row in range(rows):
        length = 3 + 4 * row
        tokens[row, 0], tokens[row, length] = 2, spec.text.end_token
        tokens[row, 1:length] = rng.integers(3, spec.text.vocabulary, length - 1)
    return {"tokens": tokens}


@functools.lru_cache(maxsize=2)
def _compiled(spec: EncoderSpec):
    return jax.jit(functools.partial(encoders.embed, spec), static_argnums=1)


def embed(encoder: Encoder, inputs: dict, injection: Injection | None = None):
    modality = "text" if "tokens" in inputs else "image"
    return np.asarray(
        _compiled(encoder.spec)(encoder.frozen, modality, inputs, injection)
    )


def stack_of(encoder: Encoder, tower: str, kind: str, number: int = 3) -> dict:
    """Adapters of several modalities, every entry of them random."""
    spec, rng = encoder.spec.tower(tower), np.random.default_rng(5)
    keys = jax.random.split(jax.random.key(0), number)
    drawn = jax.vmap(lambda key: KINDS[kind].init(key, spec))(keys)
    return jax.tree.map(
        lambda x: jnp.asarray(x + 0.2 * rng.normal(size=x.shape), jnp.float32), drawn
    )


def blend(encoder: Encoder, tower: str, kind: str, stack: dict, weights):
    inputs = random_inputs(encoder, tower)
    injection = KINDS[kind].blend(stack, jnp.asarray(weights, jnp.float32))
    return embed(encoder, inputs, injection)


# the same encoder once more, slowly, from the tensors of the file


class SlowClip:
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
