"""What a family of published encoders is: how a checkpoint is recognized and opened."""

import pathlib
from collections.abc import Callable
from typing import NamedTuple

from mmcl_jax.modalities.base import InputSpec
from mmcl_jax.models.pretrained.weight_layout import Layout, Tensors
from mmcl_jax.models.specs import EncoderSpec, TextSpec

CONFIG = "config.json"
EXPECTED = "the config of an encoder"


class Checkpoint(NamedTuple):
    """One checkpoint, with no weight read yet."""

    family: str
    spec: EncoderSpec
    inputs: InputSpec
    layout: Layout
    tensors: Tensors
    weights: pathlib.Path
    unused: tuple[str, ...]
    files: tuple[pathlib.Path, ...]
    notes: tuple[str, ...] = ()


class Family(NamedTuple):
    """A way in which encoders are published: an entry of `loading.FAMILIES`.

    Attributes:
        recognizes: `(weights, tensors)`: whether the file, with those beside it, is a
            checkpoint of the family.
        open: `(weights, tensors)`: the checkpoint; raises `DataError` that names file
            and field.
    """

    recognizes: Callable[[pathlib.Path, Tensors], bool]
    open: Callable[[pathlib.Path, Tensors], Checkpoint]


def picture_side(spec: EncoderSpec) -> int:
    """Returns the side of the pictures that the visual tower reads, in pixels."""
    reader = spec.reader("visual")
    assert not isinstance(reader, TextSpec)
    return reader.image_size[0]
