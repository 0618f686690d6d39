"""Encoders in OpenCLIP's layout, with an `open_clip_config.json`."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Literal

import numpy as np

from mmcl_jax.models.encoder import EncoderSpec, siglip, two_towers
from mmcl_jax.models.pretrained import fields
from mmcl_jax.models.pretrained.fields import Section
from mmcl_jax.models.pretrained.inputs import Pixels
from mmcl_jax.models.pretrained.layout import (
    ONE_IN_FRONT,
    SAME,
    TORCH_LINEAR,
    TWO_IN_FRONT,
    BlockNames,
    Layout,
    Rule,
    Tensors,
    blocks,
    linear,
    norm,
    patch_form,
)
from mmcl_jax.models.text import TextSpec
from mmcl_jax.models.tower import TowerSpec
from mmcl_jax.models.visual import VisualSpec

_BLOCK = BlockNames(
    norm1="ln_1.",
    norm2="ln_2.",
    qkv=("attn.in_proj_",),
    out="attn.out_proj.",
    mlp_in="mlp.c_fc.",
    mlp_out="mlp.c_proj.",
)
_TIMM_BLOCK = BlockNames(
    norm1="norm1.",
    norm2="norm2.",
    qkv=("attn.qkv.",),
    out="attn.proj.",
    mlp_in="mlp.fc1.",
    mlp_out="mlp.fc2.",
)
UNUSED = ("*attn_mask", "logit_bias")

_TEXT = {"context_length": 77, "vocab_size": 49408, "width": 512, "heads": 8}
_TEXT |= {"layers": 12, "mlp_ratio": 4.0}
_VISION = {"layers": 12, "width": 768, "head_width": 64, "mlp_ratio": 4.0}
_VISION |= {"patch_size": 16, "image_size": 224}
_END_TOKEN = 49407
_EPSILON = 1e-5
# fields that choose something else than what is built here; they may be there, and off
_KNOWN_VISION = {*_VISION, "patch_dropout"}
_KNOWN_TIMM = {"timm_model_name", "timm_model_pretrained", "timm_pool", "timm_proj"}
_KNOWN_TEXT = {*_TEXT, "pool_type", "proj_bias", "no_causal_mask", "norm_kwargs"}
_KNOWN_TEXT |= {"hf_tokenizer_name", "tokenizer_kwargs"}


# of timm's SigLIP trunks: width, layers, heads, width of the MLP
_TIMM_TRUNKS = {
    "vit_base": (768, 12, 12, 3072),
    "vit_large": (1024, 24, 16, 4096),
    "vit_so400m": (1152, 27, 16, 4304),
}


def spec(config: Section) -> EncoderSpec:
    """Returns the shape that `open_clip_config.json` says.

    Raises:
        ValueError: a field is of another type or out of range, or asks for what is not
            built here; names it.
    """
    model = fields.section(config, "model_cfg")
    vision, text = (
        fields.section(model, "vision_cfg"),
        fields.section(model, "text_cfg"),
    )
    embedding = fields.integer(model, "embed_dim")
    if "timm_model_name" in vision:
        return _siglip(vision, text, embedding)
    _refuse(vision, _KNOWN_VISION)
    _refuse(text, _KNOWN_TEXT)
    act = "quick_gelu" if model.get("quick_gelu", False) is True else "gelu"
    vision, text = _VISION | vision, _TEXT | text
    if text.get("pool_type", "argmax") != "argmax" or text.get("no_causal_mask"):
        raise ValueError(
            f"field 'pool_type': {text.get('pool_type')!r} in 'text_cfg'; expected "
            "'argmax' with a causal mask"
        )
    size, patch = fields.picture(vision)
    width = fields.integer(vision, "width")
    heads = width // fields.integer(vision, "head_width")
    return two_towers(
        VisualSpec(_trunk(vision, heads, act), (size, size), patch, patch),
        _text(text, _trunk(text, fields.integer(text, "heads"), act)),
        embedding,
    )


def _text(config: Section, trunk: TowerSpec) -> TextSpec:
    return TextSpec(
        trunk,
        fields.integer(config, "vocab_size"),
        fields.integer(config, "context_length"),
        _END_TOKEN,
        pool="argmax",
    )


def _trunk(config: Section, heads: int, activation: str) -> TowerSpec:
    width = fields.integer(config, "width")
    if not heads or width % heads:
        raise ValueError(f"field 'heads': {heads} does not divide width {width}")
    return TowerSpec(
        width=width,
        layers=fields.integer(config, "layers"),
        heads=heads,
        mlp_width=int(width * fields.number(config, "mlp_ratio")),
        activation=activation,
        norm_epsilon=_EPSILON,
    )


def _siglip(vision: Section, text: Section, embedding: int) -> EncoderSpec:
    _refuse(vision, {*_KNOWN_TIMM, "image_size"})
    _refuse(text, _KNOWN_TEXT)
    name = vision["timm_model_name"]
    sizes = next(
        (v for k, v in _TIMM_TRUNKS.items() if str(name).startswith(f"{k}_patch")), None
    )
    patch = str(name).partition("_patch")[2].partition("_")[0]
    if sizes is None or not patch.isdecimal() or "siglip" not in str(name):
        raise ValueError(
            f"field 'timm_model_name': {name!r} is not a SigLIP trunk of "
            f"{', '.join(_TIMM_TRUNKS)}"
        )
    expected = {"pool_type": "last", "no_causal_mask": True, "proj_bias": True}
    for field, value in expected.items():
        if text.get(field) != value:
            raise ValueError(
                f"field {field!r}: {text.get(field)!r}, expected {value!r}"
            )
    width, layers, heads, mlp_width = sizes
    size = fields.integer(vision, "image_size")
    text = _TEXT | text
    epsilon = fields.number(fields.section(text, "norm_kwargs"), "eps")
    # timm's and OpenCLIP's own; the same weights elsewhere are read with tanh
    trunk = _trunk(text, fields.integer(text, "heads"), "gelu")
    result = siglip(
        TowerSpec(width, layers, heads, mlp_width, "gelu", 1e-6),
        dataclasses.replace(trunk, norm_epsilon=epsilon),
        (size, size),
        int(patch),
        fields.integer(text, "vocab_size"),
        fields.integer(text, "context_length"),
    )
    if result.embedding != embedding:
        raise ValueError(f"field 'embed_dim': {embedding}, expected {result.embedding}")
    return result


def _refuse(config: Section, known: set[str]) -> None:
    other = {k for k, v in config.items() if k not in known and v not in (None, False)}
    if other:
        raise ValueError(
            f"fields {sorted(other)} choose an architecture that cannot be built; "
            f"known are {sorted(known)}"
        )


def layout(spec: EncoderSpec, tensors: Tensors) -> Layout:
    """Returns the layout; whether text stands apart is seen by the tensors' names."""
    at = "text." if any(name.startswith("text.") for name in tensors) else ""
    visual = spec.reader("visual")
    assert isinstance(visual, VisualSpec)
    text = {
        "text/tokens": Rule((f"{at}token_embedding.weight",)),
        "text/positions": Rule((f"{at}positional_embedding",)),
        **norm("text/final_norm", f"{at}ln_final."),
        **blocks("text", f"{at}transformer.resblocks.{{}}.", _BLOCK),
    }
    if spec.text.projection_bias:
        text["text/projection"] = Rule((f"{at}text_projection.weight",), TORCH_LINEAR)
        text["text/projection_bias"] = Rule((f"{at}text_projection.bias",))
    else:
        text["text/projection"] = Rule((f"{at}text_projection",))
    pictures = _timm(visual) if visual.pool == "attention" else _pictures(visual)
    return pictures | text | {"log_scale": Rule(("logit_scale",))}


def _pictures(visual: VisualSpec) -> Layout:
    return {
        "visual/patch": Rule(("visual.conv1.weight",), patch_form(visual)),
        "visual/class": Rule(("visual.class_embedding",)),
        "visual/positions": Rule(("visual.positional_embedding",)),
        "visual/projection": Rule(("visual.proj",)),
        **norm("visual/pre_norm", "visual.ln_pre."),
        **norm("visual/post_norm", "visual.ln_post."),
        **blocks("visual", "visual.transformer.resblocks.{}.", _BLOCK),
    }


def _timm(visual: VisualSpec) -> Layout:
    at, head = "visual.trunk.", "visual.trunk.attn_pool."
    kernels, biases = ((f"{head}q.{n}", f"{head}kv.{n}") for n in ("weight", "bias"))
    return {
        "visual/patch": Rule((f"{at}patch_embed.proj.weight",), patch_form(visual)),
        "visual/patch_bias": Rule((f"{at}patch_embed.proj.bias",)),
        "visual/positions": Rule((f"{at}pos_embed",), ONE_IN_FRONT),
        **norm("visual/post_norm", f"{at}norm."),
        **blocks("visual", f"{at}blocks.{{}}.", _TIMM_BLOCK),
        "visual/head/probe": Rule((f"{head}latent",), TWO_IN_FRONT),
        "visual/head/qkv/kernel": Rule(kernels, TORCH_LINEAR, (1, 2)),
        "visual/head/qkv/bias": Rule(biases, SAME, (1, 2)),
        **linear("visual/head/out", f"{head}proj."),
        **norm("visual/head/norm", f"{head}norm."),
        **linear("visual/head/mlp_in", f"{head}mlp.fc1."),
        **linear("visual/head/mlp_out", f"{head}mlp.fc2."),
    }


def pixels(config: Section) -> tuple[Pixels, Literal["crop", "squash"]]:
    """Returns mean and deviation of pictures, and how they become a square.

    Raises:
        ValueError: a field is missing, or asks for what would not be done.
    """
    chosen = fields.section(config, "preprocess_cfg")
    mode = chosen.get("resize_mode", "shortest")
    interpolation = chosen.get("interpolation", "bicubic")
    if mode not in ("shortest", "squash") or interpolation != "bicubic":
        raise ValueError(
            f"fields 'resize_mode' and 'interpolation': {mode!r} and "
            f"{interpolation!r}; expected 'shortest' or 'squash', and 'bicubic'"
        )
    both = fields.channels(chosen, "mean"), fields.channels(chosen, "std")
    return both, "crop" if mode == "shortest" else "squash"


def without_module(tensors: Tensors) -> Tensors:
    """Returns tensors without the `module.` that data-parallel training leaves."""
    if not all(name.startswith("module.") for name in tensors):
        return tensors
    return Renamed(tensors, "module.")


class Renamed(Mapping[str, np.ndarray]):
    """Tensors without what stands in front of all their names."""

    def __init__(self, tensors: Tensors, prefix: str) -> None:
        """Keeps the tensors."""
        self._tensors, self._prefix = tensors, prefix

    def __iter__(self) -> Iterator[str]:
        """Yields the shorter names."""
        return (name.removeprefix(self._prefix) for name in self._tensors)

    def __len__(self) -> int:
        """Returns the number of tensors."""
        return len(self._tensors)

    def __contains__(self, name: object) -> bool:
        """Returns whether there is a tensor of that name; reads nothing."""
        return f"{self._prefix}{name}" in self._tensors

    def __getitem__(self, name: str) -> np.ndarray:
        """Returns a tensor."""
        return self._tensors[self._prefix + name]
