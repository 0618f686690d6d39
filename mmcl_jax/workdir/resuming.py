"""Whether a run may use a folder, and from which of its states it resumes."""

import json
import pathlib
import shutil
from collections.abc import Iterator
from typing import Any, NamedTuple

from mmcl_jax import config as configs
from mmcl_jax.errors import ConfigError, WorkdirError
from mmcl_jax.files import read_json, write_json, write_text
from mmcl_jax.workdir import identity
from mmcl_jax.workdir.identity import FREE, PLACES
from mmcl_jax.workdir.layout import (
    CALIBRATION,
    CHECKPOINTS,
    CONFIG,
    DAMAGED,
    EMBEDDINGS,
    NOVELTY,
    PREDICTIONS,
    SNAPSHOTS,
    STREAM,
)
from mmcl_jax.workdir.snapshots import CUT_OFF, Snapshots

BRANCH = "branch:"
# an error names so many of several similar defects
_NAMED = 3


def write_config(workdir: pathlib.Path, config: configs.Config) -> None:
    """Writes `config.json`."""
    write_text(workdir / CONFIG, configs.to_json(config))


def has_config(workdir: pathlib.Path, config: configs.Config) -> bool | None:
    """Returns whether `config.json` holds this config; None if it is missing.

    Data and encoder may have moved.

    Raises:
        DataError: It cannot be read.
    """
    if not (workdir / CONFIG).is_file():
        return None
    return not any(each.path not in PLACES for each in _changes(workdir, config))


def moved(workdir: pathlib.Path, config: configs.Config) -> list[str]:
    """Returns a line on data and encoder that the run read from elsewhere before."""
    if not (workdir / CONFIG).is_file():
        return []
    return [
        f"{PLACES[each.path]} now read from {each.here!r}, not {each.there!r}"
        for each in _changes(workdir, config)
        if each.path in PLACES
    ]


def check(workdir: pathlib.Path, config: configs.Config) -> None:
    """Raises `ConfigError` for a workdir of another config, or one that is a file."""
    if workdir.exists() and not workdir.is_dir():
        raise ConfigError(f"--workdir: {workdir} is not a folder")
    if not (workdir / CONFIG).exists():
        return
    free = (*FREE, *PLACES)
    found = (c for c in _changes(workdir, config) if not c.path.startswith(free))
    if different := sorted(map(str, found)):
        raise ConfigError(
            f"--workdir: {workdir} was made with another config: "
            f"{'; '.join(different)}. Choose another folder; add "
            f"--config.resume={BRANCH}{workdir} to continue from what was learnt here"
        )


class _Change(NamedTuple):
    """A value that is not the stored one."""

    path: str
    there: Any
    here: Any

    def __str__(self) -> str:
        return f"{self.path} is {self.there!r} there and {self.here!r} here"


def _changes(workdir: pathlib.Path, config: configs.Config) -> list[_Change]:
    """Returns what a config changes in that of a workdir, and its method reads."""
    stored = read_json(
        workdir / CONFIG, "the config of a run; restore it, or start in another folder"
    )
    stored = json.loads(json.dumps(configs.of_this_version(stored)))
    found = _differences(stored, json.loads(configs.to_json(config)), "config")
    sections = configs.unread_sections(config.method.name)
    unread = tuple(f"config.method.{name}." for name in sections)
    return [change for change in found if not f"{change.path}.".startswith(unread)]


def _differences(there: Any, here: Any, path: str) -> Iterator[_Change]:
    if isinstance(there, dict) and isinstance(here, dict):
        for key in sorted(there.keys() | here.keys()):
            yield from _differences(there.get(key), here.get(key), f"{path}.{key}")
    elif there != here:
        yield _Change(path, there, here)


def branch(
    workdir: pathlib.Path,
    source: pathlib.Path,
    config: configs.Config,
    stream: dict[str, Any],
) -> None:
    """Copies the snapshots of another run, unless this one has some already.

    Args:
        workdir: Workdir of this run.
        source: Workdir of the other run.
        config: Config of this run.
        stream: Content of `stream.json` of this run.

    Raises:
        ConfigError: The other run has no snapshot, or learns another stream.
    """
    if _has_states(workdir / SNAPSHOTS):
        return
    path = f"config.resume: {BRANCH}{source}"
    if not _has_states(source / SNAPSHOTS):
        raise ConfigError(f"{path}: there is no snapshot in it; choose another run")
    theirs = read_json(source / STREAM)
    told = {k: v for k, v in theirs.items() if k != identity.ORIGIN}
    if told != json.loads(json.dumps(stream)):
        raise ConfigError(f"{path}: it learns another stream; choose another run")
    from_run = identity.owner(source, read_json(source / CONFIG), theirs)
    shutil.copytree(source / PREDICTIONS, workdir / PREDICTIONS, dirs_exist_ok=True)
    for name in (CALIBRATION, NOVELTY, EMBEDDINGS):
        if (source / name).exists():
            shutil.copy(source / name, workdir)
    names = [p.name for p in (source / SNAPSHOTS).glob("*") if p.name.isdigit()]
    settings = json.loads(configs.to_json(config))
    stages = 1 + max(map(int, names))
    write_json(workdir / STREAM, identity.continued(settings, told, from_run, stages))
    # last, and by a rename: the folder appears only when the copy is complete
    unfinished = f"{SNAPSHOTS}.tmp"
    shutil.copytree(source / SNAPSHOTS, workdir / unfinished, dirs_exist_ok=True)
    (workdir / unfinished).replace(workdir / SNAPSHOTS)


def _has_states(folder: pathlib.Path) -> bool:
    """Returns whether a folder of states, which may be missing, holds any."""
    return any(path.name.isdigit() for path in folder.glob("*"))


def check_stream(workdir: pathlib.Path, stream: dict[str, Any]) -> None:
    """Raises `WorkdirError` if there are states that were learnt from other data."""
    path = workdir / STREAM
    states = (SNAPSHOTS, CHECKPOINTS)
    if not path.exists() or not any(_has_states(workdir / name) for name in states):
        return
    there, here = read_json(path), json.loads(json.dumps(stream))
    there.pop(identity.ORIGIN, None)
    old, new = there.get("contents"), here.get("contents")
    if old is None or new is None:  # files that are not verified are not compared
        there["contents"] = here["contents"] = None
    elif old != new and there["tasks"] == here["tasks"]:
        reserved = here["reserved"]["tasks"] if "reserved" in here else []
        tasks = zip([*here["tasks"], *reserved], old, new, strict=False)
        names = [task["name"] for task, one, other in tasks if one != other]
        raise WorkdirError(
            f"--workdir: {workdir} was made with other data: files of the same names "
            f"have another content in the tasks {', '.join(names[:_NAMED])}"
            f"{' and more' * (len(names) > _NAMED)}. Restore them, or choose another "
            "folder"
        )
    if different := [*_differences(there, here, "stream")]:
        listed = "; ".join(str(change)[:200] for change in different[:_NAMED])
        raise WorkdirError(
            f"--workdir: {workdir} was made with other data: {listed}. Restore it, or "
            "choose another folder"
        )


def origin(workdir: pathlib.Path) -> dict[str, Any]:
    """Returns what `stream.json` says of the runs that this one continues, if any."""
    path = workdir / STREAM
    if not path.exists():
        return {}
    stored = read_json(path)
    return {k: v for k, v in stored.items() if k == identity.ORIGIN}


class Position(NamedTuple):
    """A state to resume from.

    Attributes:
        moves: Number of moves since the start of the stream.
        store: Store that holds it.
        number: Number of the state in its store.
    """

    moves: int
    store: Snapshots
    number: int


def newest(
    workdir: pathlib.Path, positions: list[Position]
) -> tuple[Position | None, list[str]]:
    """Returns the newest intact state, and what was set aside.

    Damaged states newer than it are moved to `<workdir>/damaged`.

    Args:
        workdir: Workdir of the run.
        positions: All states there are.

    Returns:
        A `Position`, or None if there are no states; and a line for each damaged one.

    Raises:
        WorkdirError: All states are damaged. Nothing is touched.
    """
    damaged = []
    for position in sorted(positions, key=lambda p: p.moves, reverse=True):
        reason = position.store.damage(position.number)
        if reason is None:
            return position, [_set_aside(workdir, *each) for each in damaged]
        damaged.append((position, reason))
    stores = [id(position.store) for position, _ in damaged]
    first = all(reason == CUT_OFF for _, reason in damaged)
    if damaged and not (first and len(set(stores)) == len(stores)):
        named = damaged[:_NAMED]
        listed = "; ".join(f"{p.store.path(p.number)}: {why}" for p, why in named)
        more = f"; and {len(damaged) - _NAMED} more" if len(damaged) > _NAMED else ""
        raise WorkdirError(
            f"--workdir: no state in {workdir} can be used: {listed}{more}. Nothing "
            "was touched; restore them from a copy, or choose another folder"
        )
    # a run that was killed early has only the truncated first state of a store: there
    # is nothing to lose, so it starts afresh
    return None, [_set_aside(workdir, *each) for each in damaged]


def foreign(path: pathlib.Path, error: Exception) -> WorkdirError:
    """Returns the error of an intact state that cannot be restored due to `error`."""
    reason = str(error).strip().splitlines() or [repr(error)]
    return WorkdirError(
        f"{path}: whole, but not a state of this method in this version ({reason[0]});"
        " resume with the version that wrote it, or choose another folder"
    )


def _set_aside(workdir: pathlib.Path, position: Position, reason: str) -> str:
    path = position.store.path(position.number)
    moved = position.store.set_aside(position.number, workdir / DAMAGED)
    return f"{path} is damaged: {reason}; moved to {moved}"
