"""What a run says when its numbers are not finite, or close to that."""

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
        where: stage and step.
        ids: of the samples of the step, on the devices; -1 is padding.
        logged: metrics of the step.
    """
    # of several processes each can read its own part of the batch alone
    rows = np.concatenate([np.asarray(s.data) for s in ids.addressable_shards])
    return DivergedError(
        f"{where}: loss {float(logged['loss']):g}, gradient norm "
        f"{float(logged['gradient_norm']):g}, samples "
        f"{sorted({int(i) for i in rows if i >= 0})}. The state before is saved; "
        "lower config.train.optimizer.learning_rate, or leave such steps out by "
        "config.train.on_nonfinite=skip_step"
    )


def of_state(where: str, state: LearnerState) -> DivergedError:
    """Returns the error of a state, which names the arrays that are not finite."""
    learnt = {"params": state.params, "memory": state.memory}
    names = [
        jax.tree_util.keystr(path)
        for path, leaf in jax.tree_util.tree_leaves_with_path(learnt)
        if not bool(jnp.isfinite(leaf).all())
    ]
    return DivergedError(
        f"{where}: not finite: {', '.join(names)}. What was saved before is as it was"
    )


def nearly_singular(where: str, jitter: float) -> str:
    """Returns the warning about a matrix that was hardly possible to solve.

    Args:
        where: stage and move.
        jitter: the most that was added to its diagonal.
    """
    return (
        f"{where}: a matrix was close to singular; up to {jitter:.1e} was added to its "
        "diagonal. More shrinkage or regularization of the method avoids that"
    )
