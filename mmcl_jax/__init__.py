"""Continual learning over many modalities, in JAX."""

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmcl_jax.modalities.base import TextReference
    from mmcl_jax.serving.classifier import Classifier
    from mmcl_jax.serving.exported import Exported
    from mmcl_jax.serving.learner import Learner

__version__ = "0.1.0"
__all__ = ["Learner", "TextReference", "__version__", "load", "load_model"]


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


def load_model(name: "str | os.PathLike[str]") -> "Exported":
    """Returns what `mmcl_jax.export` has written, ready to label files.

    Args:
        name: Folder, or `hf://org/name[@revision]`, which is then downloaded.
    """
    import warnings

    from mmcl_jax.serving import exported, remote

    loaded = exported.load(remote.fetch(os.fspath(name)))
    for note in loaded.notes:
        warnings.warn(note, stacklevel=2)
    return loaded


def __getattr__(name: str) -> Any:
    # imported late: JAX takes a second to load
    if name == "Learner":
        from mmcl_jax.report.live import Reporter
        from mmcl_jax.serving.learner import Learner

        Learner.make_reporter = Reporter
        return Learner
    if name == "TextReference":
        from mmcl_jax.modalities.base import TextReference

        return TextReference
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
