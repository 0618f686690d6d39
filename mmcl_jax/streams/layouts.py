"""Layouts of published data sets: the class of each of their files."""

import os
import pathlib

from mmcl_jax.errors import DataError, Faults
from mmcl_jax.streams.manifest import Row
from mmcl_jax.streams.table_files import Column, read_rows

_SPLITS = {"train": "train", "val": "test", "validation": "test", "test": "test"}
_NYU = "<root>/{train,test or val}[/depth]/<class>/*.png, 16-bit maps in millimetres"
_ESC50 = "the table of ESC-50, with the columns filename, fold and category"


def esc50(root: pathlib.Path, test_fold: int = 5) -> list[Row]:
    """Returns the 2,000 sounds of ESC-50, as `meta/esc50.csv` lists them.

    Args:
        root: Folder that holds the folders `meta` and `audio`.
        test_fold: Which of the five folds is the test part; the others train. Clips of
            one recording are in one fold.

    Raises:
        DataError: The table is missing, or is not that of ESC-50.

    References:
        K. J. Piczak, "ESC: Dataset for Environmental Sound Classification", 2015.
    """
    path = root / "meta" / "esc50.csv"
    columns = [Column(name) for name in ("filename", "fold", "category")]
    rows, faults = [], Faults()
    for line, values in read_rows(path, columns, _ESC50, faults):
        if values["fold"] not in ("1", "2", "3", "4", "5"):
            faults.errors.append(
                f"{path}:{line}: fold {values['fold']!r}; expected 1 to 5"
            )
        split = "test" if values["fold"] == str(test_fold) else "train"
        file = f"audio/{values['filename']}"
        rows.append(Row(file, values["category"], "audio", split, "esc50"))
    faults.check()
    return rows


def nyu_depth(root: pathlib.Path) -> list[Row]:
    """Returns depth maps, in a folder for each class below `train` and `test` or `val`.

    This is how the scenes of NYU Depth v2 are distributed for classification. A folder
    `depth` may lie between split and class; other folders beside it are ignored. The
    maps must be in millimetres: those of SUN RGB-D are stored rotated by three bits.

    Args:
        root: Folder that holds a folder for each split.

    Raises:
        DataError: There is no depth map in such folders.

    References:
        N. Silberman et al., "Indoor Segmentation and Support Inference from RGBD
        Images", ECCV 2012.
    """
    rows = []
    for name, split in _SPLITS.items():
        folder = root / name
        folder = folder / "depth" if (folder / "depth").is_dir() else folder
        for parent, folders, files in os.walk(folder):
            folders.sort()
            place = pathlib.Path(parent).relative_to(folder).parts
            maps = sorted(f for f in files if f.lower().endswith(".png"))
            if place and maps:
                at = pathlib.Path(parent).relative_to(root)
                rows += [
                    Row((at / f).as_posix(), place[0], "depth", split, "nyu_depth")
                    for f in maps
                ]
    if not rows:
        raise DataError(f"{root}: no depth map in it; expected {_NYU}")
    return rows
