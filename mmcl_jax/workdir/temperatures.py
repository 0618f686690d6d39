"""The temperatures of the stages on disk, see `evaluation.calibration`."""

import pathlib

import numpy as np

from mmcl_jax.errors import reading
from mmcl_jax.evaluation.calibration import ROUTES
from mmcl_jax.files import read_json, write_json
from mmcl_jax.workdir import identity
from mmcl_jax.workdir.identity import Owner
from mmcl_jax.workdir.layout import CALIBRATION

_EXPECTED = "the temperatures that a run has written"

# by the index of the stage and by route; None where no sample has a choice
Temperatures = dict[int, dict[str, float | None]]


def write(workdir: pathlib.Path, run: str, stages: Temperatures) -> None:
    """Writes the temperatures of all stages so far.

    Args:
        workdir: Workdir of the run.
        run: Id of the run.
        stages: What `calibration.temperature` gives for each of `ROUTES`.
    """
    by_stage = {str(stage): by_route for stage, by_route in stages.items()}
    content = {"run": run, "temperatures": by_stage}
    write_json(workdir / CALIBRATION, identity.sealed(content))


def read(workdir: pathlib.Path, owner: Owner) -> Temperatures:
    """Returns the stored temperatures of the stages; none if there is no file.

    Raises:
        DataError: The file is damaged, or of another run; names it.
    """
    path = workdir / CALIBRATION
    if not path.exists():
        return {}
    with reading(str(path), _EXPECTED):
        content = identity.unsealed(path, read_json(path, _EXPECTED))
        stored = content["temperatures"]
        owner.check(path, content["run"], max(map(int, stored), default=0))
        stages = {
            int(i): {route: stage[route] for route in ROUTES}
            for i, stage in stored.items()
        }
        for value in (v for stage in stages.values() for v in stage.values()):
            if value is not None and not 0 < value < np.inf:
                raise ValueError(f"a temperature of {value}")
    return stages
