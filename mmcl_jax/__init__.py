"""Continual learning over many modalities, in JAX."""

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmcl_jax.classifier import Classifier

__version__ = "0.1.0"


def load(
    workdir: "str | os.PathLike[str]", snapshot: int | None = None
) -> "Classifier":
    """Returns what a run has learnt, ready to label files; see `loading.load`.

    What a user should know of it is a warning: that the run is not finished, for
    instance.

    Args:
        workdir: of the run.
        snapshot: which, counted from 1; None: the newest.
    """
    import warnings

    from mmcl_jax import loading  # JAX is loaded where it is needed

    loaded = loading.load(workdir, snapshot)
    for note in loaded.notes:
        warnings.warn(note, stacklevel=2)
    return loaded
