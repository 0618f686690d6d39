"""Which run a file belongs to: whatever a run writes for programs says so itself.

The id of a run is a hash of its config and of its stream, encoder included. States,
predictions, temperatures, embeddings and results carry it, and whoever reads them
compares it with that of `config.json` and `stream.json` beside them. So a file that was
swapped, and a config that was edited, are errors instead of other numbers.

Nothing here is a secret: it protects from accidents, not from somebody who computes the
same hashes.
"""

import hashlib
import json
import pathlib
from collections.abc import Iterable
from typing import Any, NamedTuple

from mmcl_jax.errors import DataError
from mmcl_jax.workdir.layout import STREAM

# devices, loggers and pages may differ between the starts of a run
FREE = ("config.resume", "config.mesh", "config.logging", "config.report")
# so may the places of what is read, as long as the same is there
PLACES = {
    "config.stream.root": "the data are",
    "config.stream.path": "the data are",
    "config.stream.paths": "the data are",
    "config.stream.data_dir": "the data are",
    "config.stream.plan": "the plan is",
    "config.encoder.path": "the encoder is",
}
ORIGIN = "origin"  # the key in `stream.json` of the runs that a run continues
_SHOWN = 12  # digits of an id in a message
_CHECKSUM = "checksum"


class Owner(NamedTuple):
    """The run that a workdir belongs to.

    Attributes:
        run: Id of the run.
        origins: Ids of the runs that it was branched from, each with the number of
            stages that were learnt when the branch left.
    """

    run: str
    origins: tuple[tuple[str, int], ...] = ()

    def check(self, path: pathlib.Path, found: Any, stage: int) -> None:
        """Raises `DataError` if a file is not of this run.

        Args:
            path: The file.
            found: The id in it.
            stage: The stage, counted from 0, after which it was written.
        """
        allowed = {self.run, *(run for run, stages in self.origins if stage < stages)}
        if found not in allowed:
            raise DataError(
                f"{path}: of the run {str(found)[:_SHOWN]!r}, but config.json and "
                f"stream.json beside it are of the run {self.run[:_SHOWN]!r}; one of "
                "them was edited or comes from another workdir: restore it"
            )


def run_id(settings: dict[str, Any], stream: dict[str, Any]) -> str:
    """Returns the id of a run, 64 hex digits.

    Args:
        settings: Content of `config.json`.
        stream: Content of `stream.json`.
    """
    free = (*FREE, *PLACES)
    # contents may be unknown
    told = {k: v for k, v in stream.items() if k not in ("contents", ORIGIN)}
    content = json.dumps([_without(settings, "config", free), told], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def _without(value: Any, path: str, free: tuple[str, ...]) -> Any:
    if not isinstance(value, dict):
        return value
    inner = {key: f"{path}.{key}" for key in value}
    return {k: _without(value[k], p, free) for k, p in inner.items() if p not in free}


def owner(
    workdir: pathlib.Path, settings: dict[str, Any], stream: dict[str, Any]
) -> Owner:
    """Returns the run that a workdir belongs to.

    Raises:
        DataError: What `stream.json` says of earlier runs is damaged.
    """
    own = Owner(run_id(settings, stream))
    if ORIGIN not in stream:
        return own
    path = workdir / STREAM
    stored = unsealed(path, stream[ORIGIN])
    own.check(path, stored.get("run"), 0)
    return own._replace(origins=tuple((o["run"], o["stages"]) for o in stored["from"]))


def continued(
    settings: dict[str, Any],
    stream: dict[str, Any],
    source: Owner,
    stages: int,
    earlier: dict[str, Any] | None = None,
    added: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Returns a stream that says of which run it continues the first stages.

    Args:
        settings: Content of `config.json` of the run that continues.
        stream: Content of its `stream.json`.
        source: The run whose stages it continues, as a branch or with more tasks.
        stages: Number of these stages.
        earlier: Content of `stream.json` before, if tasks are added to a run.
        added: What is added now, after its last task: `first`, the index of the first
            task, and where it came from; None: nothing.
    """
    own = run_id(settings, stream)
    origins = [*source.origins, (source.run, stages)]
    told = [{"run": run, "stages": min(n, stages)} for run, n in origins]
    lists = {
        "from": told,
        "added": [*added_tasks(earlier or {}), *([added] if added else [])],
        "retired": [list(each) for each in retired(earlier or {})],
    }
    return stream | {ORIGIN: sealed({"run": own} | lists)}


def retired(stream: dict[str, Any]) -> tuple[tuple[int, int], ...]:
    """Returns `Stream.retired` of a `stream.json`."""
    stored = stream.get(ORIGIN, {}).get("retired", [])
    return tuple((int(slot), int(stages)) for slot, stages in stored)


def with_retired(
    settings: dict[str, Any], stream: dict[str, Any], more: Iterable[tuple[int, int]]
) -> dict[str, Any]:
    """Returns a `stream.json` with more retired classes, as `Stream.retired`."""
    own = {"run": run_id(settings, stream), "from": [], "added": [], "retired": []}
    before = {k: v for k, v in stream.get(ORIGIN, own).items() if k != _CHECKSUM}
    whole = [*map(list, retired(stream)), *map(list, more)]
    return stream | {ORIGIN: sealed(before | {"retired": whole})}


def added_tasks(stream: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns what was added to a run after its config, from its `stream.json`."""
    return stream.get(ORIGIN, {}).get("added", [])


def first_added(stream: dict[str, Any]) -> int | None:
    """Returns the index of the first task that was added; None: there is none."""
    return next((each["first"] for each in added_tasks(stream)), None)


def sealed(content: dict[str, Any]) -> dict[str, Any]:
    """Returns the content of a JSON file with its checksum."""
    return content | {_CHECKSUM: _checksum(content)}


def unsealed(path: pathlib.Path, content: dict[str, Any]) -> dict[str, Any]:
    """Returns the content of a JSON file without its checksum.

    Raises:
        DataError: The checksum is missing or wrong.
    """
    rest = {k: v for k, v in content.items() if k != _CHECKSUM}
    if content.get(_CHECKSUM) != _checksum(rest):
        raise DataError(
            f"{path}: not what the run has written (its checksum is wrong or missing); "
            "restore it"
        )
    return rest


def _checksum(content: dict[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
