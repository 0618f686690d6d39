"""What a state holds of single classes, and how it is dropped."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from mmcl_jax.ops import rngs
from mmcl_jax.ops.reservoir import Reservoir, remove
from mmcl_jax.types import Capacity, Key, PyTree

Init = Callable[[Key, Capacity], tuple[PyTree, PyTree]]


def _is_reservoir(leaf: Any) -> bool:
    return isinstance(leaf, Reservoir)


def class_axes(init: Init, room: Capacity) -> PyTree:
    """Returns the axis of class slots of each array of a state, -1 if it has none.

    It is the one that grows when there is room for one more class. A `Reservoir`, whose
    rows are of classes by their labels, counts as one leaf, of 0.
    """

    def shapes(room: Capacity) -> PyTree:
        return jax.eval_shape(lambda: init(rngs.key(0, "init"), room))

    def axis(leaf: Any, larger: Any) -> int:
        if _is_reservoir(leaf):
            return 0
        pairs = zip(leaf.shape, larger.shape, strict=True)
        grown = (b == a + 1 and a == room.classes for a, b in pairs)
        return next((i for i, grows in enumerate(grown) if grows), -1)

    more = room._replace(classes=room.classes + 1)
    return jax.tree.map(axis, shapes(room), shapes(more), is_leaf=_is_reservoir)


def without_classes(
    state: PyTree, fresh: PyTree, axes: PyTree, slots: Bool[Array, " C"]
) -> PyTree:
    """Returns a state whose entries of some classes are those of a fresh one.

    Samples of theirs in a reservoir are removed. What was fitted to several classes
    together, such as a pooled covariance or an adapter, stays as it is.

    Args:
        state: Params and memory.
        fresh: The same, initialized for the same capacity.
        axes: What `class_axes` returns.
        slots: Class slots that are dropped.
    """

    def of_leaf(axis: int, old: Any, new: Any) -> Any:
        if _is_reservoir(old):
            labels = _labels(old)
            return old if labels is None else remove(old, slots[labels])
        if axis < 0:
            return old
        shape = [1] * old.ndim
        shape[axis] = -1
        return jnp.where(slots.reshape(shape), new, old)

    return jax.tree.map(of_leaf, axes, state, fresh, is_leaf=_is_reservoir)


def _labels(reservoir: Reservoir) -> Array | None:
    rows = reservoir.rows
    return rows.get("label") if isinstance(rows, dict) else None


def shared_arrays(init: Init, room: Capacity) -> list[str]:
    """Returns the paths of arrays that hold something of all classes together."""
    axes = class_axes(init, room)
    named = dict(zip(("params", "memory"), axes, strict=True))
    return [
        jax.tree_util.keystr(path, simple=True, separator="/")
        for path, axis in jax.tree_util.tree_leaves_with_path(named)
        if axis < 0
    ]
