"""Published zero-shot accuracies, and whether a measured one confirms them.

Whoever has the weights of an encoder can so check that they are read and that files are
prepared as in the publication. Nothing here was measured by this project.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from mmcl_jax import __version__
from mmcl_jax.errors import ConfigError
from mmcl_jax.fields import check_name

_IMAGEBIND = "https://github.com/facebookresearch/ImageBind (README, version 53680b0)"
_MTIL = (
    "Zheng et al., Preventing Zero-Shot Transfer Degradation (ZSCL), ICCV 2023: the "
    "zero-shot row of MTIL"
)


@dataclasses.dataclass(frozen=True)
class Figure:
    """A published zero-shot accuracy.

    Attributes:
        encoder: Whose weights it is of.
        data_set: The data set and its test samples.
        classes: Number of classes.
        samples: Number of test samples.
        percent: The accuracy in percent.
        tolerance: Difference in points that still confirms it.
        names: Where the names of the classes are from.
        templates: Sentences for a name; empty: those of the config.
        source: Where it was published.
        note: What else is known about it.
    """

    encoder: str
    data_set: str
    classes: int
    samples: int
    percent: float
    tolerance: float
    names: str
    templates: tuple[str, ...]
    source: str
    note: str = ""


def _mtil(
    data_set: str,
    classes: int,
    samples: int,
    percent: float,
    *templates: str,
    names: str | None = None,
) -> Figure:
    """Returns a figure of CLIP ViT-B/16 on the test samples that torchvision has."""
    return Figure(
        "openai/clip-vit-base-patch16",
        f"{data_set}, test",
        classes,
        samples,
        percent,
        0.5,
        names or f"`classes` of torchvision's {data_set}, with spaces for underscores",
        templates,
        _MTIL,
    )


FIGURES = {
    "clip_b16-aircraft": _mtil(
        "FGVCAircraft",
        100,
        3333,
        24.3,
        "a photo of a {}, a type of aircraft.",
        "a photo of the {}, a type of aircraft.",
    ),
    "clip_b16-cars": _mtil(
        "StanfordCars",
        196,
        8041,
        64.7,
        "a photo of a {}, a type of car.",
        "a photo of a {}.",
        "a photo of the {}.",
        "a photo of my {}.",
        "i love my {}!",
        "a photo of my dirty {}.",
        "a photo of my clean {}.",
        "a photo of my new {}.",
        "a photo of my old {}.",
    ),
    "clip_b16-cifar100": _mtil(
        "CIFAR100",
        100,
        10000,
        68.2,
        "a photo of a {}.",
        "a blurry photo of a {}.",
        "a black and white photo of a {}.",
        "a low contrast photo of a {}.",
        "a high contrast photo of a {}.",
        "a bad photo of a {}.",
        "a good photo of a {}.",
        "a photo of a small {}.",
        "a photo of a big {}.",
        "a photo of the {}.",
        "a blurry photo of the {}.",
        "a black and white photo of the {}.",
        "a low contrast photo of the {}.",
        "a high contrast photo of the {}.",
        "a bad photo of the {}.",
        "a good photo of the {}.",
        "a photo of the small {}.",
        "a photo of the big {}.",
    ),
    "clip_b16-dtd": _mtil(
        "DTD",
        47,
        1880,
        44.6,
        "a photo of a {} texture.",
        "a photo of a {} pattern.",
        "a photo of a {} thing.",
        "a photo of a {} object.",
        "a photo of the {} texture.",
        "a photo of the {} pattern.",
        "a photo of the {} thing.",
        "a photo of the {} object.",
    ),
    "clip_b16-flowers": _mtil(
        "Flowers102",
        102,
        6149,
        71.0,
        "a photo of a {}, a type of flower.",
        names="Flowers102 in data/prompts.md of openai/CLIP",
    ),
    "clip_b16-food": _mtil(
        "Food101", 101, 25250, 88.5, "a photo of a {}, a type of food."
    ),
    "clip_b16-mnist": _mtil("MNIST", 10, 10000, 59.4, 'a photo of the number: "{}".'),
    "clip_b16-pets": _mtil(
        "OxfordIIITPet", 37, 3669, 89.0, "a photo of a {}, a type of pet."
    ),
    "imagebind-esc50": Figure(
        "imagebind_huge",
        "ESC-50, all five folds",
        50,
        2000,
        66.9,
        1.0,
        "`category` of esc50.csv, with spaces for underscores",
        ("This is a sound of {}",),
        _IMAGEBIND,
        "the authors' sentences are not public; with this one, and underscores in the "
        "names, others measured 66.4 (embeddings-benchmark/mteb, pull request 5015)",
    ),
    "imagebind-imagenet": Figure(
        "imagebind_huge",
        "ImageNet-1k, validation",
        1000,
        50000,
        77.7,
        0.5,
        "the notebook Prompt_Engineering_for_ImageNet of openai/CLIP",
        (),
        _IMAGEBIND,
        "give the 80 sentences of that notebook by config.encoder.templates",
    ),
    "imagebind-nyu": Figure(
        "imagebind_huge",
        "NYU Depth v2, test, depth alone",
        10,
        653,
        54.0,
        1.0,
        "the nine scenes, and `others`",
        (),
        _IMAGEBIND,
        "the tenth class stands for 18 scenes, whose names the authors compare one by "
        "one; others measured 45 (facebookresearch/ImageBind, issue 107)",
    ),
}


def figure(name: str) -> Figure:
    """Returns the figure of a name.

    Raises:
        ConfigError: There is none; the nearest name is suggested.
    """
    check_name("--expect", name, FIGURES)
    return FIGURES[name]


def compared(name: str, data_sets: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Compares a figure with the accuracy on the data set that it is of.

    The difference may be as large as the tolerance and, with fewer samples than the
    published number, twice the deviation of the accuracy of as many draws from them.

    Args:
        name: Name of the figure.
        data_sets: Rows of `frozen_accuracy`; one has as many classes as the figure.

    Returns:
        `data_set` and number of `samples`, `measured` and `published` in percent,
        `allowed` in points, whether it is `confirmed`, and the `row` of a table.

    Raises:
        ConfigError: None or several data sets have as many classes, or more samples.
    """
    known = figure(name)
    rows = [row for row in data_sets if row["classes"] == known.classes]
    if len(rows) != 1:
        counts = ", ".join(f"{r['name']} ({r['classes']} classes)" for r in data_sets)
        raise ConfigError(
            f"--expect: the figure is of {known.data_set}, with {known.classes} "
            f"classes; the stream has {counts}. Give a stream with that data set alone"
        )
    (row,) = rows
    if row["samples"] > known.samples:
        raise ConfigError(
            f"--expect: {row['name']} has {row['samples']} test samples; the figure is "
            f"of {known.samples}: {known.data_set}"
        )
    share, left = known.percent / 100, 1 / row["samples"] - 1 / known.samples
    allowed = known.tolerance + 200 * math.sqrt(share * (1 - share) * left)
    measured = 100 * row["accuracy"]
    confirmed = abs(measured - known.percent) <= allowed
    cells = (
        f"`{name}`",
        f"{known.percent:.1f}",
        f"{measured:.1f}",
        f"{row['samples']}",
        "yes" if confirmed else "no",
        f"mmcl_jax {__version__}",
        "",
    )
    return {
        "data_set": row["name"],
        "samples": row["samples"],
        "measured": measured,
        "published": known.percent,
        "allowed": allowed,
        "confirmed": confirmed,
        "row": f"| {' | '.join(cells)} |",
    }
