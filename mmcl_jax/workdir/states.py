"""Reads states of a run without running it: in one process, and writes nothing."""

import hashlib
import math
import pathlib
from collections.abc import Callable, Iterable
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from mmcl_jax.errors import DataError, WorkdirError, reading
from mmcl_jax.types import PyTree
from mmcl_jax.workdir.identity import Owner
from mmcl_jax.workdir.layout import SNAPSHOTS, snapshot
from mmcl_jax.workdir.snapshots import CHECKSUMS, damage

# largest size stated by a file that is trusted
_MAX_BYTES = 16 * 2**30


def sealed(folder: pathlib.Path) -> list[int]:
    """Returns the numbers of the completely written states of a folder."""
    return sorted(
        int(path.parent.name)
        for path in folder.glob(f"*/{CHECKSUMS}")
        if path.parent.name.isdecimal()
    )


def choose(workdir: pathlib.Path, wanted: int | None) -> tuple[int, list[str]]:
    """Returns the snapshot of a run to use, and notes on those that were skipped.

    Args:
        workdir: Workdir of the run.
        wanted: Number of the stage, counted from 1; None takes the newest intact one.

    Returns:
        Its number, counted from 0; and a line for each newer one that is damaged.

    Raises:
        WorkdirError: There is no snapshot, not the wanted one, or it is damaged.
    """
    folders = (workdir / SNAPSHOTS).glob("*")
    numbers = sorted(int(path.name) for path in folders if path.name.isdecimal())
    if not numbers:
        raise WorkdirError(
            f"--workdir: {workdir} has no snapshot yet; the first is written after the "
            "first stage"
        )
    if wanted is not None and wanted - 1 not in numbers:
        there = ", ".join(str(number + 1) for number in numbers)
        raise WorkdirError(f"--snapshot: no {wanted} in {workdir}; there are {there}")
    notes = []
    for number in reversed(numbers) if wanted is None else [wanted - 1]:
        reason = damage(snapshot(workdir, number))
        if reason is None:
            return number, notes
        notes.append(f"{snapshot(workdir, number)} is damaged: {reason}")
    raise WorkdirError("; ".join(notes))


def place(workdir: pathlib.Path, run: str, number: int) -> dict[str, Any]:
    """Returns what a snapshot stores with its results about its place in a run.

    Args:
        workdir: Workdir of the run.
        run: Id of the run.
        number: Number of the snapshot, counted from 0.
    """
    return {"run": run, "stage": number, "before": _digest(workdir, number - 1)}


def check_place(
    workdir: pathlib.Path, number: int, stored: dict[str, Any], owner: Owner
) -> None:
    """Raises `DataError` unless a snapshot has the place that it was written for.

    Args:
        workdir: Workdir of the run.
        number: Number of the snapshot, counted from 0.
        stored: Results that are stored with it.
        owner: The run.
    """
    path = snapshot(workdir, number)
    owner.check(path, stored.get("run"), number)
    if stored.get("stage") != number:
        raise DataError(
            f"{path}: the snapshot of stage {stored.get('stage', -1) + 1}, not of "
            f"stage {number + 1}; restore the folders"
        )
    # earlier snapshots may have been deleted
    before = _digest(workdir, number - 1)
    if before is not None and stored.get("before") != before:
        raise DataError(
            f"{path}: it was not learnt from {snapshot(workdir, number - 1)}, which "
            "has other checksums; restore the folders"
        )


def _digest(workdir: pathlib.Path, number: int) -> str | None:
    """Returns a hash of a snapshot; None: there is no such snapshot."""
    path = snapshot(workdir, number) / CHECKSUMS
    if number < 0 or not path.is_file():
        return None
    return hashlib.sha256(path.read_bytes()).hexdigest()


def read_part(
    folder: pathlib.Path,
    number: int,
    pick: Callable[[PyTree], Iterable[str]],
    max_bytes: int,
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Reads some arrays of a state, in this process alone and whoever wrote it.

    Args:
        folder: Folder of the states.
        number: Number of a `sealed` state.
        pick: Returns the wanted paths, such as `memory/anchor`, from the nested dicts
            of the state.
        max_bytes: Limit per path; a path with more bytes below it is left out.

    Returns:
        The nested dicts with NumPy arrays, of these paths alone; and the paths that
        were left out.

    Raises:
        ValueError: The state cannot be read.
    """
    path, alone = _folder_of(folder, number), _alone()
    handler = ocp.CompositeCheckpointHandler(
        state=ocp.PyTreeCheckpointHandler(multiprocessing_options=alone),
        # not read here, but Orbax warns about an item without a handler
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


def read(folder: pathlib.Path) -> dict[str, np.ndarray]:
    """Reads one state as stored, without its method.

    Args:
        folder: Folder of the state, for instance `runs/demo/snapshots/000`.

    Returns:
        Its arrays by path, such as `params/adapters/visual/prompts`.

    Raises:
        DataError: The state is absent, damaged, or larger than 16 GiB.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such state")
    if reason := damage(folder):
        raise DataError(f"{folder}: {reason}")
    with reading(str(folder / CHECKSUMS), "a state of a run"):
        state, left_out = read_part(
            folder.parent, int(folder.name), lambda stored: list(stored), _MAX_BYTES
        )
    if left_out:
        raise DataError(f"{folder}: larger than the limit of {_MAX_BYTES} bytes")
    return by_path(state)


def by_path(tree: PyTree) -> dict[str, Any]:
    """Returns the leaves of a tree by their path.

    >>> by_path({"params": {"visual": 1.0}, "memory": (2.0,)})
    {'memory/0': 2.0, 'params/visual': 1.0}
    """
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


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
    """Returns options for what one process does without waiting for the others."""
    own = jax.process_index()
    return ocp.options.MultiprocessingOptions(
        primary_host=own, active_processes={own}, barrier_sync_key_prefix="reading"
    )
