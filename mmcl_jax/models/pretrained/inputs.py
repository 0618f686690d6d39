"""The input of an encoder, read from the files that come with it."""

import json
import pathlib
from typing import Any, NamedTuple

from mmcl_jax.errors import DataError, reading
from mmcl_jax.files import read_json
from mmcl_jax.modalities.base import InputSpec, Interpolation, Resize, TokenizerSpec
from mmcl_jax.modalities.tokenization import find_tokenizer, has_token, load_tokenizer
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
# By the numbers that Pillow gives them.
_FILTERS: dict[Any, Interpolation] = {2: "bilinear", 3: "bicubic"}
_BICUBIC = 3
_GEMMA = 256_000  # ids of its tokenizer
_SIDES = {"crop": ("shortest_edge",), "squash": ("height", "width")}
_NESTED, _BLOCK = "processor_config.json", "image_processor"
PROCESSORS = ("preprocessor_config.json", _NESTED)

# Constants of CLIP's transforms.
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


class Pictures(NamedTuple):
    """How pictures are prepared.

    Attributes:
        pixels: Mean and standard deviation of each channel.
        resize: How a picture becomes a square.
        interpolation: How it is scaled.
    """

    pixels: Pixels
    resize: Resize = "crop"
    interpolation: Interpolation = "bicubic"


CLIP = Pictures((CLIP_MEAN, CLIP_STD))
_HALF = (0.5, 0.5, 0.5)


def siglip(tokenizer: TokenizerSpec) -> Pictures:
    """Returns how most encoders of SigLIP, or of SigLIP 2, prepare pictures."""
    second = tokenizer.cleaning == "lower"
    return Pictures((_HALF, _HALF), "squash", "bilinear" if second else "bicubic")


def drawn(
    image_size: int,
    text: TextSpec,
    tokenizer: TokenizerSpec,
    pictures: Pictures,
    block: Section | None = None,
    **changes: Any,
) -> InputSpec:
    """Returns the input of an encoder that reads everything but text as pictures.

    Args:
        image_size: Side of a picture, pixels.
        text: Shape of the text tower.
        tokenizer: Tokenizer of the text tower.
        pictures: How pictures are prepared.
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
        mean=pictures.pixels[0],
        std=pictures.pixels[1],
        sample_rate=sections.integer(values, "sample_rate"),
        audio_seconds=sections.number(values, "audio_seconds"),
        audio_mean=sections.number(values, "audio_mean"),
        audio_std=sections.number(values, "audio_std"),
        max_depth=sections.number(values, "max_depth"),
        context_length=text.context_length,
        tokenizer=tokenizer,
        resize=pictures.resize,
        interpolation=pictures.interpolation,
        **limits,
        **changes,
    )


def processor(
    folder: pathlib.Path, image_size: int, usual: Pictures
) -> tuple[Pictures, tuple[pathlib.Path, ...]]:
    """Reads how pictures are prepared, from the files that transformers writes.

    Args:
        folder: Folder of the encoder. `preprocessor_config.json` has the fields itself,
            `processor_config.json` in its block `image_processor`.
        image_size: Side of a picture that the encoder reads, pixels.
        usual: What most encoders of the family have, which messages show.

    Returns:
        What was read, and the files that it was read from.

    Raises:
        DataError: No file has the fields, two files differ in them, or they ask for
            unsupported preprocessing.
    """
    expected = (
        f"the preprocessing of pictures, for instance {_example(usual, image_size)}"
    )
    found: dict[pathlib.Path, Pictures] = {}
    for name in PROCESSORS:
        path, block = folder / name, name == _NESTED
        if not path.is_file():
            continue
        config = read_json(path, expected)
        if block and _BLOCK not in config:
            continue  # older versions wrote it with the names of classes alone
        with reading(str(path), expected):
            fields = sections.section(config, _BLOCK) if block else config
            found[path] = _pictures(fields, image_size, usual)
    if not found:
        raise DataError(
            f"{folder}: neither {PROCESSORS[0]} nor a block {_BLOCK!r} of {_NESTED}; "
            f"copy the one of your encoder there; it holds {expected}"
        )
    if len(set(found.values())) > 1:
        both = "; ".join(f"{path.name} has {each}" for path, each in found.items())
        raise DataError(
            f"{folder}: two files differ in the preprocessing of pictures: {both}; "
            "remove the one that is not that of your encoder"
        )
    return next(iter(found.values())), tuple(found)


def _example(usual: Pictures, size: int) -> str:
    """Returns the content of a `preprocessor_config.json`."""
    numbers = {value: number for number, value in _FILTERS.items()}
    mean, deviation = usual.pixels
    fields = {"image_mean": mean, "image_std": deviation}
    fields |= {"size": dict.fromkeys(_SIDES[usual.resize], size)}
    return json.dumps(fields | {"resample": numbers[usual.interpolation]})


def _pictures(config: Section, image_size: int, usual: Pictures) -> Pictures:
    pixels = (
        sections.channels(config, "image_mean"),
        sections.channels(config, "image_std"),
    )
    size = config.get("size")
    if isinstance(size, int):  # of the short side, or of both, as the family has it
        size = dict.fromkeys(_SIDES[usual.resize], size)
    if not isinstance(size, dict):
        raise ValueError(f"field 'size': {size!r} is neither a number nor a block")
    crops = "shortest_edge" in size
    if any(side != image_size for side in size.values()) or not size:
        raise ValueError(
            f"field 'size': {config['size']!r}; the encoder reads {image_size} pixels"
        )
    _check_steps(config, image_size if crops else None)
    chosen = config.get("resample", _BICUBIC)
    if chosen not in _FILTERS:
        raise ValueError(
            f"field 'resample': {chosen!r}; expected 3, bicubic, or 2, bilinear"
        )
    return Pictures(pixels, "crop" if crops else "squash", _FILTERS[chosen])


def _check_steps(config: Section, cropped: int | None) -> None:
    """Raises `ValueError` for steps that differ from `modalities.image`."""
    steps = ["do_resize", "do_rescale", "do_normalize"]
    for step in [*steps, "do_center_crop"] if cropped else steps:
        if config.get(step, True) is not True:
            raise ValueError(f"field {step!r}: {config[step]!r}; expected true")
    if config.get("do_pad"):
        raise ValueError(f"field 'do_pad': {config['do_pad']!r}; expected false")
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


def siglip_tokenizer(folder: pathlib.Path, text: TextSpec) -> TokenizerSpec:
    """Returns the tokenizer of a SigLIP encoder's folder.

    That of SigLIP 2, which is Gemma's, is known by its end token.

    Raises:
        DataError: There is none, or that of SigLIP beside a tower of SigLIP 2, whose
            ids would be valid there but mean other words.
    """
    path = find_tokenizer(folder)
    if has_token(path, "<eos>"):
        return TokenizerSpec(path, None, "<eos>", "<pad>", "lower")
    if text.vocabulary >= _GEMMA:
        raise DataError(
            f"{path}: no token '<eos>', but the encoder, with {text.vocabulary} ids, "
            "is a SigLIP 2; give its own tokenizer.json, for instance that of "
            "google/siglip2-base-patch16-224"
        )
    return TokenizerSpec(path, None, "</s>", "</s>", "siglip")


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
