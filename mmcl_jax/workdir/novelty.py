"""The novelty quantiles of the stages on disk, see `evaluation.novelty`."""

import pathlib
from typing import Any

import numpy as np

from mmcl_jax.errors import reading
from mmcl_jax.evaluation.novelty import LEVELS
from mmcl_jax.files import read_json, write_json
from mmcl_jax.workdir import identity
from mmcl_jax.workdir.identity import Owner
from mmcl_jax.workdir.layout import NOVELTY

_EXPECTED = "the novelty quantiles that a run has written"

# fields of `novelty.Quantiles`, by the index of the stage and by modality
Stages = dict[int, dict[str, dict[str, Any]]]


def write(workdir: pathlib.Path, run: str, stages: Stages) -> None:
    """Writes the quantiles of all stages so far.

    Args:
        workdir: Workdir of the run.
        run: Id of the run.
        stages: Quantiles of the stages.
    """
    content = {"run": run, "quantiles": {str(i): own for i, own in stages.items()}}
    write_json(workdir / NOVELTY, identity.sealed(content))


def read(workdir: pathlib.Path, owner: Owner) -> Stages:
    """Returns the stored quantiles of the stages; none if there is no file.

    Raises:
        DataError: The file is damaged, or of another run; names it.
    """
    path = workdir / NOVELTY
    if not path.exists():
        return {}
    with reading(str(path), _EXPECTED):
        content = identity.unsealed(path, read_json(path, _EXPECTED))
        stored = content["quantiles"]
        owner.check(path, content["run"], max(map(int, stored), default=0))
        for fields in (each for own in stored.values() for each in own.values()):
            values = np.array(fields["values"], np.float64)
            if values.shape != LEVELS.shape or not (np.diff(values) >= 0).all():
                raise ValueError("quantiles that do not ascend")
            if set(fields) != {"count", "values"} or not fields["count"] > 0:
                raise ValueError(f"quantiles with the fields {sorted(fields)}")
        return {int(i): own for i, own in stored.items()}
