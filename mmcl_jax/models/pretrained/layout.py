"""How weights are stored, as a table, and reading and writing by it.

A layout says for every leaf of the tree that `encoder.init` gives which tensors of a
file it is made of. Reading is strict both ways: a leaf that is not filled and a tensor
that has no use are errors.
"""

import fnmatch
import functools
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from mmcl_jax.errors import DataError
from mmcl_jax.models import encoder
from mmcl_jax.models.specs import EncoderSpec, VisualSpec
from mmcl_jax.types import PyTree

Tensors = Mapping[str, np.ndarray]
Shape = tuple[int, ...]
Place = Callable[[str, np.ndarray], Any]

_FLOATS = ("float16", "bfloat16", "float32", "float64")
_BLOCKS = "blocks"
_SHOWN = 20


class Form(NamedTuple):
    """How a tensor holds a leaf.

    Attributes:
        shape: the tensor's shape, by that of the leaf.
        axes: the order that the tensor's axes are brought to, before its shape becomes
            that of the leaf; empty: as they are.
    """

    shape: Callable[[Shape], Shape]
    axes: tuple[int, ...] = ()


SAME = Form(lambda leaf: leaf)
# torch keeps a linear map as (out, in)
TORCH_LINEAR = Form(lambda leaf: leaf[::-1], (1, 0))
ONE_IN_FRONT = Form(lambda leaf: (1, *leaf))
TWO_IN_FRONT = Form(lambda leaf: (1, 1, *leaf))


def patch_form(spec: VisualSpec, tube: bool = False) -> Form:
    """Returns the form of a tower's patch embedding as a torch convolution.

    Args:
        spec: shape of the tower.
        tube: whether the convolution has an axis of frames even if it is one deep.
    """
    frames = (spec.tube,) if tube or spec.tube > 1 else ()
    inputs = (spec.channels, *frames, spec.patch_size, spec.patch_size)
    return Form(lambda leaf: (leaf[1], *inputs), (*range(1, 1 + len(inputs)), 0))


class Rule(NamedTuple):
    """The tensors that a leaf is made of.

    Attributes:
        names: of parts that lie side by side along the leaf's last axis. In a block
            `{}` stands for its number; without it the tensor holds all blocks.
        form: of each part.
        shares: of the leaf's last axis, one a part; empty: equal ones.
    """

    names: tuple[str, ...]
    form: Form = SAME
    shares: tuple[int, ...] = ()


Layout = dict[str, Rule]


def linear(ours: str, *names: str) -> Layout:
    """Returns the rules of a linear map with a shift, as torch keeps it.

    Args:
        ours: path of the map in the tree.
        names: what stands in front of `weight` and `bias`, one a part.
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
    """What stands in front of `weight` and `bias` of the parts of a block."""

    norm1: str
    norm2: str
    qkv: tuple[str, ...]
    out: str
    mlp_in: str
    mlp_out: str


def blocks(tower: str, at: str, names: BlockNames) -> Layout:
    """Returns the rules of a tower's blocks; `at` holds `{}` for the number."""
    ours = f"{tower}/{_BLOCKS}"
    return (
        norm(f"{ours}/norm1", at + names.norm1)
        | norm(f"{ours}/norm2", at + names.norm2)
        | linear(f"{ours}/qkv", *(at + name for name in names.qkv))
        | linear(f"{ours}/out", at + names.out)
        | linear(f"{ours}/mlp_in", at + names.mlp_in)
        | linear(f"{ours}/mlp_out", at + names.mlp_out)
    )


def read(
    spec: EncoderSpec,
    layout: Layout,
    tensors: Tensors,
    path: str,
    place: Place,
    unused: Iterable[str] = (),
    without: Collection[str] = (),
) -> dict[str, Any]:
    """Returns the weights in a file by their place in the tree, float32.

    Args:
        spec: shape of the encoder.
        layout: a rule for each leaf.
        tensors: of the file; each is taken when its leaf is made, one after another.
        path: of the file, for messages.
        place: `(path, leaf) -> array`: where a finished leaf goes.
        unused: patterns of names that are no weights.
        without: leaves that another file has given.

    Raises:
        DataError: tensors are missing, left over, of another shape or type, or not
            finite; names the file and the tensors.
    """
    leaves, _ = _leaves(spec)
    names = {
        name.format(i)
        for leaf, shape in leaves.items()
        for name in layout[leaf].names
        for i in range(shape[0] if _BLOCKS in leaf else 1)
    }
    left = {
        name
        for name in tensors.keys() - names
        if not any(fnmatch.fnmatch(name, pattern) for pattern in unused)
    }
    missing = names - tensors.keys()
    for what, found in (("missing", missing), ("without a use", left)):
        if found:
            raise DataError(f"{path}: tensors {what}: {_listed(sorted(found))}")
    return {
        leaf: place(leaf, _fill(layout[leaf], leaf, shape, tensors, path))
        for leaf, shape in leaves.items()
        if leaf not in without
    }


def tree(spec: EncoderSpec, leaves: Mapping[str, Any]) -> PyTree:
    """Returns weights as the towers take them, of what `read` has given."""
    names, structure = _leaves(spec)
    return jax.tree.unflatten(structure, [leaves[name] for name in names])


def write(spec: EncoderSpec, layout: Layout, frozen: PyTree) -> dict[str, np.ndarray]:
    """Returns the tensors of an encoder, the inverse of `read`."""
    leaves, _ = _leaves(spec)
    tensors = {}
    for (leaf, shape), array in zip(
        leaves.items(), jax.tree.leaves(frozen), strict=True
    ):
        rule, array = layout[leaf], np.asarray(array, np.float32)
        for i, layer in enumerate(array if _BLOCKS in leaf else [array]):
            for name, columns, part in _parts(rule, leaf, shape):
                source = rule.form.shape(part)
                axes = rule.form.axes or tuple(range(len(source)))
                moved = layer[columns].reshape([source[axis] for axis in axes])
                tensors[name.format(i)] = np.array(
                    moved.transpose(np.argsort(axes)), order="C"
                )
    return tensors


@functools.lru_cache(maxsize=8)
def _leaves(spec: EncoderSpec) -> tuple[dict[str, Shape], Any]:
    """Returns path and shape of every leaf, in the order of the tree."""
    tree = jax.eval_shape(lambda: encoder.init(jax.random.key(0), spec))
    paths, structure = jax.tree_util.tree_flatten_with_path(tree)
    named = {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf.shape
        for path, leaf in paths
    }
    return named, structure


def _parts(rule: Rule, leaf: str, shape: Shape) -> Iterator[tuple[str, tuple, Shape]]:
    """Yields name, place and shape of a leaf's parts in one block."""
    shape = shape[1:] if _BLOCKS in leaf else shape
    if not shape:
        yield rule.names[0], (...,), shape
        return
    shares = rule.shares or (1,) * len(rule.names)
    unit, start = shape[-1] // sum(shares), 0
    for name, share in zip(rule.names, shares, strict=True):
        end = start + unit * share
        yield name, (..., slice(start, end)), (*shape[:-1], end - start)
        start = end


def _fill(
    rule: Rule, leaf: str, shape: Shape, tensors: Tensors, path: str
) -> np.ndarray:
    layers = shape[:1] if _BLOCKS in leaf else ()
    filled = np.empty(shape, np.float32)
    for i in range(*layers or (1,)):
        into = filled[i] if layers else filled
        for name, columns, part in _parts(rule, leaf, shape):
            source = rule.form.shape(part)
            if layers and "{}" not in name:
                tensor = _take(tensors, name, layers + source, path)[i]
            else:
                tensor = _take(tensors, name.format(i), source, path)
            if rule.form.axes:
                tensor = tensor.transpose(rule.form.axes)
            with np.errstate(over="ignore"):  # a number too large becomes infinite
                into[columns] = tensor.reshape(part)
            if not np.isfinite(into[columns]).all():
                raise DataError(f"{path}: tensor {name.format(i)!r} is not finite")
    return filled


def _take(tensors: Tensors, name: str, shape: Shape, path: str) -> np.ndarray:
    tensor = tensors[name]
    if tensor.size == math.prod(shape) == 1:
        tensor = tensor.reshape(shape)  # a scale is stored with or without an axis
    if tensor.shape != shape:
        raise DataError(
            f"{path}: tensor {name!r} has shape {tensor.shape}, expected {shape}"
        )
    if tensor.dtype not in _FLOATS:
        raise DataError(
            f"{path}: tensor {name!r} is of type {tensor.dtype}, expected one of "
            f"{', '.join(_FLOATS)}"
        )
    return tensor


def _listed(names: list[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:_SHOWN])
    more = len(names) - _SHOWN
    return f"{shown} and {more} more" if more > 0 else shown
