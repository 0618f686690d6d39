"""The temperatures of the stages on disk, see `evaluation.calibration`."""

import json
import pathlib

import numpy as np

from mmcl_jax.errors import reading
from mmcl_jax.evaluation.calibration import ROUTES
from mmcl_jax.files import read_json, write_text
from mmcl_jax.workdir.layout import CALIBRATION

_EXPECTED = "the temperatures that a run has written"

# by the index of the stage and by route; None where no sample has a choice
Temperatures = dict[int, dict[str, float | None]]


def write(workdir: pathlib.Path, stages: Temperatures) -> None:
    """Writes the temperatures of all stages so far.

    Args:
        workdir: Workdir of the run.
        stages: What `calibration.temperature` gives for each of `ROUTES`.
    """
    path = workdir / CALIBRATION
    write_text(path, json.dumps({"temperatures": stages}, indent=1) + "\n")


def read(workdir: pathlib.Path) -> Temperatures:
    """Returns the stored temperatures of the stages; none if there is no file.

    Raises:
        DataError: The file is damaged; names it.
    """
    path = workdir / CALIBRATION
    if not path.exists():
        return {}
    with reading(str(path), _EXPECTED):
        stored = read_json(path, _EXPECTED)["temperatures"]
        stages = {
            int(i): {route: stage[route] for route in ROUTES}
            for i, stage in stored.items()
        }
        for value in (v for stage in stages.values() for v in stage.values()):
            if value is not None and not 0 < value < np.inf:
                raise ValueError(f"a temperature of {value}")
    return stages
