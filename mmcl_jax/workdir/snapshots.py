"""States of a run on disk, by Orbax: whole or not there, and as they were written."""

import hashlib
import json
import pathlib
import shutil
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

from mmcl_jax.errors import SaveError
from mmcl_jax.files import write_text
from mmcl_jax.parallel.distributed import synchronize
from mmcl_jax.types import PyTree

CHECKSUMS = "checksums.json"
CUT_OFF = "it was cut off while it was written"
_CHUNK = 1 << 20
# in the names of states that Orbax has not written to their end
_UNFINISHED = ".orbax-checkpoint-tmp"


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
        create: bool = True,
    ) -> None:
        """Opens a folder, which is made with the first state.

        Args:
            folder: of the states.
            digits: of their names.
            keep: older ones than so many are removed; None: all are kept.
            background: whether `save` returns before the state is on disk.
            create: whether the folder is made; without, it has to be there.
        """
        self._folder = pathlib.Path(folder).resolve()
        self._digits, self._unsealed = digits, None
        if create and jax.process_index() == 0:
            # of a process that was killed while it wrote; Orbax does this on the side,
            # and not to its end in a short run
            for left in self._folder.glob(f"*{_UNFINISHED}*"):
                shutil.rmtree(left, ignore_errors=True)
        self._manager = ocp.CheckpointManager(
            self._folder,
            item_names=("state", "results"),
            options=ocp.CheckpointManagerOptions(
                step_format_fixed_length=digits,
                max_to_keep=keep,
                create=create,
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
        return damage(self.path(number))

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
            like: a tree of the same structure, of arrays or of what `jax.eval_shape`
                gives with shardings, which are taken.

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


def damage(folder: pathlib.Path) -> str | None:
    """Says what is wrong with the state in a folder; None: nothing."""
    try:
        wanted = json.loads((folder / CHECKSUMS).read_text())
    except FileNotFoundError:
        return CUT_OFF
    except (OSError, RecursionError, ValueError):
        wanted = None
    if not isinstance(wanted, dict):
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
