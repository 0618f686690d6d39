"""Encoders of published sizes with random weights, for measurements and trials."""

import dataclasses
import difflib
import hashlib
import pathlib

import jax
import numpy as np

from mmcl_jax.errors import DataError
from mmcl_jax.modalities.base import InputSpec, TokenizerSpec
from mmcl_jax.models import encoder as encoders
from mmcl_jax.models.pretrained import image_bind, inputs, language_bind
from mmcl_jax.models.pretrained.weight_layout import Place
from mmcl_jax.models.sizes import SIZES
from mmcl_jax.models.specs import EncoderSpec, VisualSpec
from mmcl_jax.types import PyTree

PREFIX = "random:"
# The built-in tokenizer: the package comes with none of a published encoder.
_FOLDER = pathlib.Path(__file__).parents[1] / "assets"
_END_TOKEN = 1
_HALF = (0.5, 0.5, 0.5)


def load(name: str, place: Place) -> tuple[EncoderSpec, InputSpec, PyTree, str]:
    """Returns shape, inputs, weights and fingerprint of `random:SIZE`.

    Raises:
        DataError: There is no such size; the message names the nearest one.
    """
    spec, fed = describe(name)
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        weights = jax.jit(encoders.init, static_argnums=1)(jax.random.key(0), spec)
    frozen = jax.tree_util.tree_map_with_path(
        lambda path, leaf: place(
            jax.tree_util.keystr(path, simple=True, separator="/"), np.asarray(leaf)
        ),
        weights,
    )
    return spec, fed, frozen, hashlib.sha256(name.encode()).hexdigest()


def describe(name: str) -> tuple[EncoderSpec, InputSpec]:
    """Returns shape and inputs of `random:SIZE`; no weight is drawn.

    Sentences are encoded by the tokenizer of the built-in encoder.

    Raises:
        DataError: There is no such size; the message names the nearest one.
    """
    size = name.removeprefix(PREFIX)
    if size not in SIZES:
        near = difflib.get_close_matches(size, SIZES, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise DataError(f"{name}: {size!r} is not one of {', '.join(SIZES)}{hint}")
    spec = _with_own_words(SIZES[size])
    return spec, _inputs(spec, inputs.own_tokenizer(_FOLDER))


def _with_own_words(spec: EncoderSpec) -> EncoderSpec:
    text = dataclasses.replace(spec.text, end_token=_END_TOKEN)
    if text.pool == "argmax":
        text = dataclasses.replace(text, pool="end")
    towers = tuple(
        (name, text if reader is spec.text else reader) for name, reader in spec.towers
    )
    return dataclasses.replace(spec, towers=towers)


def _inputs(spec: EncoderSpec, tokenizer: TokenizerSpec) -> InputSpec:
    towers = [name for name, _ in spec.towers]
    if "visual" in towers:
        visual = spec.reader("visual")
        assert isinstance(visual, VisualSpec)
        resize = "crop" if visual.class_token else "squash"
        pictures = inputs.Pictures((_HALF, _HALF), resize)
        return inputs.drawn(visual.image_size[0], spec.text, tokenizer, pictures)
    if "vision" in towers:
        return image_bind.inputs(spec, tokenizer)
    config = {"vision_config": {}}
    fed = language_bind.inputs(config, "image", spec, tokenizer)
    for modality in ("video", "audio", "depth"):
        other = language_bind.inputs(config, modality, spec, tokenizer)
        only = dataclasses.replace(spec, readers=((modality, modality),))
        fed = language_bind.joined_inputs(fed, other, only)
    return fed
