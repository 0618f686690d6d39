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
from typing import Any, NamedTuple

from mmcl_jax.errors import DataError
from mmcl_jax.files import read_json, write_json
from mmcl_jax.workdir.layout import ORIGIN

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
    told = {k: v for k, v in stream.items() if k != "contents"}  # it may be unknown
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
        DataError: `origin.json` is damaged, or of another run.
    """
    own = Owner(run_id(settings, stream))
    path = workdir / ORIGIN
    if not path.exists():
        return own
    stored = unsealed(path, read_json(path, "where a run was branched from"))
    own.check(path, stored.get("run"), 0)
    return own._replace(origins=tuple((o["run"], o["stages"]) for o in stored["from"]))


def write_origin(workdir: pathlib.Path, own: str, source: Owner, stages: int) -> None:
    """Writes that a run was branched from another one after some stages."""
    origins = [*source.origins, (source.run, stages)]
    told = [{"run": run, "stages": min(n, stages)} for run, n in origins]
    write_json(workdir / ORIGIN, sealed({"run": own, "from": told}))


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
