"""Checked access to fields of the JSON files that come with an encoder."""

from typing import Any

from mmcl_jax.fields import Range
from mmcl_jax.models.layers import ACTIVATIONS
from mmcl_jax.models.specs import TowerSpec
from mmcl_jax.models.stem_specs import StageSpec, StemSpec

Section = dict[str, Any]

_MOST_STAGES = 32
_WIDTH = Range(1, 2**16)
_LAYERS = Range(1, 1024)
_PIXELS = Range(1, 4096)
_FRAMES = Range(1, 1024)
_POSITIONS = Range(3, 2**16)
_ANY = Range(-1e6, 1e6)
_SCALE = Range(1e-6, 1e6)

RANGES = {
    "hidden_size": _WIDTH,
    "width": _WIDTH,
    "num_hidden_layers": _LAYERS,
    "layers": _LAYERS,
    "num_attention_heads": _WIDTH,
    "heads": _WIDTH,
    "head_width": _WIDTH,
    "intermediate_size": _WIDTH,
    "mlp_ratio": Range(0.1, 64),
    "projection_dim": _WIDTH,
    "projection_size": _WIDTH,
    "embed_dim": _WIDTH,
    "layer_norm_eps": Range(0, 1, is_open=True),
    "eps": Range(0, 1, is_open=True),
    "image_size": _PIXELS,
    "patch_size": _PIXELS,
    "patch_stride": _PIXELS,
    "num_channels": Range(3, 3),
    "vocab_size": Range(3, 2**24),
    "max_position_embeddings": _POSITIONS,
    "context_length": _POSITIONS,
    "frames": _FRAMES,
    "num_frames": _FRAMES,
    "tube_size": _FRAMES,
    "num_mel_bins": _PIXELS,
    "target_length": Range(1, 2**16),
    "lora_r": Range(0, 4096),
    "lora_alpha": Range(0, 1e6),
    "sample_rate": Range(1000, 192_000),
    "audio_sample_rate": Range(1000, 192_000),
    # At least a frame of the spectrogram.
    "audio_seconds": Range(0.025, 120),
    "audio_mean": _ANY,
    "audio_std": _SCALE,
    "max_depth": Range(0.1, 1e6),
    "max_pixels": Range(1, 2**32),
    "max_seconds": Range(0, 1e6, is_open=True),
    "mean": _ANY,
    "image_mean": _ANY,
    "std": _SCALE,
    "first": _WIDTH,
    "repeats": Range(1, 64),
    "kernel": Range(1, 15),
    "stride": Range(1, 8),
    "expansion": Range(1, 16),
    "channels": _WIDTH,
    "outputs": Range(1, _MOST_STAGES),
    "image_std": _SCALE,
}
# By the names in published configs.
_ACTIVATIONS = {name: name for name in ACTIVATIONS} | {"gelu_pytorch_tanh": "gelu_tanh"}


def section(config: Section, name: str) -> Section:
    """Returns a block of fields; raises `ValueError` if there is none."""
    value = _take(config, name)
    if not isinstance(value, dict):
        raise ValueError(f"field {name!r}: {value!r} is not a block")
    return value


def integer(config: Section, name: str) -> int:
    """Returns a whole number within the range of its name.

    Raises:
        ValueError: The field is missing, of another type or out of range; this also
            holds for all functions below.
    """
    return _checked(_take(config, name), (int,), name)


def number(config: Section, name: str) -> float:
    """Returns a number within the range of its name."""
    return float(_checked(_take(config, name), (int, float), name))


def switch(config: Section, name: str) -> bool:
    """Returns whether a field is true."""
    value = _take(config, name)
    if not isinstance(value, bool):
        raise ValueError(f"field {name!r}: {value!r} is neither true nor false")
    return value


def channels(config: Section, name: str) -> tuple[float, float, float]:
    """Returns one number for each of three channels."""
    value = _take(config, name)
    if not isinstance(value, list) or len(value) != 3:
        raise ValueError(f"field {name!r}: {value!r} is not a list of three numbers")
    red, green, blue = (float(_checked(v, (int, float), name)) for v in value)
    return red, green, blue


def width(config: Section, name: str, heads: str) -> int:
    """Returns a width that the number of heads divides."""
    value, parts = integer(config, name), integer(config, heads)
    if value % parts:
        raise ValueError(f"field {heads!r}: {parts} does not divide {name} {value}")
    return value


def picture(config: Section) -> tuple[int, int]:
    """Returns the side of a picture and of a patch."""
    size, patch = integer(config, "image_size"), integer(config, "patch_size")
    if patch > size:
        raise ValueError(f"field 'patch_size': {patch} is above image_size {size}")
    return size, patch


def stem(config: Section, lengths: tuple[int, ...]) -> StemSpec:
    """Returns the stem in the field `stem`, whose stride must divide `lengths`."""
    # files of earlier versions put out the last stage alone
    block = {"outputs": 1} | section(config, "stem")
    stages = _take(block, "stages")
    if not isinstance(stages, list) or not 0 < len(stages) <= _MOST_STAGES:
        raise ValueError(f"field 'stages': {stages!r} is not a list of stages")
    outputs = integer(block, "outputs")
    if outputs > len(stages):
        raise ValueError(
            f"field 'outputs': {outputs} is above the number of stages, {len(stages)}"
        )
    shapes = tuple(_stage(each) for each in stages)
    shape = StemSpec(integer(block, "first"), shapes, outputs=outputs)
    if any(length % shape.stride for length in lengths):
        raise ValueError(
            f"field 'stem': its stride {shape.stride} does not divide patch_size and "
            f"patch_stride, {lengths}"
        )
    return shape


def _stage(config: Any) -> StageSpec:
    if not isinstance(config, dict):
        raise ValueError(f"field 'stages': {config!r} is not a block")
    return StageSpec(*(integer(config, name) for name in StageSpec._fields))


def token(config: Section, name: str, vocabulary: int) -> int:
    """Returns the id of a token."""
    value = _take(config, name)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"field {name!r}: {value!r} is not of type int")
    if complaint := Range(0, vocabulary - 1).complaint(value):
        raise ValueError(f"field {name!r}: {complaint}")
    return value


def activation(config: Section, name: str) -> str:
    """Returns a key of `layers.ACTIVATIONS`."""
    value = _take(config, name)
    if not isinstance(value, str) or value not in _ACTIVATIONS:
        raise ValueError(f"field {name} {value!r} is not one of {list(_ACTIVATIONS)}")
    return _ACTIVATIONS[value]


def _take(config: Section, name: str) -> Any:
    if name not in config:
        raise ValueError(f"field {name!r} is missing")
    return config[name]


def _checked(value: Any, kinds: tuple[type, ...], name: str) -> Any:
    if isinstance(value, bool) or not isinstance(value, kinds):
        raise ValueError(
            f"field {name!r}: {value!r} is not of type {kinds[-1].__name__}"
        )
    if complaint := RANGES[name].complaint(value):
        raise ValueError(f"field {name!r}: {complaint}")
    return value


def trunk(config: Section) -> TowerSpec:
    """Returns the transformer of a section in the words of Hugging Face."""
    return TowerSpec(
        width=width(config, "hidden_size", "num_attention_heads"),
        layers=integer(config, "num_hidden_layers"),
        heads=integer(config, "num_attention_heads"),
        mlp_width=integer(config, "intermediate_size"),
        activation=activation(config, "hidden_act"),
        norm_epsilon=number(config, "layer_norm_eps"),
    )
