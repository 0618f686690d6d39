"""An encoder of ours beside what a reference returned."""

import functools
import pathlib
import resource
import time
from typing import Any, NamedTuple

import jax
import numpy as np

from mmcl_jax.models.injection import Injection
from tests.parity import cases
from tests.parity.cases import Case, Expected

UNIT = 2e-6  # of each coordinate of a unit embedding
RELATIVE = 1e-5  # of all of them, and of a gradient, in the Frobenius norm
COLUMNS = ("modality", "max abs", "L2 max abs", "relative", "gradient", "load s")
COLUMNS += ("peak MiB",)
# between the folders of a family that publishes one for each modality
JOINED = "+"


class Errors(NamedTuple):
    """How far an encoder is from its reference.

    Attributes:
        unit: the most that a coordinate of a unit embedding is off.
        relative: the distance of all of them, as a share of their norm.
        prompted_unit: as `unit`, with prompts; of text with a learnt context.
        gradient: distance of the gradient with respect to these, as a share of its
            norm.
    """

    unit: float
    relative: float
    prompted_unit: float | None = None
    gradient: float | None = None

    def too_large(self) -> dict[str, float]:
        """Returns the errors that are above their tolerance."""
        limits = Errors(UNIT, RELATIVE, UNIT, RELATIVE)
        return {
            name: error
            for name, error in self._asdict().items()
            # written so that NaN is too large
            if error is not None and not error <= getattr(limits, name)
        }


def relative(actual: np.ndarray, expected: np.ndarray) -> float:
    """Returns the distance of two arrays as a share of the second one's norm."""
    return float(np.linalg.norm(actual - expected) / np.linalg.norm(expected))


def compare(spec: Any, frozen: Any, modality: str, expected: Expected) -> Errors:
    """Returns the errors of an encoder for one modality."""
    unit = embed(spec, frozen, modality, expected)
    errors = Errors(abs(unit - expected.unit).max(), relative(unit, expected.unit))
    if expected.prompts is None:
        return errors
    with jax.default_matmul_precision("highest"):
        (_, moved), gradient = _with_prompts(spec, modality)(
            expected.prompts, frozen, expected.inputs, expected.cotangent
        )
    return errors._replace(
        prompted_unit=abs(np.asarray(moved) - expected.prompted).max(),
        gradient=relative(np.asarray(gradient), expected.gradient),
    )


def embed(spec: Any, frozen: Any, modality: str, expected: Expected) -> np.ndarray:
    """Returns our unit embeddings of a reference's inputs."""
    # NVIDIA's GPUs multiply float32 with fewer bits unless they are told not to
    with jax.default_matmul_precision("highest"):
        return np.asarray(_without(spec, modality)(frozen, expected.inputs))


@functools.cache
def _without(spec: Any, modality: str) -> Any:
    from mmcl_jax.models import encoder

    return jax.jit(lambda frozen, inputs: encoder.embed(spec, frozen, modality, inputs))


@functools.cache
def _with_prompts(spec: Any, modality: str) -> Any:
    from mmcl_jax.models import encoder

    def loss(prompts: Any, frozen: Any, inputs: Any, cotangent: Any) -> Any:
        if modality == "text":
            ids, first = inputs["tokens"], spec.text.native_first
            replaced = ids[:, first : first + prompts.shape[1]]
            words = frozen[spec.tower_of("text")]["tokens"][replaced]
            moved = encoder.embed_names(spec, frozen, ids, prompts - words)
        else:
            injection = Injection(prompts=prompts)
            moved = encoder.embed(spec, frozen, modality, inputs, injection)
        return (moved * cotangent).sum(), moved

    return jax.jit(jax.value_and_grad(loss, has_aux=True))


def sources(case: Case, folder: pathlib.Path) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Returns what of a case can be loaded: by a short name, its path and modalities.

    A family with a folder for each modality is loaded folder by folder, and joined.
    """
    if not case.repositories:
        return {"whole": (str(folder), case.modalities)}
    paths = {m: str(folder / name) for m, name in case.repositories.items()}
    if len(paths) == 1:
        ((modality, path),) = paths.items()
        return {case.repositories[modality]: (path, (modality, "text"))}
    apart = {case.repositories[m]: (path, (m,)) for m, path in paths.items()}
    return apart | {"joined": (JOINED.join(paths.values()), case.modalities)}


def table(case: Case, folder: pathlib.Path) -> list[tuple[str, ...]]:
    """Returns a row of `COLUMNS` for each modality, all of them by one loaded encoder.

    "max abs" is of embeddings at their own lengths: unit vectors of ours are brought to
    the reference's. Peak memory is that of the process so far.
    """
    from mmcl_jax.models import pretrained
    from mmcl_jax.models.specs import with_trunks

    path, modalities = list(sources(case, folder).values())[-1]
    expected = cases.read(cases.expectations(folder))
    start = time.perf_counter()
    encoder = pretrained.load(path)
    seconds = time.perf_counter() - start
    # large ones would not fit into memory otherwise
    spec = with_trunks(encoder.spec, remat="blocks")
    rows = []
    for modality in modalities:
        said = expected[modality]
        errors = compare(spec, encoder.frozen, modality, said)
        unit = embed(spec, encoder.frozen, modality, said)
        lengths = (said.raw * said.unit).sum(-1, keepdims=True)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        gradient = "" if errors.gradient is None else f"{errors.gradient:.1e}"
        rows.append(
            (
                modality,
                f"{abs(unit * lengths - said.raw).max():.1e}",
                f"{errors.unit:.1e}",
                f"{errors.relative:.1e}",
                gradient,
                f"{seconds:.1f}",
                f"{peak:.0f}",
            )
        )
    return rows
