"""Reads and writes files of weights by their layout.

Reading is strict both ways: an unfilled leaf and an unused tensor are errors.
"""

import fnmatch
import functools
import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from mmcl_jax.errors import DataError
from mmcl_jax.models import encoder
from mmcl_jax.models.pretrained.weight_layout import (
    BLOCKS,
    Layout,
    Place,
    Rule,
    Shape,
    Tensors,
)
from mmcl_jax.models.specs import EncoderSpec
from mmcl_jax.types import PyTree

_FLOATS = ("float16", "bfloat16", "float32", "float64")
_SHOWN = 20


def read(
    spec: EncoderSpec,
    layout: Layout,
    tensors: Tensors,
    path: str,
    place: Place,
    unused: Iterable[str] = (),
    without: Collection[str] = (),
) -> dict[str, Any]:
    """Returns the weights in a file by their path in the tree, float32.

    Args:
        spec: Shape of the encoder.
        layout: A rule for each leaf.
        tensors: Tensors of the file; each is read when its leaf is made, so that only
            one leaf at a time is in host memory.
        path: Path of the file, for messages.
        place: Function `(path, leaf) -> array` that moves a finished leaf, for instance
            to devices.
        unused: Patterns of names of tensors that are not weights.
        without: Leaves that another file has already given.

    Raises:
        DataError: Tensors are missing, unused, of another shape or type, or not finite;
            the message names the file and the tensors.
    """
    leaves, _ = _leaves(spec)
    names = {
        name.format(i)
        for leaf, shape in leaves.items()
        for name in layout[leaf].names
        for i in range(shape[0] if BLOCKS in leaf else 1)
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
    """Returns the tree of weights that the towers take, from the result of `read`."""
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
        for i, layer in enumerate(array if BLOCKS in leaf else [array]):
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
    """Returns path and shape of every leaf in order, and the structure of the tree."""
    tree = encoder.shapes(spec)
    paths, structure = jax.tree_util.tree_flatten_with_path(tree)
    named = {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf.shape
        for path, leaf in paths
    }
    return named, structure


def _parts(rule: Rule, leaf: str, shape: Shape) -> Iterator[tuple[str, tuple, Shape]]:
    """Yields name, index and shape of a leaf's parts in one block."""
    shape = shape[1:] if BLOCKS in leaf else shape
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
    layers = shape[:1] if BLOCKS in leaf else ()
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
            with np.errstate(over="ignore"):  # overflow to infinity is found just below
                into[columns] = tensor.reshape(part)
            if not np.isfinite(into[columns]).all():
                raise DataError(f"{path}: tensor {name.format(i)!r} is not finite")
    return filled


def _take(tensors: Tensors, name: str, shape: Shape, path: str) -> np.ndarray:
    tensor = tensors[name]
    if tensor.size == math.prod(shape) == 1:
        tensor = tensor.reshape(shape)  # scales are stored with or without an axis
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
