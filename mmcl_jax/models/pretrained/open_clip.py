"""Encoders in the layout of OpenCLIP, with an `open_clip_config.json`."""

import dataclasses
import pathlib
import re
from collections.abc import Iterator, Mapping

import numpy as np

from mmcl_jax.errors import reading
from mmcl_jax.files import read_json
from mmcl_jax.models.pretrained import inputs, sections
from mmcl_jax.models.pretrained.family import EXPECTED, Checkpoint, Family, picture_side
from mmcl_jax.models.pretrained.inputs import Pictures
from mmcl_jax.models.pretrained.sections import Section
from mmcl_jax.models.pretrained.weight_layout import (
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
from mmcl_jax.models.specs import (
    EncoderSpec,
    TextSpec,
    TowerSpec,
    VisualSpec,
    siglip,
    two_towers,
)

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
_TEXT |= {"layers": 12, "mlp_ratio": 4.0, "proj_bias": False}
_TEXT |= {"norm_kwargs": None, "act_kwargs": None}
_VISION = {"layers": 12, "width": 768, "head_width": 64, "mlp_ratio": 4.0}
_VISION |= {"patch_size": 16, "image_size": 224, "norm_kwargs": None}
_VISION |= {"act_kwargs": None}
_END_TOKEN = 49407
_EPSILON = 1e-5
_TIMM_EPSILON = 1e-6

# Fields that do not change the result: those of training and of disabled choices.
_IDLE_MODEL = {"custom_text", "init_logit_scale", "init_logit_bias", "output_dict"}
_IDLE_VISION = {"patch_dropout", "attn_pooler_queries", "attn_pooler_heads"}
_IDLE_TIMM = {"timm_model_pretrained", "timm_drop", "timm_drop_path", "patch_dropout"}
_IDLE_TEXT = {"hf_tokenizer_name", "pad_id", "eos_id", "hf_proj_type"}
_IDLE_TEXT |= {"hf_pooler_type", "hf_model_pretrained"}
# Fields that select an architecture, with the only values that are supported.
_FIXED_VISION = {"pos_embed_type": "learnable", "pool_type": "tok"}
_FIXED_TIMM = {"timm_pool": "map", "timm_proj": "none"}
_CLIP_TEXT = {"pool_type": "argmax", "no_causal_mask": False, "proj_type": "linear"}
_SIGLIP_TEXT = {"pool_type": "last", "no_causal_mask": True, "proj_bias": True}
_SIGLIP_TEXT |= {"tokenizer_kwargs": {"clean": "canonicalize"}}

# SigLIP trunks of timm: width, layers, heads, width of the MLP.
_TIMM_TRUNKS = {
    "vit_base": (768, 12, 12, 3072),
    "vit_large": (1024, 24, 16, 4096),
    "vit_so400m": (1152, 27, 16, 4304),
}
_TIMM_NAME = re.compile(r"(\w+)_patch(\d+)_siglip_(\d+)", re.ASCII)
# Trunks with the approximate GELU in timm. Other layouts of the same weights use it
# for all trunks.
_TIMM_TANH = {"vit_base_patch32_siglip_256", "vit_large_patch16_siglip_512"}
_TIMM_TANH |= {f"vit_so400m_patch16_siglip_{size}" for size in (256, 384, 512)}


OPEN_CLIP_CONFIG = "open_clip_config.json"


def spec(config: Section) -> EncoderSpec:
    """Returns the shape of an encoder from `open_clip_config.json`.

    Raises:
        ValueError: A field is of another type or out of range, or selects an
            unsupported architecture; the message names it.
    """
    model = sections.section(config, "model_cfg")
    _refuse(model, {"embed_dim", "vision_cfg", "text_cfg", "quick_gelu", *_IDLE_MODEL})
    vision, text = (
        sections.section(model, "vision_cfg"),
        sections.section(model, "text_cfg"),
    )
    embedding = sections.integer(model, "embed_dim")
    quick = sections.switch({"quick_gelu": False} | model, "quick_gelu")
    if "timm_model_name" in vision:
        return _siglip(vision, text, embedding, quick)
    if isinstance(vision.get("layers"), list):
        raise ValueError(
            f"field 'layers': {vision['layers']!r} are those of a ResNet; only ViT "
            "towers are supported, for instance ViT-B-32"
        )
    _refuse(vision, {*_VISION, *_IDLE_VISION}, _FIXED_VISION)
    _refuse(text, {*_TEXT, *_IDLE_TEXT}, _CLIP_TEXT)
    vision = _VISION | vision
    size, patch = sections.picture(vision)
    width = sections.integer(vision, "width")
    heads = width // sections.integer(vision, "head_width")
    return two_towers(
        VisualSpec(_trunk(vision, heads, quick), (size, size), patch, patch),
        _text(_TEXT | text, quick),
        embedding,
    )


def _text(config: Section, quick_gelu: bool) -> TextSpec:
    return TextSpec(
        _trunk(config, sections.integer(config, "heads"), quick_gelu),
        sections.integer(config, "vocab_size"),
        sections.integer(config, "context_length"),
        _END_TOKEN,
        pool="argmax",
        projection_bias=sections.switch(config, "proj_bias"),
    )


def _trunk(config: Section, heads: int, quick_gelu: bool) -> TowerSpec:
    width = sections.integer(config, "width")
    if not heads or width % heads:
        raise ValueError(f"field 'heads': {heads} does not divide width {width}")
    return TowerSpec(
        width=width,
        layers=sections.integer(config, "layers"),
        heads=heads,
        mlp_width=int(width * sections.number(config, "mlp_ratio")),
        activation=_activation(config, quick_gelu),
        norm_epsilon=_epsilon(config),
    )


def _activation(config: Section, quick_gelu: bool) -> str:
    """Returns the activation of a tower; `act_kwargs` are arguments of its class."""
    chosen = config["act_kwargs"]
    if quick_gelu and chosen is None:
        return "quick_gelu"
    kinds = {"none": "gelu", "tanh": "gelu_tanh"}
    given = {"approximate": "none"} | (chosen if isinstance(chosen, dict) else {})
    kind = given.pop("approximate")
    if quick_gelu or given or kind not in kinds or not isinstance(chosen, dict | None):
        raise ValueError(
            f"field 'act_kwargs': {chosen!r}; expected 'approximate' of {list(kinds)} "
            "and nothing else, without quick_gelu"
        )
    return kinds[kind]


def _epsilon(config: Section) -> float:
    """Returns the epsilon of a tower; `norm_kwargs` are arguments of its norms."""
    chosen = config["norm_kwargs"]
    if chosen in (None, {}):
        return _EPSILON
    if not isinstance(chosen, dict) or [*chosen] != ["eps"]:
        raise ValueError(
            f"field 'norm_kwargs': {chosen!r}; expected 'eps' and nothing else"
        )
    return sections.number(chosen, "eps")


def _siglip(
    vision: Section, text: Section, embedding: int, quick_gelu: bool
) -> EncoderSpec:
    name = vision["timm_model_name"]
    match = _TIMM_NAME.fullmatch(str(name))
    if match is None or match[1] not in _TIMM_TRUNKS:
        raise ValueError(
            f"field 'timm_model_name': {name!r} is not a SigLIP trunk of "
            f"{', '.join(_TIMM_TRUNKS)}; of other towers only the ViT of OpenCLIP is "
            "supported"
        )
    known = {"timm_model_name", "image_size", *_IDLE_TIMM}
    _refuse(_FIXED_TIMM | vision, known, _FIXED_TIMM)
    # The default of each field is another one, so a field left out is refused too.
    _refuse(dict.fromkeys(_SIGLIP_TEXT) | text, {*_TEXT, *_IDLE_TEXT}, _SIGLIP_TEXT)
    width, layers, heads, mlp_width = _TIMM_TRUNKS[match[1]]
    act = "gelu_tanh" if name in _TIMM_TANH else "gelu"
    size = sections.integer(vision, "image_size")
    text = _TEXT | text
    result = siglip(
        TowerSpec(width, layers, heads, mlp_width, act, _TIMM_EPSILON),
        _trunk(text, sections.integer(text, "heads"), quick_gelu),
        (size, size),
        int(match[2]),
        sections.integer(text, "vocab_size"),
        sections.integer(text, "context_length"),
    )
    if result.embedding != embedding:
        raise ValueError(f"field 'embed_dim': {embedding}, expected {result.embedding}")
    return result


def _refuse(config: Section, known: set[str], fixed: Section | None = None) -> None:
    """Raises `ValueError` for a field that selects an unsupported architecture.

    Args:
        config: A block of fields.
        known: Fields that are read, or that the result does not depend on.
        fixed: The only supported value of some other fields.
    """
    fixed = fixed or {}
    for field in sorted(config.keys() & fixed.keys()):
        if config[field] != fixed[field]:
            raise ValueError(
                f"field {field!r}: {config[field]!r}, expected {fixed[field]!r}"
            )
    known = known | fixed.keys()
    other = {k for k, v in config.items() if k not in known and v not in (None, False)}
    if other:
        raise ValueError(
            f"fields {sorted(other)} select an unsupported architecture; known fields "
            f"are {sorted(known)}"
        )


def layout(spec: EncoderSpec, tensors: Tensors) -> Layout:
    """Returns the layout; the tensors' names show if text has a prefix of its own."""
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


def pictures(config: Section, image_size: int) -> Pictures:
    """Returns how pictures are prepared.

    Raises:
        ValueError: A field is missing, or asks for unsupported preprocessing.
    """
    chosen = sections.section(config, "preprocess_cfg")
    known = {"mean", "std", "resize_mode", "interpolation", "size", "fill_color"}
    _refuse(chosen, known, {"mode": "RGB"})
    if "size" in chosen and chosen["size"] not in (image_size, [image_size] * 2):
        raise ValueError(
            f"field 'size': {chosen['size']!r}; the encoder reads {image_size} pixels"
        )
    mode = chosen.get("resize_mode", "shortest")
    interpolation = chosen.get("interpolation", "bicubic")
    known_filter = interpolation in ("bicubic", "bilinear")
    if mode not in ("shortest", "squash") or not known_filter:
        raise ValueError(
            f"fields 'resize_mode' and 'interpolation': {mode!r} and "
            f"{interpolation!r}; expected 'shortest' or 'squash', and 'bicubic' or "
            "'bilinear'"
        )
    both = sections.channels(chosen, "mean"), sections.channels(chosen, "std")
    return Pictures(both, "crop" if mode == "shortest" else "squash", interpolation)


def without_module(tensors: Tensors) -> Tensors:
    """Returns tensors without the prefix `module.` of data-parallel training."""
    if not all(name.startswith("module.") for name in tensors):
        return tensors
    return Renamed(tensors, "module.")


class Renamed(Mapping[str, np.ndarray]):
    """Tensors under their names without a common prefix."""

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


def _recognizes(weights: pathlib.Path, tensors: Tensors) -> bool:
    # many repositories hold both layouts, and a config of each
    is_transformers = any(name.startswith("vision_model.") for name in tensors)
    return (weights.parent / OPEN_CLIP_CONFIG).exists() and not is_transformers


def _open(weights: pathlib.Path, tensors: Tensors) -> Checkpoint:
    folder = weights.parent
    path = folder / OPEN_CLIP_CONFIG
    config = read_json(path, EXPECTED)
    with reading(str(path), EXPECTED):
        shape = spec(config)
        size = picture_side(shape)
        prepared = pictures(config, size)
        if shape.text.pool == "last":
            # OpenCLIP drops punctuation for SigLIP 2 as well: field 'clean'.
            tokenizer = dataclasses.replace(
                inputs.siglip_tokenizer(folder, shape.text), cleaning="siglip"
            )
        else:
            tokenizer = inputs.clip_tokenizer(folder)
        fed = inputs.drawn(size, shape.text, tokenizer, prepared)
    stripped = without_module(tensors)
    return Checkpoint(
        "open_clip",
        shape,
        fed,
        layout(shape, stripped),
        stripped,
        weights,
        UNUSED,
        (path, pathlib.Path(tokenizer.path), weights),
    )


FAMILY = Family(_recognizes, _open)
