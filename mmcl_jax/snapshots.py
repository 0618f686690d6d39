"""States of a run on disk, by Orbax: whole or not there, and as they were written."""

import hashlib
import json
import math
import pathlib
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from mmcl_jax.distributed import synchronize
from mmcl_jax.files import write_text
from mmcl_jax.types import PyTree

CHECKSUMS = "checksums.json"
CUT_OFF = "it was cut off while it was written"
_CHUNK = 1 << 20


class SaveError(RuntimeError):
    """A state cannot be written; those before it are as they were."""


class Snapshots:
    """Numbered states of a run in one folder, each with the results so far.

    The frozen encoder is not in them; `config.json` of the workdir names it. Each has a
    file of checksums, which is written last: a state without it was cut off.
    """

    def __init__(
        self,
        folder: str | pathlib.Path,
        *,
        digits: int = 3,
        keep: int | None = None,
        background: bool = False,
    ) -> None:
        """Opens a folder, which is made with the first state.

        Args:
            folder: of the states.
            digits: of their names.
            keep: older ones than so many are removed; None: all are kept.
            background: whether `save` returns before the state is on disk.
        """
        self._folder = pathlib.Path(folder).resolve()
        self._digits, self._unsealed = digits, None
        self._manager = ocp.CheckpointManager(
            self._folder,
            item_names=("state", "results"),
            options=ocp.CheckpointManagerOptions(
                step_format_fixed_length=digits,
                max_to_keep=keep,
                create=True,
                enable_async_checkpointing=background,
                # two managers write at once, and must not meet at the same barrier
                multiprocessing_options=ocp.options.MultiprocessingOptions(
                    barrier_sync_key_prefix=self._folder.name
                ),
            ),
        )

    def numbers(self) -> list[int]:
        """Returns the numbers of all states, damaged ones too."""
        return sorted(self._manager.all_steps())

    def path(self, number: int) -> pathlib.Path:
        """Returns the folder of one state."""
        return self._folder / f"{number:0{self._digits}d}"

    def save(
        self, number: int, state: PyTree, results: dict[str, Any], wait: bool = True
    ) -> None:
        """Writes one state; with `wait` it is whole when this returns.

        Raises:
            SaveError: this state, or the one before it, cannot be written.
        """
        if not wait:  # the next step is given these buffers for its own
            state = jax.tree.map(jnp.copy, state)
        args = ocp.args.Composite(
            state=ocp.args.StandardSave(state), results=ocp.args.JsonSave(results)
        )
        try:
            self._seal()
            self._unsealed = number
            self._manager.save(number, args=args)
            if wait:
                self._seal()
        except Exception as error:
            raise self._failure(error) from error

    def poll(self) -> None:
        """Closes a state whose writing in the background has ended.

        Raises:
            SaveError: it has failed.
        """
        if self._unsealed is None or self._manager.is_saving_in_progress():
            return
        try:
            self._seal()
        except Exception as error:
            raise self._failure(error) from error

    def _seal(self) -> None:
        """Waits for a state and writes its checksums."""
        if self._unsealed is None:
            return
        self._manager.wait_until_finished()
        folder, self._unsealed = self.path(self._unsealed), None
        if jax.process_index() == 0:
            write_text(folder / CHECKSUMS, json.dumps(_checksums(folder), indent=1))

    def _failure(self, error: Exception) -> SaveError:
        self._unsealed = None
        reason = str(error).strip().splitlines()
        return SaveError(
            f"{self._folder}: cannot save: {reason[0] if reason else error!r}"
        )

    def damage(self, number: int) -> str | None:
        """Says what is wrong with a state; None: nothing."""
        folder = self.path(number)
        try:
            wanted = json.loads((folder / CHECKSUMS).read_text())
        except FileNotFoundError:
            return CUT_OFF
        except (OSError, ValueError):
            return f"{CHECKSUMS} cannot be read"
        try:
            found = _checksums(folder)
        except OSError as error:
            return f"{error.filename} cannot be read ({error.strerror})"
        for name in sorted(wanted.keys() | found.keys()):
            if name not in found:
                return f"{name} is missing"
            if wanted.get(name) != found[name]:
                return f"{name} is not what was written"
        return None

    def set_aside(self, number: int, folder: pathlib.Path) -> pathlib.Path:
        """Moves a state into another folder and returns where it is then.

        Of several processes the first one does it, when all have come here.
        """
        name = f"{self._folder.name}-{self.path(number).name}"
        taken = len(list(folder.glob(f"{name}*")))
        target = folder / (f"{name}-{taken}" if taken else name)
        synchronize(f"before {target}")
        if jax.process_index() == 0:
            folder.mkdir(exist_ok=True)
            self.path(number).rename(target)
        synchronize(f"behind {target}")
        self._manager.reload()
        return target

    def restore(self, number: int, like: PyTree) -> tuple[PyTree, dict[str, Any]]:
        """Reads one state.

        Args:
            number: which.
            like: a tree of the same structure; its arrays' shardings are taken.

        Raises:
            ValueError: it holds another structure.
        """
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        restored = self._manager.restore(
            number,
            args=ocp.args.Composite(
                state=ocp.args.StandardRestore(abstract),
                results=ocp.args.JsonRestore(),
            ),
        )
        return restored["state"], restored["results"]

    def close(self) -> None:
        """Waits for what is being written and ends Orbax's threads.

        Raises:
            SaveError: it cannot be written.
        """
        try:
            self._seal()
        except Exception as error:
            raise self._failure(error) from error
        finally:
            self._manager.close()


def sealed(folder: pathlib.Path) -> list[int]:
    """Returns the numbers of the states of a folder that were written to their end."""
    return sorted(
        int(path.parent.name)
        for path in folder.glob(f"*/{CHECKSUMS}")
        if path.parent.name.isdecimal()
    )


def read_part(
    folder: pathlib.Path,
    number: int,
    pick: Callable[[PyTree], Iterable[str]],
    max_bytes: int,
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Reads some arrays of a state, in this process alone and whoever wrote it.

    Args:
        folder: of the states.
        number: of one that is `sealed`.
        pick: returns the paths that are wanted, such as `memory/anchor`, of the nested
            dicts that the state is made of.
        max_bytes: a path with more below it is left out.

    Returns:
        The nested dicts with NumPy arrays, of these paths alone; and what was left out.

    Raises:
        ValueError: the state cannot be read.
    """
    path, alone = _folder_of(folder, number), _alone()
    handler = ocp.CompositeCheckpointHandler(
        state=ocp.PyTreeCheckpointHandler(multiprocessing_options=alone),
        # not read here; Orbax warns of an item that it has no handler for
        results=ocp.JsonCheckpointHandler(multiprocessing_options=alone),
    )
    with ocp.Checkpointer(handler, multiprocessing_options=alone) as reader:
        stored = reader.metadata(path).item_metadata["state"].tree
        wanted: dict[str, Any] = {}
        left_out = []
        for place in pick(stored):
            *parents, last = place.split("/")
            source, target = stored, wanted
            for key in parents:
                source, target = source[key], target.setdefault(key, {})
            leaves = jax.tree.leaves(source[last])
            if sum(math.prod(x.shape) * x.dtype.itemsize for x in leaves) > max_bytes:
                left_out.append(place)
            else:
                target[last] = source[last]
        if not jax.tree.leaves(wanted):
            return {}, tuple(left_out)
        as_numpy = jax.tree.map(
            lambda _: ocp.RestoreArgs(restore_type=np.ndarray), wanted
        )
        restore = ocp.args.PyTreeRestore(wanted, as_numpy, partial_restore=True)
        found = reader.restore(path, ocp.args.Composite(state=restore))
    return found["state"], tuple(left_out)


def read_results(folder: pathlib.Path, number: int) -> dict[str, Any]:
    """Reads the results that are stored with a `sealed` state."""
    path, alone = _folder_of(folder, number), _alone()
    with ocp.Checkpointer(
        ocp.JsonCheckpointHandler(multiprocessing_options=alone),
        multiprocessing_options=alone,
    ) as reader:
        return reader.restore(path / "results")


def _folder_of(states: pathlib.Path, number: int) -> pathlib.Path:
    """Returns the folder of one state, whatever the digits of its name."""
    named = (p for p in states.resolve().iterdir() if p.name.isdecimal())
    return next(path for path in named if int(path.name) == number)


def _alone() -> ocp.options.MultiprocessingOptions:
    """Returns options for what one process does while the others go on."""
    own = jax.process_index()
    return ocp.options.MultiprocessingOptions(
        primary_host=own, active_processes={own}, barrier_sync_key_prefix="reading"
    )


def _checksums(folder: pathlib.Path) -> dict[str, str]:
    """Returns the SHA-256 of every file of a folder but their own, by its path."""
    sums = {}
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or path.name.startswith(CHECKSUMS):
            continue
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
        sums[path.relative_to(folder).as_posix()] = digest.hexdigest()
    return sums


def nbytes(tree: PyTree) -> int:
    """Returns the bytes that the arrays of `tree` take."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
