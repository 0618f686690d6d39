"""ImageBind: towers of several modalities in one state dictionary.

Its weights are licensed CC-BY-NC-SA 4.0, not for commercial use.
"""

import pathlib
from typing import Any

from mmcl_jax.errors import DataError, reading
from mmcl_jax.files import read_json
from mmcl_jax.modalities.base import InputSpec, TokenizerSpec
from mmcl_jax.models.pretrained import inputs as fed_by
from mmcl_jax.models.pretrained import sections
from mmcl_jax.models.pretrained.family import CONFIG, EXPECTED, Checkpoint, Family
from mmcl_jax.models.pretrained.inputs import CLIP_MEAN, CLIP_STD
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
    norm,
    patch_form,
)
from mmcl_jax.models.specs import EncoderSpec, TextSpec, TowerSpec, VisualSpec

LICENSE = "ImageBind: CC-BY-NC-SA 4.0, not for commercial use"
UNUSED = ("*.thermal.*", "*.imu.*", "*.text.mask", "*.text.tokenizer*")
UNUSED += ("modality_postprocessors.*",)

_BLOCK = BlockNames(
    norm1="norm_1.",
    norm2="norm_2.",
    qkv=("attn.in_proj_",),
    out="attn.out_proj.",
    mlp_in="mlp.fc1.",
    mlp_out="mlp.fc2.",
)
# No tensor has a shape that depends on these.
HEADS = {"vision": 16, "text": 16, "audio": 12, "depth": 8}
_STRIDES = {"audio": 10}
_SIZES = {"vision": (224, 224), "audio": (128, 204), "depth": (224, 224)}
_EPSILON = 1e-6
_TOWERS = ("vision", "audio", "depth", "text")
_READERS = {"image": "vision", "video": "vision"} | {n: n for n in _TOWERS[1:]}
_END_TOKEN = 49407


def spec(
    tensors: Tensors,
    path: str,
    config: Section,
) -> EncoderSpec:
    """Returns the shape of an encoder, derived from the shapes of its tensors.

    Args:
        tensors: Tensors of the file.
        path: Path of the file, for messages.
        config: Values that no tensor shows, if they differ from the published file:
            `heads` and `sizes` (height, width) by tower.

    Raises:
        DataError: Required tensors are missing.
    """
    heads = HEADS | sections.section({"heads": {}} | config, "heads")
    sizes = _SIZES | {
        name: _sides(size)
        for name, size in sections.section({"sizes": {}} | config, "sizes").items()
    }
    try:
        words = tensors["modality_preprocessors.text.token_embedding.weight"].shape
        context = tensors["modality_preprocessors.text.pos_embed"].shape
        text = TextSpec(
            _trunk(tensors, "text", heads), words[0], context[1], _END_TOKEN,
            pool="argmax",
        )  # fmt: skip
        readers = [
            (name, _visual(tensors, name, heads, sizes)) for name in _TOWERS[:-1]
        ]
        width = tensors["modality_heads.text.proj.1.weight"].shape[0]
    except (KeyError, IndexError) as error:
        raise DataError(
            f"{path}: not an ImageBind encoder: {error} is missing or has another shape"
        ) from error
    towers = (*readers, ("text", text))
    return EncoderSpec(towers, tuple(_READERS.items()), width)


def _sides(value: Any) -> tuple[int, int]:
    if not isinstance(value, list) or len(value) != 2:
        raise ValueError(f"field 'sizes': {value!r} is not a height and a width")
    height, width = (sections.integer({"image_size": v}, "image_size") for v in value)
    return height, width


def _trunk(tensors: Tensors, name: str, heads: dict[str, int]) -> TowerSpec:
    at = f"modality_trunks.{name}.blocks."
    inner, width = tensors[f"{at}0.mlp.fc1.weight"].shape
    layers = {n.removeprefix(at).partition(".")[0] for n in tensors if n.startswith(at)}
    shape = {"hidden_size": width, "heads": heads[name]}
    return TowerSpec(
        sections.width(shape, "hidden_size", "heads"),
        len(layers),
        heads[name],
        inner,
        "gelu",
        _EPSILON,
        learned_key=f"{at}0.attn.bias_k" in tensors,
    )


def _visual(
    tensors: Tensors,
    name: str,
    heads: dict[str, int],
    sizes: dict[str, tuple[int, int]],
) -> VisualSpec:
    kernel = tensors[_patch(name)].shape
    return VisualSpec(
        _trunk(tensors, name, heads),
        sizes[name],
        kernel[-1],
        _STRIDES.get(name) or kernel[-1],
        channels=kernel[1],
        tube=kernel[2] if len(kernel) == 5 else 1,
        patch_norm=f"{_stem(name)}.norm_layer.weight" in tensors,
        pre_norm=f"modality_trunks.{name}.pre_transformer_layer.0.weight" in tensors,
        unit_frames=True,
    )


def _stem(name: str) -> str:
    stem = "depth_stem" if name == "depth" else "rgbt_stem"
    return f"modality_preprocessors.{name}.{stem}"


def _patch(name: str) -> str:
    # In the vision stem a first step makes a clip of a picture.
    return f"{_stem(name)}.proj{'.1' if name == 'vision' else ''}.weight"


def inputs(spec: EncoderSpec, tokenizer: TokenizerSpec) -> InputSpec:
    """Returns the input of an encoder, with the constants of ImageBind's transforms."""
    audio, vision = spec.reader("audio"), spec.reader("vision")
    assert isinstance(audio, VisualSpec) and isinstance(vision, VisualSpec)
    return InputSpec(
        image_size=vision.image_size[0],
        frames=vision.tube,
        mean=CLIP_MEAN,
        std=CLIP_STD,
        sample_rate=16000,
        audio_seconds=2.0,
        audio_mean=-4.268,
        audio_std=9.138,
        max_depth=50.0,
        context_length=spec.text.context_length,
        tokenizer=tokenizer,
        style="imagebind",
        mel_bands=audio.image_size[0],
        mel_frames=audio.image_size[1],
    )


def layout(spec: EncoderSpec) -> Layout:
    """Returns the layout."""
    at = "modality_preprocessors.text."
    rules = {
        "text/tokens": Rule((f"{at}token_embedding.weight",)),
        "text/positions": Rule((f"{at}pos_embed",), ONE_IN_FRONT),
        **norm("text/final_norm", "modality_heads.text.proj.0."),
        **_blocks("text", spec),
        "text/projection": Rule(("modality_heads.text.proj.1.weight",), TORCH_LINEAR),
        "log_scale": Rule(("modality_postprocessors.text.1.log_logit_scale",)),
    }
    for name in _TOWERS[:-1]:
        rules |= _pictures(name, spec)
    return rules


def _pictures(name: str, spec: EncoderSpec) -> Layout:
    visual, at = spec.reader(name), f"modality_preprocessors.{name}."
    assert isinstance(visual, VisualSpec)
    positions = f"{at}pos_embedding_helper.pos_embed"
    rules = {
        f"{name}/patch": Rule((_patch(name),), patch_form(visual)),
        f"{name}/class": Rule((f"{at}cls_token",), TWO_IN_FRONT),
        f"{name}/positions": Rule((positions,), ONE_IN_FRONT),
        **norm(f"{name}/post_norm", f"modality_heads.{name}.0."),
        **_blocks(name, spec),
        f"{name}/projection": Rule((f"modality_heads.{name}.2.weight",), TORCH_LINEAR),
    }
    if visual.patch_norm:
        rules |= norm(f"{name}/patch_norm", f"{_stem(name)}.norm_layer.")
    if visual.pre_norm:
        before = f"modality_trunks.{name}.pre_transformer_layer.0."
        rules |= norm(f"{name}/pre_norm", before)
    return rules


def _blocks(name: str, spec: EncoderSpec) -> Layout:
    at = f"modality_trunks.{name}.blocks.{{}}."
    rules = blocks(name, at, _BLOCK)
    if spec.tower(name).learned_key:
        for ours, theirs in (("learned_key", "bias_k"), ("learned_value", "bias_v")):
            name_of = (f"{at}attn.{theirs}",)
            rules[f"{name}/blocks/{ours}"] = Rule(name_of, TWO_IN_FRONT)
    return rules


def _recognizes(weights: pathlib.Path, tensors: Tensors) -> bool:
    del weights
    return "modality_trunks.vision.blocks.0.norm_1.weight" in tensors


def _open(weights: pathlib.Path, tensors: Tensors) -> Checkpoint:
    folder = weights.parent
    path = folder / CONFIG
    config = read_json(path, EXPECTED) if path.exists() else {}
    with reading(str(path if config else weights), EXPECTED):
        shape = spec(tensors, str(weights), config)
    tokenizer = fed_by.clip_tokenizer(folder)
    fed = inputs(shape, tokenizer)
    files = (pathlib.Path(tokenizer.path), weights)
    return Checkpoint(
        "imagebind",
        shape,
        fed,
        layout(shape),
        tensors,
        weights,
        UNUSED,
        (path, *files) if config else files,
        (LICENSE,),
    )


FAMILY = Family(_recognizes, _open)
