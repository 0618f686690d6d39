"""LanguageBind: a checkpoint for each modality, all with the same text tower."""

import dataclasses
import pathlib
import re
from collections.abc import Iterator, Mapping

import numpy as np

from mmcl_jax.errors import DataError, reading
from mmcl_jax.files import read_json
from mmcl_jax.modalities.base import InputSpec, TokenizerSpec
from mmcl_jax.models.pretrained import huggingface, sections
from mmcl_jax.models.pretrained import inputs as fed_by
from mmcl_jax.models.pretrained.family import CONFIG, EXPECTED, Checkpoint, Family
from mmcl_jax.models.pretrained.inputs import CLIP_MEAN, CLIP_STD
from mmcl_jax.models.pretrained.sections import Section
from mmcl_jax.models.pretrained.weight_layout import (
    ONE_IN_FRONT,
    Layout,
    Rule,
    Tensors,
    linear,
    norm,
    patch_form,
)
from mmcl_jax.models.specs import EncoderSpec, VisualSpec

UNUSED = huggingface.UNUSED
MODALITIES = ("image", "video", "audio", "depth")

_DEFAULTS = huggingface.CLIP_VISION | {
    "add_time_attn": False,
    "num_frames": 1,
    "tube_size": 1,
    "num_mel_bins": 0,
    "target_length": 0,
    "lora_r": 0,
    "lora_alpha": 16,
    "audio_sample_rate": 16000,
    "audio_mean": -4.2677393,
    "audio_std": 4.5689974,
    "max_depth": 10.0,
}
_LORA = re.compile(r"(.*)\.lora_([AB])\.default\.weight")
_PEFT = "encoder.base_model.model."


def modality_of(config: Section) -> str | None:
    """Returns the modality of a checkpoint's visual tower, from its `model_type`."""
    name = str(config.get("model_type", "")).lower()
    if not name.startswith("languagebind"):
        return None
    return next((m for m in MODALITIES if m in name), None)


def spec(config: Section, modality: str, tensors: Tensors) -> EncoderSpec:
    """Returns the shape of the towers of one checkpoint.

    Args:
        config: Contents of its `config.json`.
        modality: Modality of its visual tower.
        tensors: Tensors, whose shapes give the number of frames of a patch.

    Raises:
        ValueError: A field is of another type or out of range; the message names it.
    """
    vision = huggingface.clip_block(config, "vision_config", _DEFAULTS)
    text = huggingface.clip_block(config, "text_config", huggingface.CLIP_TEXT)
    trunk, (size, patch) = sections.trunk(vision), sections.picture(vision)
    sides = (size, size)
    if modality == "audio":
        sides = (
            sections.integer(vision, "num_mel_bins"),
            sections.integer(vision, "target_length"),
        )
    tube, classes = 1, 1
    frames = sections.integer(vision, "num_frames")
    kernel = tensors["vision_model.embeddings.patch_embedding.weight"].shape
    if len(kernel) == 5:
        tube, frames = kernel[2], frames // kernel[2]
        shape = tensors["vision_model.embeddings.class_embedding"].shape
        classes = shape[0] if len(shape) == 2 else 1
    if not sections.switch(vision, "add_time_attn"):
        frames = 1
    visual = VisualSpec(
        dataclasses.replace(trunk, frames=frames),
        sides,
        patch,
        patch,
        tube=tube,
        class_frames=classes,
    )
    # The code of this family has only this rule.
    sentences = dataclasses.replace(huggingface.clip_text(text), pool="argmax")
    return EncoderSpec(
        ((modality, visual), ("text", sentences)),
        ((modality, modality), ("text", "text")),
        sections.integer({"projection_dim": 512} | config, "projection_dim"),
    )


def layout(spec: EncoderSpec, modality: str, tensors: Tensors) -> Layout:
    """Returns the layout of one checkpoint."""
    visual = spec.reader(modality)
    assert isinstance(visual, VisualSpec)
    name = "vision_model.embeddings.patch_embedding.weight"
    deep = len(tensors[name].shape) == 5
    rules = huggingface.clip_visual_layout(modality, spec)
    rules[f"{modality}/patch"] = Rule((name,), patch_form(visual, tube=deep))
    if visual.trunk.frames > 1:
        ours, at = f"{modality}/blocks/over_frames", "vision_model.encoder.layers.{}."
        parts = (f"{at}temporal_attn.{n}_proj." for n in "qkv")
        rules |= {
            f"{ours}/embedding": Rule((f"{at}temporal_embedding",), ONE_IN_FRONT),
            **norm(f"{ours}/norm", f"{at}temporal_layer_norm1."),
            **linear(f"{ours}/qkv", *parts),
            **linear(f"{ours}/out", f"{at}temporal_attn.out_proj."),
        }
    text = huggingface.clip_text_layout("text")
    return rules | text | {"log_scale": Rule(("logit_scale",))}


class Folded(Mapping[str, np.ndarray]):
    """Tensors with their low-rank updates added, under their usual names.

    `W + lora_alpha / lora_r B A` is computed when a tensor is taken.

    References:
        Hu et al., LoRA: Low-Rank Adaptation of Large Language Models, 2021.
    """

    def __init__(self, tensors: Tensors, config: Section, path: str) -> None:
        """Keeps the tensors; raises `DataError` for updates without a rank."""
        vision = huggingface.clip_block(config, "vision_config", _DEFAULTS)
        self._tensors, self._path = tensors, path
        self._rank = sections.integer(vision, "lora_r")
        self._alpha = sections.number(vision, "lora_alpha")
        self._names = {
            name.replace(_PEFT, "encoder."): name
            for name in tensors
            if not _LORA.fullmatch(name)
        }
        self._updated = {
            match[1] for name in tensors if (match := _LORA.fullmatch(name))
        }
        if self._updated and not self._rank:
            raise DataError(f"{path}: low-rank updates, but the config's lora_r is 0")
        for name in self._updated:
            if f"{name}.weight" not in tensors:
                raise DataError(f"{path}: an update of {name}.weight, which is missing")

    def __iter__(self) -> Iterator[str]:
        """Yields the usual names."""
        return iter(self._names)

    def __len__(self) -> int:
        """Returns the number of tensors."""
        return len(self._names)

    def __contains__(self, name: object) -> bool:
        """Returns whether there is a tensor of that name; reads nothing."""
        return name in self._names

    def __getitem__(self, name: str) -> np.ndarray:
        """Returns a tensor, float32 where it was updated."""
        stored = self._names[name]
        tensor, base = self._tensors[stored], stored.removesuffix(".weight")
        if not stored.endswith(".weight") or base not in self._updated:
            return tensor
        down, up = (
            self._update(base, part, shape)
            for part, shape in (
                ("A", (self._rank, tensor.shape[1])),
                ("B", (tensor.shape[0], self._rank)),
            )
        )
        # In float32: half precision would round the small update away.
        return tensor.astype(np.float32) + self._alpha / self._rank * (up @ down)

    def _update(self, base: str, part: str, shape: tuple[int, int]) -> np.ndarray:
        name = f"{base}.lora_{part}.default.weight"
        if name not in self._tensors:
            raise DataError(f"{self._path}: tensor {name!r} is missing")
        update = self._tensors[name]
        if update.shape != shape:
            raise DataError(
                f"{self._path}: tensor {name!r} has shape {update.shape}, expected "
                f"{shape}"
            )
        return update.astype(np.float32)


def inputs(
    config: Section, modality: str, spec: EncoderSpec, tokenizer: TokenizerSpec
) -> InputSpec:
    """Returns the input of one checkpoint.

    Raises:
        ValueError: A field is of another type or out of range; the message names it.
    """
    vision = huggingface.clip_block(config, "vision_config", _DEFAULTS)
    visual = spec.reader(modality)
    assert isinstance(visual, VisualSpec)
    sound = {}
    if modality == "audio":
        sound = {
            "sample_rate": sections.integer(vision, "audio_sample_rate"),
            "audio_mean": sections.number(vision, "audio_mean"),
            "audio_std": sections.number(vision, "audio_std"),
            "mel_bands": visual.image_size[0],
            "mel_frames": visual.image_size[1],
        }
    values = {
        "image_size": visual.image_size[1],
        "frames": visual.tube * max(visual.trunk.frames, visual.class_frames),
        "mean": CLIP_MEAN,
        "std": CLIP_STD,
        "sample_rate": 16000,
        "audio_seconds": 10.0,
        "audio_mean": 0.0,
        "audio_std": 1.0,
        "max_depth": sections.number(vision, "max_depth"),
        "context_length": spec.text.context_length,
        "tokenizer": tokenizer,
        "style": "languagebind",
    }
    return InputSpec(**(values | sound))


def joined_inputs(fed: InputSpec, other: InputSpec, spec: EncoderSpec) -> InputSpec:
    """Returns `fed` with the fields of another checkpoint's modalities replaced."""
    names = {
        "audio": ("sample_rate", "audio_mean", "audio_std", "mel_bands", "mel_frames"),
        "video": ("frames", "image_size"),
        "image": ("image_size",),
        "depth": ("max_depth", "image_size"),
    }
    read = dict(spec.readers)
    taken = [field for m, own in names.items() if m in read for field in own]
    return dataclasses.replace(fed, **{name: getattr(other, name) for name in taken})


def _recognizes(weights: pathlib.Path, tensors: Tensors) -> bool:
    del tensors
    path = weights.parent / CONFIG
    if not path.exists():
        return False
    with reading(str(path), EXPECTED):
        return modality_of(read_json(path, EXPECTED)) is not None


def _open(weights: pathlib.Path, tensors: Tensors) -> Checkpoint:
    folder = weights.parent
    config = read_json(folder / CONFIG, EXPECTED)
    with reading(str(folder / CONFIG), EXPECTED):
        modality = modality_of(config)
        assert modality is not None  # `_recognizes` has asked
        folded = Folded(tensors, config, str(weights))
        shape = spec(config, modality, folded)
        fed = inputs(config, modality, shape, fed_by.clip_tokenizer(folder))
    return Checkpoint(
        "languagebind",
        shape,
        fed,
        layout(shape, modality, folded),
        folded,
        weights,
        UNUSED,
        (folder / CONFIG, pathlib.Path(fed.tokenizer.path), weights),
    )


FAMILY = Family(_recognizes, _open)
