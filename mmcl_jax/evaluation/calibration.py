"""Temperatures that turn logits into probabilities, without a sample of an old task.

At the end of a stage a run holds the stage's own training samples and no others. The
temperature that makes their labels most likely, among the classes seen until then, is
all that is kept of them; that of a snapshot is the geometric mean over its stages. The
last stage alone would not do, since as a rule it has one modality only; nor would the
optimum over all stages at once, which those with the widest logits would decide.

Training samples are predicted with more confidence than others, which pulls
temperatures down; the artificial sample of `temperature` pulls them up.
"""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Float, Int

from mmcl_jax.ops.losses import MASKED

ROUTES = ("given", "predicted")
# number of samples per modality and stage; more would hardly change a single number
SAMPLES = 512
# a step is 9 %, which changes a probability by less than its uncertainty
_TEMPERATURES = 2.0 ** (np.arange(-80, 81) / 8)


def log_softmax(
    logits: Float[np.ndarray, "n C"],
    allowed: Bool[np.ndarray, "n C"],
    temperature: float,
) -> Float[np.ndarray, "n C"]:
    """Returns `log softmax(logits / temperature)` over the allowed classes.

    Classes that are not allowed get minus infinity; each row allows at least one.

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

    One artificial sample is added: a copy of the one whose label leads by the least,
    labelled with its strongest rival. If all samples are predicted correctly, they
    alone would make the optimum zero.

    Args:
        logits: Logits over class slots.
        label: True slots.
        allowed: Slots that the softmax is over, including those of `label`.

    Returns:
        The best of a grid from 2^-10 to 2^10; None if no sample has a choice.

    References:
        C. Guo et al., "On Calibration of Modern Neural Networks", ICML 2017; the
        artificial sample is in the spirit of J. Platt, "Probabilistic Outputs for
        Support Vector Machines", 1999.
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


def at_snapshot(
    stages: Mapping[int, Mapping[str, float | None]], snapshot: int
) -> dict[str, float] | None:
    """Returns the temperature of each route at a snapshot.

    Args:
        stages: What `temperature` gives for each of `ROUTES`, by the stage's index.
        snapshot: Index of the snapshot.

    Returns:
        Geometric means over the stages up to it, 1 where no sample had a choice; None
        if a stage is missing.
    """
    if not all(i in stages for i in range(snapshot + 1)):
        return None
    kept = [stages[i] for i in range(snapshot + 1)]
    found = {
        route: [value for s in kept if (value := s[route]) is not None]
        for route in ROUTES
    }
    return {
        route: float(np.exp(np.mean(np.log(values)))) if values else 1.0
        for route, values in found.items()
    }
