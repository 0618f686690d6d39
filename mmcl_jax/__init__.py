"""Continual learning over many modalities, in JAX."""

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmcl_jax.serving.classifier import Classifier

__version__ = "0.1.0"
__all__ = ["__version__", "load"]


def load(
    workdir: "str | os.PathLike[str]",
    snapshot: int | None = None,
    encoder: str | None = None,
) -> "Classifier":
    """Returns what a run has learnt, ready to label files.

    It is `serving.from_workdir.load`, but that what a user should know, such
    as that the run is not finished, is a warning.

    Args:
        workdir: of the run.
        snapshot: which, counted from 1; None: the newest.
        encoder: its name, if it has moved or is in a remote repository.
    """
    import warnings

    from mmcl_jax.serving import from_workdir

    loaded = from_workdir.load(workdir, snapshot, encoder)
    for note in loaded.notes:
        warnings.warn(note, stacklevel=2)
    return loaded
