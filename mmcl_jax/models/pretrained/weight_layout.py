"""Layouts of weight files as tables.

A layout maps every leaf of the tree that `encoder.init` returns to the tensors of a
file that it is made of; `weights_by_layout` reads and writes by it.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from mmcl_jax.models.specs import VisualSpec
from mmcl_jax.models.stem_specs import StemSpec

Tensors = Mapping[str, np.ndarray]
Shape = tuple[int, ...]
Place = Callable[[str, np.ndarray], Any]

BLOCKS = "blocks"  # in the names of leaves that are stacked by block


class Form(NamedTuple):
    """How a tensor stores a leaf.

    Attributes:
        shape: Function from the leaf's shape to the tensor's.
        axes: Permutation of the tensor's axes, before it is reshaped to the leaf; empty
            for none.
    """

    shape: Callable[[Shape], Shape]
    axes: tuple[int, ...] = ()


SAME = Form(lambda leaf: leaf)
# torch stores a linear map as (out, in).
TORCH_LINEAR = Form(lambda leaf: leaf[::-1], (1, 0))
ONE_IN_FRONT = Form(lambda leaf: (1, *leaf))
TWO_IN_FRONT = Form(lambda leaf: (1, 1, *leaf))


def patch_form(spec: VisualSpec, tube: bool = False) -> Form:
    """Returns the form of a tower's patch embedding as a torch convolution.

    Args:
        spec: Shape of the tower.
        tube: Whether the convolution has an axis of frames even if its length is 1.
    """
    frames = (spec.tube,) if tube or spec.tube > 1 else ()
    inputs = (spec.channels, *frames, spec.patch_size, spec.patch_size)
    if spec.stem is not None:
        side = spec.patch_size // spec.stem.stride
        inputs = (spec.stem.channels, side, side)
    return Form(lambda leaf: (leaf[1], *inputs), (*range(1, 1 + len(inputs)), 0))


class Rule(NamedTuple):
    """The tensors that a leaf is made of.

    Attributes:
        names: Names of the parts, which are concatenated along the leaf's last axis. In
            a block `{}` stands for its number; without it the tensor holds all blocks.
        form: Form of each part.
        shares: Share of each part in the leaf's last axis; empty: equal shares.
    """

    names: tuple[str, ...]
    form: Form = SAME
    shares: tuple[int, ...] = ()


Layout = dict[str, Rule]


def linear(ours: str, *names: str) -> Layout:
    """Returns the rules of a linear map with a bias, as torch stores it.

    Args:
        ours: Path of the map in the tree.
        names: Prefix of `weight` and `bias` of each part.
    """
    return {
        f"{ours}/kernel": Rule(tuple(f"{n}weight" for n in names), TORCH_LINEAR),
        f"{ours}/bias": Rule(tuple(f"{n}bias" for n in names)),
    }


def norm(ours: str, name: str) -> Layout:
    """Returns the rules of a layer norm; see `linear`."""
    return {f"{ours}/scale": Rule((f"{name}weight",)), f"{ours}/bias": _bias(name)}


def _bias(name: str) -> Rule:
    return Rule((f"{name}bias",))


class BlockNames(NamedTuple):
    """Prefixes of `weight` and `bias` of the parts of a block."""

    norm1: str
    norm2: str
    qkv: tuple[str, ...]
    out: str
    mlp_in: str
    mlp_out: str


def blocks(tower: str, at: str, names: BlockNames) -> Layout:
    """Returns the rules of a tower's blocks; `at` has `{}` in place of the number."""
    ours = f"{tower}/{BLOCKS}"
    return (
        norm(f"{ours}/norm1", at + names.norm1)
        | norm(f"{ours}/norm2", at + names.norm2)
        | linear(f"{ours}/qkv", *(at + name for name in names.qkv))
        | linear(f"{ours}/out", at + names.out)
        | linear(f"{ours}/mlp_in", at + names.mlp_in)
        | linear(f"{ours}/mlp_out", at + names.mlp_out)
    )


def stem(ours: str, name: str, spec: StemSpec | None) -> Layout:
    """Returns the rules of a convolutional stem, stored as it is in memory.

    Args:
        ours: Path of the stem in the tree.
        name: Prefix of its tensors.
        spec: Shape of the stem; without one there are no rules.
    """
    if spec is None:
        return {}
    convolutions = ["first"]
    for i, block in enumerate(spec.blocks()):
        parts = ("expand", "filter", "project")[block.expansion == 1 :]
        convolutions += [f"residuals/{i}/{part}" for part in parts]
    convolutions += [] if spec.last is None else ["last"]
    leaves = [f"{path}/{leaf}" for path in convolutions for leaf in ("kernel", "bias")]
    return {f"{ours}/{x}": Rule((name + x.replace("/", "."),)) for x in leaves}
