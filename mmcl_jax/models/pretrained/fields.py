"""What the `config.json` of an encoder says, checked field by field."""

from typing import Any

from mmcl_jax.modalities.base import InputSpec, TokenizerSpec
from mmcl_jax.models.dual import DualSpec
from mmcl_jax.models.tower import ACTIVATIONS, TowerSpec
from mmcl_jax.options import Range

Section = dict[str, Any]

_WIDTH = Range(1, 2**16)
_LAYERS = Range(1, 1024)
_PIXELS = Range(1, 4096)
_VOCABULARY = Range(3, 2**24)
_POSITIONS = Range(3, 2**16)
_EPSILON = Range(0, 1, is_open=True)
_FRAMES = Range(1, 1024)
_RATE = Range(1000, 192_000)
_SECONDS = Range(0.025, 120)  # a frame of the spectrogram at least
_ANY = Range(-1e6, 1e6)
_SCALE = Range(1e-6, 1e6)
_DEPTH = Range(0.1, 1e6)
_PREPROCESSING = {
    "frames",
    "mean",
    "std",
    "sample_rate",
    "audio_seconds",
    "audio_mean",
    "audio_std",
    "max_depth",
    "max_pixels",
    "max_seconds",
}
_MAX_PIXELS = Range(1, 2**32)
_MAX_SECONDS = Range(0, 1e6, is_open=True)


def read_spec(config: Section) -> DualSpec:
    """Returns the shape of both towers.

    Raises:
        ValueError: a field is missing, of another type or out of range; names it.
    """
    vision, text = section(config, "vision_config"), section(config, "text_config")
    image_size = _integer(vision, "image_size", _PIXELS)
    patch_size = _integer(vision, "patch_size", _PIXELS)
    if image_size % patch_size:
        raise ValueError(
            f"field 'patch_size': {patch_size} does not divide image_size {image_size}"
        )
    vocabulary = _integer(text, "vocab_size", _VOCABULARY)
    return DualSpec(
        visual=_tower(vision),
        text=_tower(text),
        embedding=_integer(config, "projection_dim", _WIDTH),
        image_size=image_size,
        patch_size=patch_size,
        vocabulary=vocabulary,
        context_length=_integer(text, "max_position_embeddings", _POSITIONS),
        end_token=_integer(text, "eos_token_id", Range(0, vocabulary - 1)),
    )


def read_inputs(config: Section, spec: DualSpec, tokenizer: str) -> InputSpec:
    """Returns what the encoder wants to be fed.

    Args:
        config: with a block `preprocessing`.
        spec: gives the sizes of picture and sentence.
        tokenizer: path of the `tokenizer.json`.

    Raises:
        ValueError: a field is unknown, missing, of another type or out of range.
    """
    block = section(config, "preprocessing")
    if unknown := block.keys() - _PREPROCESSING:
        raise ValueError(f"block 'preprocessing': unknown fields {sorted(unknown)}")
    limits = {}
    if "max_pixels" in block:
        limits["max_pixels"] = _integer(block, "max_pixels", _MAX_PIXELS)
    if "max_seconds" in block:
        limits["max_seconds"] = _number(block, "max_seconds", _MAX_SECONDS)
    return InputSpec(
        image_size=spec.image_size,
        context_length=spec.context_length,
        tokenizer=TokenizerSpec(tokenizer),
        frames=_integer(block, "frames", _FRAMES),
        mean=_channels(block, "mean", _ANY),
        std=_channels(block, "std", _SCALE),
        sample_rate=_integer(block, "sample_rate", _RATE),
        audio_seconds=_number(block, "audio_seconds", _SECONDS),
        audio_mean=_number(block, "audio_mean", _ANY),
        audio_std=_number(block, "audio_std", _SCALE),
        max_depth=_number(block, "max_depth", _DEPTH),
        **limits,
    )


def section(config: Section, name: str) -> Section:
    """Returns a block of fields; raises `ValueError` where there is none."""
    value = _take(config, name)
    if not isinstance(value, dict):
        raise ValueError(f"field {name!r}: {value!r} is not a block")
    return value


def _tower(config: Section) -> TowerSpec:
    activation = _take(config, "hidden_act")
    if activation not in list(ACTIVATIONS):
        raise ValueError(
            f"field hidden_act {activation!r} is not one of {list(ACTIVATIONS)}"
        )
    width = _integer(config, "hidden_size", _WIDTH)
    heads = _integer(config, "num_attention_heads", _WIDTH)
    if width % heads:
        raise ValueError(
            f"field 'num_attention_heads': {heads} does not divide hidden_size {width}"
        )
    return TowerSpec(
        width=width,
        layers=_integer(config, "num_hidden_layers", _LAYERS),
        heads=heads,
        mlp_width=_integer(config, "intermediate_size", _WIDTH),
        activation=activation,
        norm_epsilon=_number(config, "layer_norm_eps", _EPSILON),
    )


def _take(config: Section, name: str) -> Any:
    if name not in config:
        raise ValueError(f"field {name!r} is missing")
    return config[name]


def _number(config: Section, name: str, allowed: Range) -> float:
    return float(_checked(_take(config, name), (int, float), name, allowed))


def _integer(config: Section, name: str, allowed: Range) -> int:
    return _checked(_take(config, name), (int,), name, allowed)


def _channels(config: Section, name: str, allowed: Range) -> tuple[float, float, float]:
    value = _take(config, name)
    if not isinstance(value, list) or len(value) != 3:
        raise ValueError(f"field {name!r}: {value!r} is not a list of three numbers")
    red, green, blue = (float(_checked(v, (int, float), name, allowed)) for v in value)
    return red, green, blue


def _checked(value: Any, kinds: tuple[type, ...], name: str, allowed: Range) -> Any:
    if isinstance(value, bool) or not isinstance(value, kinds):
        raise ValueError(
            f"field {name!r}: {value!r} is not of type {kinds[-1].__name__}"
        )
    if complaint := allowed.complaint(value):
        raise ValueError(f"field {name!r}: {complaint}")
    return value
