"""Temperatures that turn logits into probabilities, without a sample of an old task.

At the end of a stage a run holds the stage's own training samples and no others. The
temperature that makes their labels most likely, among the classes met until then, is
all that is kept of them; that of a snapshot is the geometric mean over its stages. It
is neither of the last stage alone, which has one modality only as a rule, nor the
optimum over all stages at once, which those with the widest logits would decide.

What training has fitted is predicted with more confidence than what it has not, which
pulls temperatures down; the sample that `temperature` makes up pulls them up.
"""

import json
import pathlib
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from mmcl_jax.errors import DataError
from mmcl_jax.files import read_json, write_text
from mmcl_jax.ops.losses import MASKED

CALIBRATION = "calibration.json"
ROUTES = ("given", "predicted")
# of a modality and a stage; more would hardly move a single number
SAMPLES = 512
# a step is 9 %, which changes a probability by less than it is uncertain
_TEMPERATURES = 2.0 ** (np.arange(-80, 81) / 8)
_EXPECTED = "the temperatures that a run has written"


def log_softmax(
    logits: Float[np.ndarray, "n C"],
    allowed: Bool[np.ndarray, "n C"],
    temperature: float,
) -> Float[np.ndarray, "n C"]:
    """Returns `log softmax(logits / temperature)` over the allowed classes.

    Classes that are not allowed have minus infinity; each row allows one at least.

    >>> found = log_softmax(np.log([[8.0, 2.0, 1.0]]), np.array([[1, 1, 0]]) > 0, 1.0)
    >>> np.exp(found).round(3).tolist()
    [[0.8, 0.2, 0.0]]
    """
    scaled = np.where(allowed, np.asarray(logits, np.float64) / temperature, -np.inf)
    scaled -= scaled.max(-1, keepdims=True)
    return scaled - np.log(np.exp(scaled).sum(-1, keepdims=True))


def temperature(
    logits: Float[np.ndarray, "n C"],
    label: Int[np.ndarray, " n"],
    allowed: Bool[np.ndarray, "n C"],
) -> float | None:
    """Returns the temperature of the largest likelihood.

    One more sample is made up: a copy of the one whose label leads by the least, with
    its strongest rival for a label. Where all samples are right, these alone would ask
    for a temperature of zero.

    Args:
        logits: over class slots.
        label: slots that are right.
        allowed: slots that the softmax is over, those of `label` among them.

    Returns:
        The best of a grid from 2^-10 to 2^10; None: no sample has a choice.

    References:
        C. Guo et al., "On Calibration of Modern Neural Networks", ICML 2017; the made
        up sample is in the spirit of J. Platt, "Probabilistic Outputs for Support
        Vector Machines", 1999.
    """
    # a method may rule classes out by itself
    allowed = allowed & (logits > MASKED / 2)
    rows = np.arange(len(label))
    rivals = np.where(allowed, logits, -np.inf)
    rivals[rows, label] = -np.inf
    lead = np.where(allowed.sum(-1) > 1, logits[rows, label] - rivals.max(-1), np.inf)
    if not np.isfinite(lead).any():
        return None
    doubtful = lead.argmin()
    rows = np.append(rows, doubtful)
    label = np.append(label, rivals[doubtful].argmax())
    losses = [
        -log_softmax(logits, allowed, candidate)[rows, label].sum()
        for candidate in _TEMPERATURES
    ]
    return float(_TEMPERATURES[np.argmin(losses)])


def write(path: pathlib.Path, stages: dict[int, dict[str, float | None]]) -> None:
    """Writes the temperatures of all stages so far.

    Args:
        path: of the file.
        stages: what `temperature` gives for each of `ROUTES`, by the stage's index.
    """
    write_text(path, json.dumps({"temperatures": stages}, indent=1) + "\n")


def read(path: pathlib.Path, snapshot: int) -> dict[str, float] | None:
    """Returns the temperature of each route at a snapshot; None: nothing is known.

    Raises:
        DataError: the file is damaged; names it.
    """
    if not path.exists():
        return None
    stages = _read(path)
    if not all(str(i) in stages for i in range(snapshot + 1)):
        return None
    kept = [stages[str(i)] for i in range(snapshot + 1)]
    found = {
        route: [s[route] for s in kept if s[route] is not None] for route in ROUTES
    }
    return {
        route: float(np.exp(np.mean(np.log(values)))) if values else 1.0
        for route, values in found.items()
    }


def _read(path: pathlib.Path) -> dict[str, Any]:
    content = read_json(path, _EXPECTED)
    try:
        stages = {str(int(i)): stage for i, stage in content["temperatures"].items()}
        for stage in stages.values():
            for value in (stage[route] for route in ROUTES):
                if value is not None and not 0 < value < np.inf:
                    raise ValueError(f"a temperature of {value}")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{path}: {type(error).__name__}: {error}; expected {_EXPECTED}"
        ) from error
    return stages
