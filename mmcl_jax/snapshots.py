"""What a run leaves after each stage, by Orbax: params, memory, results so far."""

import pathlib
from typing import Any

import jax
import orbax.checkpoint as ocp

from mmcl_jax.types import PyTree


class Snapshots:
    """The snapshots of a workdir, one a stage, written atomically.

    The frozen encoder is not in them; `config.json` of the workdir names it.
    """

    def __init__(self, workdir: str | pathlib.Path) -> None:
        """Opens `<workdir>/snapshots`, which is made with the first snapshot."""
        self._manager = ocp.CheckpointManager(
            pathlib.Path(workdir).resolve() / "snapshots",
            item_names=("state", "results"),
            options=ocp.CheckpointManagerOptions(
                step_format_fixed_length=3,
                create=True,
                enable_async_checkpointing=False,
            ),
        )

    def latest(self) -> int | None:
        """Returns the newest stage, or None."""
        return self._manager.latest_step()

    def stages(self) -> list[int]:
        """Returns all stages that have a snapshot."""
        return sorted(self._manager.all_steps())

    def save(self, stage: int, state: PyTree, results: dict[str, Any]) -> None:
        """Writes one snapshot and returns when it is whole."""
        self._manager.save(
            stage,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(state), results=ocp.args.JsonSave(results)
            ),
        )
        self._manager.wait_until_finished()

    def restore(self, stage: int, like: PyTree) -> tuple[PyTree, dict[str, Any]]:
        """Reads one snapshot.

        Args:
            stage: which.
            like: a tree of the same structure; its arrays' shardings are taken.

        Raises:
            ValueError: the snapshot holds another structure.
        """
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        restored = self._manager.restore(
            stage,
            args=ocp.args.Composite(
                state=ocp.args.StandardRestore(abstract),
                results=ocp.args.JsonRestore(),
            ),
        )
        return restored["state"], restored["results"]

    def close(self) -> None:
        """Ends Orbax's threads."""
        self._manager.close()


def nbytes(tree: PyTree) -> int:
    """Returns the bytes that the arrays of `tree` take."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
