"""States of a run on disk, by Orbax: complete, and checked against checksums."""

import hashlib
import json
import pathlib
import shutil
import sys
from logging import LogRecord
from types import TracebackType
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from absl import logging

from mmcl_jax.errors import SaveError
from mmcl_jax.files import write_text
from mmcl_jax.parallel.distributed import synchronize
from mmcl_jax.types import PyTree

CHECKSUMS = "checksums.json"
CUT_OFF = "it was cut off while it was written"
_CHUNK = 1 << 20
_LOOP_CLOSED = "Event loop is closed"  # asyncio
_ORBAX = str(pathlib.Path(ocp.__file__).parent)
# in the names of states that Orbax has not finished
_UNFINISHED = ".orbax-checkpoint-tmp"


@jax.jit
def _copied(state: PyTree) -> PyTree:
    """Returns other buffers: one program, where each shape would have had its own."""
    return jax.tree.map(jnp.copy, state)


def _of_one_replica(leaf: PyTree) -> PyTree:
    """Returns an array that all devices hold as one of them holds it, without a copy.

    Orbax would have each device write its slice, cut by a program of its own for every
    shape: that takes seconds, and writing such arrays does not.
    """
    if not isinstance(leaf, jax.Array):
        return leaf
    whole = leaf.is_fully_addressable and leaf.is_fully_replicated
    return leaf.addressable_data(0) if whole else leaf


class Snapshots:
    """Numbered states of a run in one folder, each with the results so far.

    They do not hold the frozen encoder, which `config.json` of the workdir names. Each
    has a file of checksums, which is written last: a state without it was cut off.
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
        """Opens a folder.

        Args:
            folder: Folder of the states.
            digits: Number of digits in their names.
            keep: Number of newest states to keep; None keeps all.
            background: Whether `save` may return before the state is on disk.
            create: Whether to make the folder; if not, it has to exist.
        """
        self._folder = pathlib.Path(folder).resolve()
        self._digits, self._unsealed = digits, None
        if create and jax.process_index() == 0:
            # left by a process that was killed while it wrote; Orbax removes them in
            # the background, which a short run does not wait for
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
                # two managers write at once, and must not wait at the same barrier
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
        """Writes one state; with `wait` it is complete when this returns.

        Raises:
            SaveError: This state, or the one before it, cannot be written.
        """
        if not wait:  # these buffers are donated to the next training step
            state = _copied(state)
        state = jax.tree.map(_of_one_replica, state)
        args = ocp.args.Composite(
            state=ocp.args.StandardSave(state), results=ocp.args.JsonSave(results)
        )
        try:
            # at most one state is unsealed: the one before gets its checksums first
            self._seal()
            self._unsealed = number
            self._manager.save(number, args=args)
            if wait:
                self._seal()
        except Exception as error:
            raise self._failure(error) from error

    def poll(self) -> None:
        """Seals a state that has been written in the background by now.

        Raises:
            SaveError: It could not be written.
        """
        if self._unsealed is None or self._manager.is_saving_in_progress():
            return
        try:
            self._seal()
        except Exception as error:
            raise self._failure(error) from error

    def _seal(self) -> None:
        """Waits for a state and writes its checksums, which mark it as complete."""
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
        """Returns what is wrong with a state, or None if it is intact."""
        return damage(self.path(number))

    def set_aside(self, number: int, folder: pathlib.Path) -> pathlib.Path:
        """Moves a state into another folder and returns its new path.

        The first process moves it; all of them wait before and after.
        """
        name = f"{self._folder.name}-{self.path(number).name}"
        taken = len(list(folder.glob(f"{name}*")))
        target = folder / (f"{name}-{taken}" if taken else name)
        synchronize(f"before {target}")
        if jax.process_index() == 0:
            folder.mkdir(exist_ok=True)
            self.path(number).rename(target)
        synchronize(f"after {target}")
        self._manager.reload()
        return target

    def restore(self, number: int, like: PyTree) -> tuple[PyTree, dict[str, Any]]:
        """Reads one state.

        Args:
            number: Number of the state.
            like: Tree of the same structure, of arrays or of what `jax.eval_shape`
                gives with shardings; the restored arrays get its shardings.

        Raises:
            ValueError: The state has another structure.
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
        """Waits until everything is written and ends Orbax's threads.

        Raises:
            SaveError: A state cannot be written.
        """
        try:
            self._seal()
        except Exception as error:
            raise self._failure(error) from error
        finally:
            self._manager.close()


def silence_failures() -> None:
    """Drops the tracebacks that Orbax shows of a state that cannot be written.

    It raises the same again where the state is saved, which becomes a `SaveError`.
    """

    def keep(record: LogRecord) -> bool:
        return not (record.exc_info and record.pathname.startswith(_ORBAX))

    logging.get_absl_handler().addFilter(keep)
    before = sys.excepthook

    def report(kind: type, error: BaseException, trace: TracebackType | None) -> None:
        # arrays that are still being written when one has failed find that the event
        # loop of Orbax has gone, and print so from threads that are not Python's
        if not (isinstance(error, RuntimeError) and str(error) == _LOOP_CLOSED):
            before(kind, error, trace)

    sys.excepthook = report


def damage(folder: pathlib.Path) -> str | None:
    """Returns what is wrong with the state in a folder, or None if it is intact."""
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
    """Returns the SHA-256 of every file of a folder by path, without `CHECKSUMS`."""
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
