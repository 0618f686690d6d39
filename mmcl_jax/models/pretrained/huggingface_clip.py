"""Encoders in the layout of Hugging Face's `CLIPModel`.

A folder holds `config.json`, `tokenizer.json` and `model.safetensors`. The built-in
encoder is stored so too, with one more block in `config.json`: `preprocessing`, the
fields of `InputSpec`.
"""

import hashlib
import json
import pathlib
from typing import NamedTuple

import numpy as np
import safetensors
import safetensors.numpy

from mmcl_jax.files import read_json
from mmcl_jax.modalities.base import DataError, InputSpec, TokenizerSpec, reading
from mmcl_jax.modalities.tokenization import load_tokenizer
from mmcl_jax.models.dual import DualSpec
from mmcl_jax.models.pretrained.fields import read_inputs, read_spec
from mmcl_jax.models.tower import TowerSpec
from mmcl_jax.types import PyTree

Tensors = dict[str, np.ndarray]

# of a model of a billion parameters it takes a few hundred kilobytes
_MAX_HEADER_BYTES = 16 * 2**20
_FLOATS = ("float16", "bfloat16", "float32", "float64")


class Encoder(NamedTuple):
    """A frozen encoder and what must be known to use it.

    Attributes:
        spec: shape of both towers.
        inputs: what it wants to be fed.
        frozen: its weights, NumPy arrays of float32.
        fingerprint: SHA-256 of its three files, one behind the other.
    """

    spec: DualSpec
    inputs: InputSpec
    frozen: PyTree
    fingerprint: str


def load(folder: str | pathlib.Path) -> Encoder:
    """Reads an encoder; every tensor is used and every weight is filled.

    Raises:
        DataError: a file is missing or does not hold what is expected; the message
            names the file and the field or the tensors.
    """
    folder = pathlib.Path(folder)
    config_path, tokenizer_path, path = (
        folder / name for name in ("config.json", "tokenizer.json", "model.safetensors")
    )
    config = read_json(config_path, "the config of an encoder")
    with reading(str(config_path), "the config of an encoder"):
        spec = read_spec(config)
        inputs = read_inputs(config, spec, str(tokenizer_path))
    _check_tokenizer(str(tokenizer_path), spec)
    with reading(str(path), "the weights of an encoder"):
        _check_header(path)
        data = path.read_bytes()
        frozen = _from_tensors(safetensors.numpy.load(data), spec, str(path))
    digest = hashlib.sha256(config_path.read_bytes() + tokenizer_path.read_bytes())
    digest.update(data)
    return Encoder(spec, inputs, frozen, digest.hexdigest())


def _check_tokenizer(path: str, spec: DualSpec) -> None:
    tokenizer = load_tokenizer(TokenizerSpec(path))
    # on a device an id out of range is no error, it takes another word's weights
    if tokenizer.highest >= spec.vocabulary or tokenizer.end != spec.end_token:
        raise DataError(
            f"{path}: ids up to {tokenizer.highest} and the end token {tokenizer.end}; "
            f"the encoder's config.json says vocab_size {spec.vocabulary} and "
            f"eos_token_id {spec.end_token}"
        )


def _check_header(path: pathlib.Path) -> None:
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
    if size > _MAX_HEADER_BYTES:
        raise DataError(
            f"{path}: a header of {size} bytes, more than the limit of "
            f"{_MAX_HEADER_BYTES}"
        )
    # maps the file, and compares its size to what the header says, before it is read
    with safetensors.safe_open(path, framework="numpy"):
        pass


def save(
    folder: str | pathlib.Path, spec: DualSpec, frozen: PyTree, preprocessing: dict
) -> None:
    """Writes `config.json` and `model.safetensors`, the inverse of `load`."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    config = _config(spec) | {"preprocessing": preprocessing}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    tensors = {
        name: np.array(tensor, np.float32, order="C")
        for name, tensor in _to_tensors(frozen, spec).items()
    }
    safetensors.numpy.save_file(tensors, str(folder / "model.safetensors"))


def _tower_config(spec: TowerSpec) -> dict:
    return {
        "hidden_size": spec.width,
        "num_hidden_layers": spec.layers,
        "num_attention_heads": spec.heads,
        "intermediate_size": spec.mlp_width,
        "hidden_act": spec.activation,
        "layer_norm_eps": spec.norm_epsilon,
    }


def _config(spec: DualSpec) -> dict:
    return {
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "projection_dim": spec.embedding,
        "vision_config": _tower_config(spec.visual)
        | {"image_size": spec.image_size, "patch_size": spec.patch_size},
        "text_config": _tower_config(spec.text)
        | {
            "vocab_size": spec.vocabulary,
            "max_position_embeddings": spec.context_length,
            "eos_token_id": spec.end_token,
        },
    }


# torch keeps a linear map as (out, in)
_NORMS = {"norm1": "layer_norm1", "norm2": "layer_norm2"}
_LINEARS = {"out": "self_attn.out_proj", "mlp_in": "mlp.fc1", "mlp_out": "mlp.fc2"}
_QKV = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")


def _from_tensors(tensors: Tensors, spec: DualSpec, path: str) -> PyTree:
    left = dict(tensors)

    def take(name: str, *shape: int) -> np.ndarray:
        if name not in left:
            raise DataError(f"{path}: tensor {name!r} is missing")
        tensor = left.pop(name)
        if tensor.shape != shape:
            raise DataError(
                f"{path}: tensor {name!r} has shape {tensor.shape}, expected {shape}"
            )
        if tensor.dtype not in _FLOATS:
            raise DataError(
                f"{path}: tensor {name!r} is of type {tensor.dtype}, expected one of "
                f"{', '.join(_FLOATS)}"
            )
        with np.errstate(over="ignore"):  # a number too large becomes infinite
            tensor = np.asarray(tensor, np.float32)
        if not np.isfinite(tensor).all():
            raise DataError(f"{path}: tensor {name!r} is not finite")
        return tensor

    def norm(name: str, width: int) -> PyTree:
        scale, bias = take(f"{name}.weight", width), take(f"{name}.bias", width)
        return {"scale": scale, "bias": bias}

    def linear(name: str, fan_in: int, fan_out: int) -> PyTree:
        kernel = take(f"{name}.weight", fan_out, fan_in).T
        return {"kernel": kernel, "bias": take(f"{name}.bias", fan_out)}

    def blocks(prefix: str, tower: TowerSpec) -> PyTree:
        layers = []
        for i in range(tower.layers):
            at = f"{prefix}.encoder.layers.{i}."
            qkv = [linear(at + n, tower.width, tower.width) for n in _QKV]
            fans = {
                "out": (tower.width, tower.width),
                "mlp_in": (tower.width, tower.mlp_width),
                "mlp_out": (tower.mlp_width, tower.width),
            }
            layers.append(
                {ours: norm(at + n, tower.width) for ours, n in _NORMS.items()}
                | {ours: linear(at + n, *fans[ours]) for ours, n in _LINEARS.items()}
                | {
                    "qkv": {
                        key: np.concatenate([part[key] for part in qkv], axis=-1)
                        for key in ("kernel", "bias")
                    }
                }
            )
        return _stack(layers)

    visual, text, patch = spec.visual, spec.text, spec.patch_size
    at, kernel = "vision_model.embeddings.", (visual.width, 3, patch, patch)
    frozen = {
        "visual": {
            "patch": take(at + "patch_embedding.weight", *kernel)
            .reshape(visual.width, -1)
            .T,
            "class": take(at + "class_embedding", visual.width),
            "positions": take(
                at + "position_embedding.weight", 1 + spec.patches, visual.width
            ),
            # the layout's own spelling
            "pre_norm": norm("vision_model.pre_layrnorm", visual.width),
            "blocks": blocks("vision_model", visual),
            "post_norm": norm("vision_model.post_layernorm", visual.width),
            "projection": take(
                "visual_projection.weight", spec.embedding, visual.width
            ).T,
        },
        "text": {
            "tokens": take(
                "text_model.embeddings.token_embedding.weight",
                spec.vocabulary,
                text.width,
            ),
            "positions": take(
                "text_model.embeddings.position_embedding.weight",
                spec.context_length,
                text.width,
            ),
            "blocks": blocks("text_model", text),
            "final_norm": norm("text_model.final_layer_norm", text.width),
            "projection": take("text_projection.weight", spec.embedding, text.width).T,
        },
        "log_scale": take("logit_scale"),
    }
    if left:
        raise DataError(f"{path}: tensors without a use: {sorted(left)}")
    return frozen


def _to_tensors(frozen: PyTree, spec: DualSpec) -> Tensors:
    visual, text = frozen["visual"], frozen["text"]
    kernel = (spec.visual.width, 3, spec.patch_size, spec.patch_size)
    tensors = {
        "vision_model.embeddings.patch_embedding.weight": np.asarray(
            visual["patch"]
        ).T.reshape(kernel),
        "vision_model.embeddings.class_embedding": visual["class"],
        "vision_model.embeddings.position_embedding.weight": visual["positions"],
        "visual_projection.weight": np.asarray(visual["projection"]).T,
        "text_model.embeddings.token_embedding.weight": text["tokens"],
        "text_model.embeddings.position_embedding.weight": text["positions"],
        "text_projection.weight": np.asarray(text["projection"]).T,
        "logit_scale": frozen["log_scale"],
    }

    def put_norm(name: str, norm: PyTree) -> None:
        tensors[f"{name}.weight"], tensors[f"{name}.bias"] = norm["scale"], norm["bias"]

    def put_linear(name: str, kernel: np.ndarray, bias: np.ndarray) -> None:
        tensors[f"{name}.weight"], tensors[f"{name}.bias"] = kernel.T, bias

    put_norm("vision_model.pre_layrnorm", visual["pre_norm"])
    put_norm("vision_model.post_layernorm", visual["post_norm"])
    put_norm("text_model.final_layer_norm", text["final_norm"])
    for prefix, weights in (("vision_model", visual), ("text_model", text)):
        blocks = weights["blocks"]
        for i in range(len(blocks["norm1"]["scale"])):
            at = f"{prefix}.encoder.layers.{i}."
            block = _layer(blocks, i)
            for ours, name in _NORMS.items():
                put_norm(at + name, block[ours])
            for ours, name in _LINEARS.items():
                put_linear(at + name, block[ours]["kernel"], block[ours]["bias"])
            kernels = np.split(block["qkv"]["kernel"], 3, axis=-1)
            biases = np.split(block["qkv"]["bias"], 3, axis=-1)
            for name, part, bias in zip(_QKV, kernels, biases, strict=True):
                put_linear(at + name, part, bias)
    return tensors


def _stack(layers: list[PyTree]) -> PyTree:
    first = layers[0]
    if isinstance(first, dict):
        return {key: _stack([layer[key] for layer in layers]) for key in first}
    return np.stack(layers)


def _layer(blocks: PyTree, i: int) -> PyTree:
    if isinstance(blocks, dict):
        return {key: _layer(value, i) for key, value in blocks.items()}
    return np.asarray(blocks)[i]
