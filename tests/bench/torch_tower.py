"""The visual tower of CLIP in PyTorch, with what continual learners put into it."""

from typing import Any

import numpy as np
import torch
import transformers
from torch.nn import functional

from mmcl_jax.models.specs import VisualSpec


def build(
    spec: VisualSpec, weights: Any, embedding: int
) -> transformers.CLIPVisionModelWithProjection:
    """Returns the model of `transformers` that holds our weights, frozen."""
    trunk = spec.trunk
    config = transformers.CLIPVisionConfig(
        hidden_size=trunk.width,
        intermediate_size=trunk.mlp_width,
        num_hidden_layers=trunk.layers,
        num_attention_heads=trunk.heads,
        image_size=spec.image_size[0],
        patch_size=spec.patch_size,
        hidden_act=trunk.activation,
        layer_norm_eps=trunk.norm_epsilon,
        projection_dim=embedding,
    )
    model = transformers.CLIPVisionModelWithProjection(config)
    model.load_state_dict(_state(spec, weights), strict=False)
    return model.eval().requires_grad_(False)


def _state(spec: VisualSpec, weights: Any) -> dict[str, torch.Tensor]:
    patch = np.asarray(weights["patch"]).T
    shape = (spec.trunk.width, spec.channels, spec.patch_size, spec.patch_size)
    state = {
        "embeddings.class_embedding": weights["class"],
        "embeddings.patch_embedding.weight": patch.reshape(shape),
        "embeddings.position_embedding.weight": weights["positions"],
    }
    for ours, theirs in (("pre_norm", "pre_layrnorm"), ("post_norm", "post_layernorm")):
        state[f"{theirs}.weight"] = weights[ours]["scale"]
        state[f"{theirs}.bias"] = weights[ours]["bias"]
    blocks = weights["blocks"]
    for i in range(spec.trunk.layers):
        at = f"encoder.layers.{i}"
        for name in ("norm1", "norm2"):
            norm = f"{at}.layer_{name}"
            state[f"{norm}.weight"] = blocks[name]["scale"][i]
            state[f"{norm}.bias"] = blocks[name]["bias"][i]
        linears = {
            "mlp.fc1": blocks["mlp_in"],
            "mlp.fc2": blocks["mlp_out"],
            "self_attn.out_proj": blocks["out"],
        }
        for name, linear in linears.items():
            state[f"{at}.{name}.weight"] = linear["kernel"][i].T
            state[f"{at}.{name}.bias"] = linear["bias"][i]
        kernels = np.split(np.asarray(blocks["qkv"]["kernel"][i]), 3, axis=1)
        biases = np.split(np.asarray(blocks["qkv"]["bias"][i]), 3)
        for name, kernel, bias in zip("qkv", kernels, biases, strict=True):
            state[f"{at}.self_attn.{name}_proj.weight"] = kernel.T
            state[f"{at}.self_attn.{name}_proj.bias"] = bias
    state = {f"vision_model.{name}": x for name, x in state.items()}
    state["visual_projection.weight"] = np.asarray(weights["projection"]).T
    return {name: torch.tensor(np.array(x)) for name, x in state.items()}


def embed(
    model: transformers.CLIPVisionModelWithProjection,
    pixels: torch.Tensor,
    prompts: torch.Tensor | None = None,
    prefixes: torch.Tensor | None = None,
) -> torch.Tensor:
    """Returns unit embeddings.

    Args:
        model: the tower.
        pixels: `[b c h w]`.
        prompts: tokens behind the class token, before each of the first layers
            `[b l p w]` (VPT-deep).
        prefixes: keys and values of the first layers `[b l 2 p w]`.
    """
    tower = model.vision_model
    x = tower.pre_layrnorm(tower.embeddings(pixels))
    if prompts is not None:
        x = torch.cat([x[:, :1], prompts[:, 0], x[:, 1:]], dim=1)
    for i, layer in enumerate(tower.encoder.layers):
        if prompts is not None and 0 < i < prompts.shape[1]:
            rest = x[:, 1 + prompts.shape[2] :]
            x = torch.cat([x[:, :1], prompts[:, i], rest], dim=1)
        if prefixes is not None and i < prefixes.shape[1]:
            x = x + _attend(layer.self_attn, layer.layer_norm1(x), prefixes[:, i])
            x = x + layer.mlp(layer.layer_norm2(x))
        else:
            x = layer(x, attention_mask=None)
    pooled = tower.post_layernorm(x[:, 0])
    return functional.normalize(model.visual_projection(pooled), dim=-1)


def _attend(attention: Any, x: torch.Tensor, prefix: torch.Tensor) -> torch.Tensor:
    """Self-attention whose keys and values are preceded by a prefix `[b 2 p w]`."""

    def heads(y: torch.Tensor) -> torch.Tensor:
        return y.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2)

    keys = torch.cat([prefix[:, 0], attention.k_proj(x)], dim=1)
    values = torch.cat([prefix[:, 1], attention.v_proj(x)], dim=1)
    mixed = functional.scaled_dot_product_attention(
        heads(attention.q_proj(x)), heads(keys), heads(values)
    )
    return attention.out_proj(mixed.transpose(1, 2).flatten(2))
