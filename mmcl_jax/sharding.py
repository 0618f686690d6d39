"""The mesh: batches are cut over devices, everything else is on each of them."""

from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from mmcl_jax.types import Batch, PyTree


def make_mesh(devices: list[Any] | None = None) -> Mesh:
    """Returns a mesh with the one axis `data` over `devices` (None: all)."""
    return Mesh(np.asarray(devices or jax.devices()), ("data",))


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of arrays that every device holds whole."""
    return NamedSharding(mesh, P())


def put(tree: PyTree, mesh: Mesh) -> PyTree:
    """Puts a tree that all processes hold alike on every device, as its own copy."""
    return jax.tree.map(lambda x: jax.device_put(x, replicated(mesh)), tree)


def put_batch(batch: Batch, mesh: Mesh) -> Batch:
    """Puts this process's rows of a global batch on its devices."""
    rows = NamedSharding(mesh, P("data"))
    return jax.tree.map(
        lambda x: jax.make_array_from_process_local_data(rows, np.asarray(x)), batch
    )
