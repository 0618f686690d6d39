"""Where arrays live: the mesh, and which weights are sharded over its axes.

Rows of a batch are sharded over `data`, linear maps of the frozen towers over `model`,
and over `data` too if the encoder is fully sharded. Params, memory and metrics are
replicated: they are small, and solves between tasks need the whole of them.
"""

import contextlib
import re
from collections.abc import Sequence
from typing import Any, Literal

import jax
import numpy as np
from jax.sharding import AbstractMesh, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array

from mmcl_jax.types import Batch, PyTree

Layout = Literal["replicated", "sharded"]

# Patterns of the paths of frozen weights, and the sharding of such a weight when the
# encoder is fully sharded; the first match counts. Maps into and out of a block's inner
# space are sharded along that space over `model`, so that each pair needs only one
# all-reduce, after it. Queries, keys and values are columns of one map, and a device's
# shard does not hold matching thirds of it: XLA exchanges those.
RULES: tuple[tuple[str, P], ...] = (
    (r"blocks/(over_frames/)?(qkv|mlp_in)/kernel$", P(None, "data", "model")),
    (r"blocks/(over_frames/)?(out|mlp_out)/kernel$", P(None, "model", "data")),
    (r"blocks/(over_frames/)?(qkv|mlp_in)/bias$", P(None, "model")),
    # norms, positions, tables of words, projections: a small part of an encoder
    (r"", P()),
)


def make_mesh(devices: list[Any] | None = None, model: int = 1) -> Mesh:
    """Returns a mesh of the axes `data` and `model`.

    Processes own consecutive rows, in the order of their indices.

    Args:
        devices: Devices to use; None takes all.
        model: Number of devices along `model`; groups of so many lie along `data`.

    Raises:
        ValueError: The number of devices of a process is not a multiple of `model`.
    """
    devices = sorted(
        devices or jax.devices(), key=lambda device: (device.process_index, device.id)
    )
    own = sum(device.process_index == devices[0].process_index for device in devices)
    if own % model:
        raise ValueError(
            f"config.mesh.model: {model} does not divide the {own} devices of a process"
        )
    return Mesh(np.asarray(devices).reshape(-1, model), ("data", "model"))


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of arrays that every device holds whole."""
    return NamedSharding(mesh, P())


def of_weight(
    path: str, shape: tuple[int, ...], mesh: Mesh, layout: Layout
) -> NamedSharding:
    """Returns the sharding of a frozen weight.

    An axis of the weight that its axis of the mesh does not divide is not sharded.

    Args:
        path: Path of the weight, with `/` between names.
        shape: Shape of the weight.
        mesh: The devices.
        layout: With `replicated`, each group along `data` has the encoder; with
            `sharded`, all devices together have it once.
    """
    return NamedSharding(mesh, P(*_fitting(_wanted(path, layout), shape, mesh)))


def divides(path: str, shape: tuple[int, ...], mesh: Mesh, layout: Layout) -> bool:
    """Returns whether `of_weight` can shard a weight as its rule says."""
    wanted = _wanted(path, layout)
    return _fitting(wanted, shape, mesh) == list(wanted)


def _wanted(path: str, layout: Layout) -> tuple[str | None, ...]:
    found = next(spec for pattern, spec in RULES if re.search(pattern, path))
    over = ("model",) if layout == "replicated" else ("data", "model")
    return tuple(axis if axis in over else None for axis in found)


def _fitting(
    axes: Sequence[str | None], shape: tuple[int, ...], mesh: Mesh | AbstractMesh
) -> list[str | None]:
    return [
        axis if axis and size % mesh.shape[axis] == 0 else None
        for axis, size in zip(axes, shape[: len(axes)], strict=True)
    ]


def computing_on(mesh: Mesh) -> contextlib.AbstractContextManager:
    """Makes the mesh known to `gathered` while a program is traced."""
    return jax.sharding.use_abstract_mesh(mesh.abstract_mesh)


def gathered(block: PyTree) -> PyTree:
    """Returns the weights of one block of a fully sharded tower, gathered over `data`.

    Without this XLA would shard the activations rather than gather the weights. In a
    scan over blocks no more than one block is gathered at a time.
    """
    mesh = jax.sharding.get_abstract_mesh()

    def gather(path, leaf: Array) -> Array:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        axes = _wanted(f"blocks/{name}", "replicated")[1:]  # without the layer axis
        axes = _fitting(axes, leaf.shape, mesh)
        return jax.lax.with_sharding_constraint(leaf, P(*axes))

    return jax.tree_util.tree_map_with_path(gather, block)


def all_but_gathered(primitive: Any, *_: Any, **__: Any) -> bool:
    """A policy of `jax.checkpoint`: saves everything but the result of `gathered`.

    Otherwise the whole gathered encoder would be held for the backward pass.
    """
    return primitive.name != "sharding_constraint"


def put(tree: PyTree, mesh: Mesh) -> PyTree:
    """Puts a tree, equal in all processes, on every device, as a copy of its own."""
    return jax.tree.map(lambda x: jax.device_put(x, replicated(mesh)), tree)


def put_local(tree: PyTree, mesh: Mesh) -> PyTree:
    """Puts a tree of NumPy arrays as `put` does, without comparing it across processes.

    For values that all processes have read from replicated arrays; `put` compares them
    over the network, and waits for every process each time.
    """
    return jax.tree.map(
        lambda x: jax.make_array_from_callback(
            x.shape, replicated(mesh), x.__getitem__
        ),
        tree,
    )


def put_weight(path: str, leaf: np.ndarray, mesh: Mesh, layout: Layout) -> jax.Array:
    """Puts a frozen weight that all processes have read; each device gets its shard."""
    # `device_put` would compare the whole weight across processes first
    cut = of_weight(path, leaf.shape, mesh, layout)
    return jax.make_array_from_callback(leaf.shape, cut, leaf.__getitem__)


def put_batch(batch: Batch, mesh: Mesh) -> Batch:
    """Puts this process's rows of a global batch on its devices."""
    rows = NamedSharding(mesh, P("data"))
    return jax.tree.map(
        lambda x: jax.make_array_from_process_local_data(rows, np.asarray(x)), batch
    )
