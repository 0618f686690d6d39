"""Photographs of ImageNet's classes, in zip archives of one folder a class."""

import csv
import io
import pathlib
import zipfile
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from mmcl_jax.errors import DataError

SUFFIXES = (".webp", ".jpg", ".jpeg", ".png")


class ClassTable(NamedTuple):
    """ImageNet's classes in the order of a classifier's outputs.

    Attributes:
        names: Name of each class.
        index: Index of each class by its WordNet id, the name of its folder.
    """

    names: tuple[str, ...]
    index: dict[str, int]


def read_classes(path: pathlib.Path) -> ClassTable:
    """Reads a table with the columns `index`, `wnid` and `name`."""
    with path.open(newline="") as file:
        rows = sorted(csv.DictReader(file), key=lambda row: int(row["index"]))
    if [int(row["index"]) for row in rows] != list(range(len(rows))):
        raise DataError(f"{path}: column 'index' is not 0, 1, 2, ...")
    names = tuple(row["name"] for row in rows)
    return ClassTable(names, {row["wnid"]: int(row["index"]) for row in rows})


def archives(folder: pathlib.Path, pattern: str) -> list[pathlib.Path]:
    """Returns the archives of a pattern; raises `DataError` if there are none."""
    found = sorted(folder.glob(pattern))
    if not found:
        raise DataError(f"{folder}: no {pattern} in it; see config.sources.pictures")
    return found


class Archives(NamedTuple):
    """Archives of pictures.

    Attributes:
        paths: The archives.
        views: Number of times that each picture is seen: whole, then cuts of it.
    """

    paths: Sequence[pathlib.Path]
    views: int = 1


def read(
    archives: Sequence[Archives], classes: ClassTable, seed: int = 0
) -> Iterator[tuple[np.ndarray, int]]:
    """Yields pictures uint8 `[h, w, 3]` and their labels, archive by archive.

    Args:
        archives: What is read.
        classes: The classes.
        seed: Seed of the cuts.
    """
    rng = np.random.default_rng(seed)
    for paths, views in archives:
        for picture, label in _whole(paths, classes):
            yield picture, label
            for _ in range(views - 1):
                yield _cut(picture, rng), label


def _cut(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Returns a square of 60 to 100 % of the shorter side; half of them mirrored."""
    height, width, _ = picture.shape
    side = round(min(height, width) * rng.uniform(0.6, 1))
    top, left = rng.integers(height - side + 1), rng.integers(width - side + 1)
    square = picture[top : top + side, left : left + side]
    return square[:, ::-1] if rng.random() < 0.5 else square


def _whole(
    paths: Sequence[pathlib.Path], classes: ClassTable
) -> Iterator[tuple[np.ndarray, int]]:
    for path in paths:
        with zipfile.ZipFile(path) as archive:
            for name in sorted(archive.namelist()):
                if not name.lower().endswith(SUFFIXES):
                    continue
                label = classes.index[name.split("/")[0]]
                with Image.open(io.BytesIO(archive.read(name))) as picture:
                    yield np.asarray(picture.convert("RGB")), label


def square(picture: np.ndarray, side: int) -> np.ndarray:
    """Returns the central square, scaled to a side, uint8 `[side, side, 3]`."""
    height, width, _ = picture.shape
    least = min(height, width)
    top, left = (height - least) // 2, (width - least) // 2
    cut = Image.fromarray(picture[top : top + least, left : left + least])
    return np.asarray(cut.resize((side, side), Image.Resampling.BICUBIC))
