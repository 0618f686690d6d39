"""Protocols of the literature: the tasks of published streams, for a copy of the data.

A line of the table is a protocol. What a publication leaves to a random draw is pinned
where the draw is known, and alphabetical where it is not.

References:
    S.-A. Rebuffi et al., "iCaRL: Incremental Classifier and Representation Learning",
    CVPR 2017: the class order of seed 1993, in tasks of equal size (B0).
    S. Hou et al., "Learning a Unified Classifier Incrementally via Rebalancing", CVPR
    2019: half of the classes first (B50).
    Z. Zheng et al., "Preventing Zero-Shot Transfer Degradation in Continual Learning of
    Vision-Language Models", ICCV 2023: MTIL, orders I and II.
    Y. Xu et al., "Advancing Cross-domain Discriminability in Continual Learning of
    Vision-Language Models", NeurIPS 2024: X-TAIL.
    W. Pian et al., "Audio-Visual Class-Incremental Learning", ICCV 2023: AVE, Kinetics-
    Sounds and VGGSound100.
"""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np

from mmcl_jax.errors import DataError, Faults
from mmcl_jax.streams import pinned, transfer
from mmcl_jax.streams.arrangement import (
    ClassChoice,
    Known,
    PlannedTask,
    in_pieces,
)
from mmcl_jax.streams.data_sets import DataSet
from mmcl_jax.streams.transfer import Transfer

_SEED = 1993


class ClassSplit(NamedTuple):
    """A data set whose classes are cut into tasks.

    Attributes:
        data_set: Name of the data set; empty: the only one that is chosen.
        classes: Number of its classes; None: any.
        size: Number of classes of a task; None: `classes_per_task`.
        half_first: Whether the first task has half of the classes.
        order: Order of the classes: that of the names, permuted by seed 1993 or not.
    """

    data_set: str = ""
    classes: int | None = None
    size: int | None = None
    half_first: bool = False
    order: Literal["alphabetical", "seed_1993"] = "alphabetical"


class DataSets(NamedTuple):
    """Data sets that are tasks, in their order.

    Attributes:
        names: Names of the data sets.
        shots: Training samples of a class; None: `max_train_per_class`.
    """

    names: tuple[str, ...]
    shots: int | None = None


class Pinned(NamedTuple):
    """Tasks of mmcl-real v1, whose samples are pinned as well, see `pinned`.

    Attributes:
        role: Whether they are its tasks, or those for development.
    """

    role: pinned.Role


_MTIL = "Aircraft Caltech101 CIFAR100 DTD EuroSAT Flowers Food MNIST OxfordPet"
_MTIL_1 = (*_MTIL.split(), "StanfordCars", "SUN397")
_MTIL_2 = ("StanfordCars", "Food", "MNIST", "OxfordPet", "Flowers", "SUN397")
_MTIL_2 += ("Aircraft", "Caltech101", "DTD", "EuroSAT", "CIFAR100")

PROTOCOLS: Mapping[str, ClassSplit | DataSets | Pinned | Transfer] = {
    "b0": ClassSplit(order="seed_1993"),
    "b50": ClassSplit(order="seed_1993", half_first=True),
    "mtil_1": DataSets(_MTIL_1),
    "mtil_2": DataSets(_MTIL_2),
    "x_tail": DataSets(tuple(n for n in _MTIL_1 if n != "CIFAR100"), shots=16),
    "ave": ClassSplit("AVE", classes=28, size=7),
    "kinetics_sounds": ClassSplit("KineticsSounds", classes=30, size=6),
    "vggsound100": ClassSplit("VGGSound100", classes=100, size=10),
    "mmcl_real": Pinned("benchmark"),
    "mmcl_real_development": Pinned("development"),
    **{f"mmcl_real_{name}": stream for name, stream in transfer.REAL.items()},
}
# further names of data sets, in lower case and without marks between words
_ALSO = {
    "Aircraft": ("fgvcaircraft", "fgvc", "fgvcaircraft2013b"),
    "Caltech101": ("caltech",),
    "DTD": ("textures", "describabletextures"),
    "Flowers": ("flowers102", "oxfordflowers", "oxfordflowers102"),
    "Food": ("food101",),
    "OxfordPet": ("oxfordpets", "pets", "oxfordiiitpet"),
    "StanfordCars": ("cars", "cars196"),
    "SUN397": ("sun",),
    "KineticsSounds": ("ksounds", "kineticsound"),
    "VGGSound100": ("vggsound", "vs100"),
}


def tasks(
    protocol: str, known: Known, classes_per_task: int, order: str
) -> list[PlannedTask]:
    """Returns the tasks of a protocol.

    Args:
        protocol: One of `PROTOCOLS`.
        known: Classes of each data set of the user, sorted.
        classes_per_task: Number of classes of a task, where the protocol does not say.
        order: One of `streams.base.ORDERS`, where the protocol has all of them.

    Raises:
        DataError: A data set of the protocol is missing, or has another number of
            classes.
    """
    chosen = PROTOCOLS[protocol]
    where = f"config.stream.protocol: {protocol}"
    if isinstance(chosen, Pinned):
        real = pinned.mmcl_real()
        names = real.tasks[chosen.role].orders[order]
        return pinned.tasks(real, chosen.role, names, known)
    if isinstance(chosen, Transfer):
        names = *chosen.earlier, *chosen.later
        real = pinned.mmcl_real()
        return pinned.tasks(real, "benchmark", names, known, few=chosen.later)
    if isinstance(chosen, DataSets):
        paths = _find(where, chosen.names, known, "image")
        return [
            PlannedTask(
                path,
                tuple(ClassChoice(path, name, chosen.shots) for name in known[path]),
            )
            for path in paths
        ]
    found = list(known)
    if chosen.data_set:
        found = [path for path in known if _is(path, chosen.data_set)]
        found = found or _find(where, (chosen.data_set,), known)
    modalities = [path.split("/")[0] for path in found]
    if len(set(modalities)) < len(found):
        raise DataError(
            f"{where}: it is for one data set of a modality, not for "
            f"{', '.join(found)}; choose by config.stream.include"
        )
    size = chosen.size or classes_per_task
    steps = [_steps(where, chosen, path, known[path], size) for path in found]
    # the same step in each modality, then the next
    longest = max(map(len, steps))
    return [each[k] for k in range(longest) for each in steps if k < len(each)]


def check(
    protocol: str,
    planned: Iterable[PlannedTask],
    data_sets: Iterable[tuple[DataSet, Sequence[str]]],
    faults: Faults,
) -> None:
    """Checks the samples of a protocol that pins them, see `pinned.check`."""
    if isinstance(PROTOCOLS[protocol], Pinned | Transfer):
        pinned.check(pinned.mmcl_real(), planned, data_sets, faults)


def _steps(
    where: str, chosen: ClassSplit, path: str, names: Sequence[str], size: int
) -> list[PlannedTask]:
    if chosen.classes not in (None, len(names)):
        raise DataError(
            f"{where}: it has {chosen.classes} classes, {path} has {len(names)}; "
            "remove, add or exclude classes"
        )
    if chosen.order == "seed_1993":
        # the generator of NumPy before 1.17, whose draws never change
        order = np.random.RandomState(_SEED).permutation(len(names))
        names = [names[int(i)] for i in order]
    first = len(names) // 2 if chosen.half_first else 0
    return in_pieces(path, names, size, first)


def _find(
    where: str, names: tuple[str, ...], known: Known, modality: str = ""
) -> list[str]:
    """Returns the paths of data sets by their names."""
    paths, missing = [], []
    for name in names:
        found = [p for p in known if _is(p, name) and p.startswith(modality)]
        if len(found) > 1:
            raise DataError(
                f"{where}: several data sets may be {name}: {', '.join(found)}; leave "
                "one out by config.stream.exclude"
            )
        paths += found
        missing += [] if found else [name]
    if missing:
        near = difflib.get_close_matches(
            missing[0].lower(), [p.split("/")[1].lower() for p in known], 1, cutoff=0.0
        )
        raise DataError(
            f"{where}: no data set {', '.join(missing)} among {', '.join(known)}; "
            f"rename or add it (nearest to {missing[0]!r}: {near[0]!r})"
        )
    return paths


def _is(path: str, name: str) -> bool:
    plain = re.sub(r"[\W_]", "", path.split("/")[1]).lower()
    return plain in (name.lower(), *_ALSO.get(name, ()))
