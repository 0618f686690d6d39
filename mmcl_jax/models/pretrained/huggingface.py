"""Encoders in the layout of Hugging Face's `CLIPModel` and `SiglipModel`."""

import pathlib
import re
from typing import Literal

from mmcl_jax.errors import reading
from mmcl_jax.files import read_json
from mmcl_jax.models.pretrained import inputs, sections
from mmcl_jax.models.pretrained.family import (
    CONFIG,
    EXPECTED,
    Checkpoint,
    Family,
    picture_side,
)
from mmcl_jax.models.pretrained.sections import Section
from mmcl_jax.models.pretrained.weight_layout import (
    ONE_IN_FRONT,
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
    stem,
)
from mmcl_jax.models.specs import (
    EncoderSpec,
    TextSpec,
    VisualSpec,
    siglip,
    two_towers,
)

BLOCK = BlockNames(
    norm1="layer_norm1.",
    norm2="layer_norm2.",
    qkv=("self_attn.q_proj.", "self_attn.k_proj.", "self_attn.v_proj."),
    out="self_attn.out_proj.",
    mlp_in="mlp.fc1.",
    mlp_out="mlp.fc2.",
)
# Buffers of older files, and a bias that only the loss of pre-training uses.
UNUSED = ("*embeddings.position_ids", "logit_bias")

# Defaults of the library's classes for fields that a file leaves out.
_TRUNK = {"num_hidden_layers": 12, "intermediate_size": 3072, "hidden_size": 768}
_CLIP_TRUNK = {"hidden_act": "quick_gelu", "layer_norm_eps": 1e-5}
_SIGLIP_TRUNK = {"hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6}
_VISION = _TRUNK | {"num_attention_heads": 12, "image_size": 224, "num_channels": 3}
CLIP_VISION = _VISION | _CLIP_TRUNK | {"patch_size": 32}
CLIP_TEXT = {
    **_CLIP_TRUNK,
    "vocab_size": 49408,
    "hidden_size": 512,
    "intermediate_size": 2048,
    "num_hidden_layers": 12,
    "num_attention_heads": 8,
    "max_position_embeddings": 77,
    "eos_token_id": 49407,
}
SIGLIP_VISION = _VISION | _SIGLIP_TRUNK | {"patch_size": 16}
SIGLIP_TEXT = {
    **_TRUNK,
    **_SIGLIP_TRUNK,
    "num_attention_heads": 12,
    "vocab_size": 32000,
    "max_position_embeddings": 64,
    "eos_token_id": 49407,
}
_TOWER = re.compile(r"(clip|siglip2?)_(vision|text)_model(_with_projection)?")
# In the first configs of OpenAI, whose weights end sentences with the highest id.
_WRONG_END_TOKEN = 2


def clip_spec(config: Section) -> EncoderSpec:
    """Returns the shape of an encoder from the `config.json` of a `CLIPModel`.

    Raises:
        ValueError: A field is of another type or out of range; the message names it.
    """
    vision = clip_block(config, "vision_config", CLIP_VISION)
    text = clip_block(config, "text_config", CLIP_TEXT)
    width = sections.integer({"projection_dim": 512} | config, "projection_dim")
    return two_towers(clip_visual(vision), clip_text(text), width)


def clip_block(config: Section, name: str, defaults: Section) -> Section:
    """Returns a block of a CLIP config with all fields.

    Configs of 2022 repeat the block under its name with the suffix `_dict`. As in
    transformers that block takes precedence, and so do the defaults of the fields that
    it leaves out.
    """
    older = f"{name}_dict"
    if config.get(older) is None:
        return defaults | sections.section(config, name)
    own = {} if config.get(name) is None else sections.section(config, name)
    return own | defaults | sections.section(config, older)


def clip_visual(config: Section) -> VisualSpec:
    """Returns the visual tower of a `vision_config` that has all fields."""
    size, patch = sections.picture(config)
    channels = sections.integer(config, "num_channels")
    sides, shape = (size, size), sections.trunk(config)
    if "stem" not in config:
        return VisualSpec(shape, sides, patch, patch, channels)
    stride = sections.integer(config, "patch_stride")
    stem = sections.stem(config, (patch, stride))
    return VisualSpec(shape, sides, patch, stride, channels, stem=stem)


def clip_text(config: Section) -> TextSpec:
    """Returns the text tower of a `text_config` that has all fields."""
    vocabulary = sections.integer(config, "vocab_size")
    end = sections.token(config, "eos_token_id", vocabulary)
    return TextSpec(
        sections.trunk(config),
        vocabulary,
        sections.integer(config, "max_position_embeddings"),
        end,
        pool="argmax" if end == _WRONG_END_TOKEN else "end",
    )


def siglip_spec(config: Section) -> EncoderSpec:
    """Returns the shape of an encoder from the `config.json` of a `SiglipModel`.

    Raises:
        ValueError: A field is of another type or out of range; the message names it.
    """
    vision = SIGLIP_VISION | sections.section(config, "vision_config")
    text = SIGLIP_TEXT | sections.section(config, "text_config")
    size, patch = sections.picture(vision)
    visual_trunk, text_trunk = sections.trunk(vision), sections.trunk(text)
    embedding = visual_trunk.width
    projected = sections.integer(
        {"projection_size": text_trunk.width} | text, "projection_size"
    )
    if projected != embedding:
        raise ValueError(
            f"field 'projection_size': {projected} is not the width of the visual "
            f"tower, {embedding}"
        )
    return siglip(
        visual_trunk,
        text_trunk,
        (size, size),
        patch,
        sections.integer(text, "vocab_size"),
        sections.integer(text, "max_position_embeddings"),
    )


def clip_layout(spec: EncoderSpec) -> Layout:
    """Returns the layout of a `CLIPModel`."""
    return (
        clip_visual_layout("visual", spec)
        | clip_text_layout("text")
        | {"log_scale": Rule(("logit_scale",))}
    )


def clip_visual_layout(ours: str, spec: EncoderSpec) -> Layout:
    """Returns the layout of the tower of a `CLIPVisionModelWithProjection`."""
    reader, at = spec.reader(ours), "vision_model.embeddings."
    assert isinstance(reader, VisualSpec)
    return {
        f"{ours}/patch": Rule((f"{at}patch_embedding.weight",), patch_form(reader)),
        **stem(f"{ours}/stem", "vision_model.stem.", reader.stem),
        f"{ours}/class": Rule((f"{at}class_embedding",)),
        f"{ours}/positions": Rule((f"{at}position_embedding.weight",)),
        f"{ours}/projection": Rule(("visual_projection.weight",), TORCH_LINEAR),
        # Spelt like this in the published files.
        **norm(f"{ours}/pre_norm", "vision_model.pre_layrnorm."),
        **norm(f"{ours}/post_norm", "vision_model.post_layernorm."),
        **blocks(ours, "vision_model.encoder.layers.{}.", BLOCK),
    }


def clip_text_layout(ours: str) -> Layout:
    """Returns the layout of the tower of a `CLIPTextModelWithProjection`."""
    return {
        **_sentences(ours),
        f"{ours}/projection": Rule(("text_projection.weight",), TORCH_LINEAR),
    }


def siglip_layout(spec: EncoderSpec) -> Layout:
    """Returns the layout of a `SiglipModel`."""
    visual = spec.reader("visual")
    assert isinstance(visual, VisualSpec)
    at, head = "vision_model.embeddings.", "vision_model.head."
    positions = f"{at}position_embedding.weight"
    return {
        "visual/patch": Rule((f"{at}patch_embedding.weight",), patch_form(visual)),
        "visual/patch_bias": Rule((f"{at}patch_embedding.bias",)),
        "visual/positions": Rule((positions,)),
        **norm("visual/post_norm", "vision_model.post_layernorm."),
        **blocks("visual", "vision_model.encoder.layers.{}.", BLOCK),
        "visual/head/probe": Rule((f"{head}probe",), TWO_IN_FRONT),
        **linear("visual/head/qkv", f"{head}attention.in_proj_"),
        **linear("visual/head/out", f"{head}attention.out_proj."),
        **norm("visual/head/norm", f"{head}layernorm."),
        **linear("visual/head/mlp_in", f"{head}mlp.fc1."),
        **linear("visual/head/mlp_out", f"{head}mlp.fc2."),
        **_sentences("text"),
        "text/projection": Rule(("text_model.head.weight",), TORCH_LINEAR),
        "text/projection_bias": Rule(("text_model.head.bias",)),
        "log_scale": Rule(("logit_scale",), ONE_IN_FRONT),
    }


def _sentences(ours: str) -> Layout:
    at = "text_model.embeddings."
    return {
        f"{ours}/tokens": Rule((f"{at}token_embedding.weight",)),
        f"{ours}/positions": Rule((f"{at}position_embedding.weight",)),
        **norm(f"{ours}/final_norm", "text_model.final_layer_norm."),
        **blocks(ours, "text_model.encoder.layers.{}.", BLOCK),
    }


def _recognizes(weights: pathlib.Path, tensors: Tensors) -> bool:
    del weights, tensors
    return True


def _supported(config: Section) -> Literal["clip", "siglip"]:
    """Returns the family of a config; raises `ValueError` for all others, by name."""
    kind = config.get("model_type")
    if kind in ("clip", "siglip") and "auto_map" in config:
        raise ValueError(
            f"field 'auto_map': {config['auto_map']!r}: a model with code of its own, "
            f"which is never run; give one of the architecture {kind!r} itself"
        )
    if kind in ("clip", "siglip"):
        return kind
    found = f"field 'model_type': {kind!r}"
    if isinstance(kind, str) and _TOWER.fullmatch(kind):
        raise ValueError(
            f"{found} is one tower. A single tower is not enough: samples and class "
            "names need both towers and the scale of the logits, which no file of a "
            "single tower has. Give the whole model that it was taken from"
        )
    if kind == "siglip2":
        raise ValueError(
            f"{found} is SigLIP 2 for pictures of any shape (NaFlex), which is not "
            "supported; give a checkpoint of one resolution, for instance "
            "google/siglip2-base-patch16-224"
        )
    raise ValueError(
        f"{found} is not supported; supported are 'clip' (also MetaCLIP and others of "
        "its architecture), 'siglip' (also SigLIP 2 of one resolution) and "
        "LanguageBind of image, video, audio and depth"
    )


def _open(weights: pathlib.Path, tensors: Tensors) -> Checkpoint:
    folder = weights.parent
    path = folder / CONFIG
    config = read_json(path, EXPECTED)
    with reading(str(path), EXPECTED):
        kind = _supported(config)
        own = config.get("preprocessing")
        build = clip_spec if kind == "clip" else siglip_spec
        spec = build(config)
        size = picture_side(spec)
        if own is not None:
            block = sections.section(config, "preprocessing")
            pixels = sections.channels(block, "mean"), sections.channels(block, "std")
            tokenizer, pictures = inputs.own_tokenizer(folder), inputs.Pictures(pixels)
            processors = ()
        else:
            block = None
            if kind == "clip":
                tokenizer, usual = inputs.clip_tokenizer(folder), inputs.CLIP
            else:
                tokenizer = inputs.siglip_tokenizer(folder, spec.text)
                usual = inputs.siglip(tokenizer)
            pictures, processors = inputs.processor(folder, size, usual)
        fed = inputs.drawn(size, spec.text, tokenizer, pictures, block)
    layout = {"clip": clip_layout, "siglip": siglip_layout}
    files = (path, *processors, pathlib.Path(tokenizer.path), weights)
    return Checkpoint(
        kind, spec, fed, layout[kind](spec), tensors, weights, UNUSED, files
    )


FAMILY = Family(_recognizes, _open)
