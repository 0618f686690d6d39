"""The input of an encoder, read from the files that come with it."""

import pathlib
from typing import Any, Literal

from mmcl_jax.errors import DataError, reading
from mmcl_jax.files import read_json
from mmcl_jax.modalities.base import InputSpec, TokenizerSpec
from mmcl_jax.modalities.tokenization import find_tokenizer, load_tokenizer
from mmcl_jax.models.pretrained import sections
from mmcl_jax.models.pretrained.sections import Section
from mmcl_jax.models.specs import TextSpec

Pixels = tuple[tuple[float, float, float], tuple[float, float, float]]

# How clips, sounds and depth are rendered for encoders that read only pictures.
_DRAWN: Section = {
    "frames": 8,
    "sample_rate": 16000,
    "audio_seconds": 10.0,
    "audio_mean": -4.2677393,
    "audio_std": 9.1379948,
    "max_depth": 10.0,
}
_LIMITS = {"max_pixels", "max_seconds"}
_BICUBIC = 3
PROCESSOR = "preprocessor_config.json"


# Constants of CLIP's transforms.
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


def drawn(
    image_size: int,
    text: TextSpec,
    tokenizer: TokenizerSpec,
    pixels: Pixels,
    resize: Literal["crop", "squash"] = "crop",
    block: Section | None = None,
    **changes: Any,
) -> InputSpec:
    """Returns the input of an encoder that reads everything but text as pictures.

    Args:
        image_size: Side of a picture, pixels.
        text: Shape of the text tower.
        tokenizer: Tokenizer of the text tower.
        pixels: Mean and standard deviation of each channel.
        resize: How a picture becomes a square.
        block: Block `preprocessing` of the encoder's `config.json`, if there is one.
        changes: Further fields of `InputSpec`.

    Raises:
        ValueError: A field of the block is unknown, of another type or out of range.
    """
    block = block or {}
    if unknown := block.keys() - _DRAWN.keys() - _LIMITS - {"mean", "std"}:
        raise ValueError(f"block 'preprocessing': unknown fields {sorted(unknown)}")
    values = _DRAWN | block
    limits: dict[str, Any] = {}
    if "max_pixels" in values:
        limits["max_pixels"] = sections.integer(values, "max_pixels")
    if "max_seconds" in values:
        limits["max_seconds"] = sections.number(values, "max_seconds")
    return InputSpec(
        image_size=image_size,
        frames=sections.integer(values, "frames"),
        mean=pixels[0],
        std=pixels[1],
        sample_rate=sections.integer(values, "sample_rate"),
        audio_seconds=sections.number(values, "audio_seconds"),
        audio_mean=sections.number(values, "audio_mean"),
        audio_std=sections.number(values, "audio_std"),
        max_depth=sections.number(values, "max_depth"),
        context_length=text.context_length,
        tokenizer=tokenizer,
        resize=resize,
        **limits,
        **changes,
    )


def processor(
    folder: pathlib.Path, image_size: int
) -> tuple[Pixels, Literal["crop", "squash"]]:
    """Reads `preprocessor_config.json`: mean, deviation, and how to make a square.

    Raises:
        DataError: The file is missing, or asks for unsupported preprocessing.
    """
    path = folder / PROCESSOR
    expected = (
        "the preprocessing of pictures, for instance "
        '{"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5], '
        f'"size": {{"shortest_edge": {image_size}}}}}'
    )
    config = read_json(path, expected)
    with reading(str(path), expected):
        pixels = (
            sections.channels(config, "image_mean"),
            sections.channels(config, "image_std"),
        )
        size = config.get("size")
        if not isinstance(size, (int, dict)):
            raise ValueError(f"field 'size': {size!r} is neither a number nor a block")
        crops = isinstance(size, int) or (
            isinstance(size, dict) and "shortest_edge" in size
        )
        sides = [size] if isinstance(size, int) else list(size.values())
        if any(side != image_size for side in sides) or not sides:
            raise ValueError(
                f"field 'size': {size!r}; the encoder reads {image_size} pixels"
            )
        _check_steps(config, image_size if crops else None)
        if config.get("resample", _BICUBIC) != _BICUBIC:
            raise ValueError(
                f"field 'resample': {config['resample']!r}; expected 3, bicubic"
            )
        return pixels, "crop" if crops else "squash"


def _check_steps(config: Section, cropped: int | None) -> None:
    """Raises `ValueError` for steps that differ from `modalities.image`."""
    steps = ["do_resize", "do_rescale", "do_normalize"]
    for step in [*steps, "do_center_crop"] if cropped else steps:
        if config.get(step, True) is not True:
            raise ValueError(f"field {step!r}: {config[step]!r}; expected true")
    factor = config.get("rescale_factor", 1 / 255)
    if not isinstance(factor, float) or abs(255 * factor - 1) > 1e-3:
        raise ValueError(f"field 'rescale_factor': {factor!r}; expected 1/255")
    crop = config.get("crop_size", cropped)
    sides = crop.values() if isinstance(crop, dict) else [crop]
    if cropped and any(side != cropped for side in sides):
        raise ValueError(f"field 'crop_size': {crop!r}; expected {cropped}")


def clip_tokenizer(folder: pathlib.Path) -> TokenizerSpec:
    """Returns the tokenizer of a CLIP encoder's folder."""
    end = "<|endoftext|>"
    return TokenizerSpec(find_tokenizer(folder), "<|startoftext|>", end, end, "clip")


def siglip_tokenizer(folder: pathlib.Path) -> TokenizerSpec:
    """Returns the tokenizer of a SigLIP encoder's folder; the end token pads."""
    return TokenizerSpec(find_tokenizer(folder), None, "</s>", "</s>", "siglip")


def own_tokenizer(folder: pathlib.Path) -> TokenizerSpec:
    """Returns the tokenizer of an encoder that this package has trained."""
    return TokenizerSpec(str(folder / "tokenizer.json"))


def check_tokenizer(tokenizer: TokenizerSpec, text: TextSpec) -> None:
    """Raises `DataError` if a tokenizer's ids are not those of the text tower."""
    loaded = load_tokenizer(tokenizer)
    # On a device an id out of range is no error: it selects another word's weights.
    if loaded.highest >= text.vocabulary:
        raise DataError(
            f"{tokenizer.path}: ids up to {loaded.highest}; the encoder's vocab_size "
            f"is {text.vocabulary}"
        )
    highest = loaded.highest if text.pool == "argmax" else text.end_token
    if loaded.end != highest:
        raise DataError(
            f"{tokenizer.path}: the end token has id {loaded.end}, but the encoder "
            f"expects {highest}; give the encoder's own tokenizer"
        )
