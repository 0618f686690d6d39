"""Messages of a run whose numbers are not finite, or close to that."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mmcl_jax.errors import DivergedError
from mmcl_jax.training.learner import LearnerState
from mmcl_jax.types import Metrics


def of_step(where: str, ids: Any, logged: Metrics) -> DivergedError:
    """Returns the error of a training step; the state before it has been saved.

    Args:
        where: Stage and step.
        ids: Ids of the step's samples, on the devices; -1 is padding.
        logged: Metrics of the step.
    """
    # each process can read only its own part of the batch
    rows = np.concatenate([np.asarray(s.data) for s in ids.addressable_shards])
    return DivergedError(
        f"{where}: loss {float(logged['loss']):g}, gradient norm "
        f"{float(logged['gradient_norm']):g}, samples "
        f"{sorted({int(i) for i in rows if i >= 0})}. The state before it is saved; "
        "lower config.train.optimizer.learning_rate, or skip such steps with "
        "config.train.on_nonfinite=skip_step"
    )


def of_state(where: str, state: LearnerState) -> DivergedError:
    """Returns the error of a state; it names the arrays that are not finite."""
    learnt = {"params": state.params, "memory": state.memory}
    names = [
        jax.tree_util.keystr(path)
        for path, leaf in jax.tree_util.tree_leaves_with_path(learnt)
        if not bool(jnp.isfinite(leaf).all())
    ]
    return DivergedError(
        f"{where}: not finite: {', '.join(names)}. Earlier saved states are untouched"
    )


def nearly_singular(where: str, jitter: float) -> str:
    """Returns the warning about a nearly singular matrix.

    Args:
        where: Stage and move.
        jitter: Largest value that was added to its diagonal.
    """
    return (
        f"{where}: a matrix was close to singular; up to {jitter:.1e} was added to its "
        "diagonal. More shrinkage or regularization in the method avoids that"
    )
