"""Layouts of data sets of depth maps."""

import os
import pathlib
from collections.abc import Mapping

from mmcl_jax.errors import DataError, Faults
from mmcl_jax.streams.layouts import lists
from mmcl_jax.streams.manifest import Row
from mmcl_jax.streams.storage import ROTATED

_SPLITS = {"train": "train", "val": "test", "validation": "test", "test": "test"}
_NYU = "<root>/{train,test or val}[/depth]/<class>/*.png, 16-bit maps in millimetres"
_SUN = "folders of frames with scene.txt and depth/*.png or depth_bfx/*.png"
_LIST = "a list of folders of frames, such as SUNRGBD/kv1/NYUdata/NYU0001"
_UNKNOWN = "idk"  # how SUN RGB-D labels a scene that nobody recognized


def nyu_depth(root: pathlib.Path) -> list[Row]:
    """Returns depth maps, in a folder for each class below `train` and `test` or `val`.

    This is how the scenes of NYU Depth v2 are distributed for classification. A folder
    `depth` may lie between split and class; other folders beside it are ignored, and so
    is `val` beside `test`. The
    maps must be in millimetres: those of SUN RGB-D are stored in another way.

    Args:
        root: Folder that holds a folder for each split.

    Raises:
        DataError: There is no depth map in such folders.

    References:
        N. Silberman et al., "Indoor Segmentation and Support Inference from RGBD
        Images", ECCV 2012.
    """
    rows = []
    there = [name for name in _SPLITS if (root / name).is_dir()]
    held_out = [name for name in there if _SPLITS[name] == "test"]
    # a validation part beside a test part does not score
    left_out = set(held_out) - {"test"} if "test" in held_out else set()
    for name in there:
        if name in left_out:
            continue
        folder, split = root / name, _SPLITS[name]
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


def sun_rgbd(root: pathlib.Path) -> list[Row]:
    """Returns the depth maps of SUN RGB-D, with the kind of scene as their class.

    Each frame is a folder with `scene.txt` and one map in `depth`, or else in
    `depth_bfx`, whose bits are stored rotated. Scenes labelled "idk" are left out. The
    official split is a file of MATLAB; written as `train.txt` and `test.txt` in the
    root, with a folder of a frame in each line, it is used, and frames that neither
    lists are left out. Without them there is no test part.

    Args:
        root: Folder that holds `kv1`, `kv2`, `realsense` and `xtion`, perhaps inside of
            a folder `SUNRGBD`.

    Raises:
        DataError: There is no frame, a frame has not one map, or a list names frames
            that are not there.

    References:
        S. Song, S. P. Lichtenberg, J. Xiao, "SUN RGB-D: A RGB-D Scene Understanding
        Benchmark Suite", CVPR 2015.
    """
    faults = Faults()
    frames = {}
    for parent, folders, files in os.walk(root):
        folders.sort()
        if "scene.txt" in files:
            frames[_frame(pathlib.Path(parent).relative_to(root).as_posix())] = parent
            folders.clear()
    if not frames:
        raise DataError(f"{root}: no frame in it; expected {_SUN}")
    splits = _listed(root, frames, faults)
    rows = []
    for name, parent in frames.items():
        split = splits.get(name) if splits is not None else "train"
        label = _scene(pathlib.Path(parent) / "scene.txt", faults)
        if split is None or label in (None, _UNKNOWN):
            continue
        if path := _map(pathlib.Path(parent), faults):
            file = path.relative_to(root).as_posix()
            rows.append(Row(file, label, "depth", split, "sun_rgbd", ROTATED))
    faults.check()
    return rows


def _frame(path: str) -> str:
    """Returns the place of a frame below the folder SUNRGBD, wherever that is."""
    return path.strip("/").rpartition("SUNRGBD/")[2]


def _listed(
    root: pathlib.Path, frames: Mapping[str, str], faults: Faults
) -> dict[str, str] | None:
    """Returns the split of each listed frame; None if there are no lists."""
    there = [part for part in ("train", "test") if (root / f"{part}.txt").is_file()]
    if not there:
        return None
    found: dict[str, str] = {}
    for part in ("train", "test"):
        for where, line in lists.read_lines(root / f"{part}.txt", _LIST):
            name = _frame(line)
            if name not in frames:
                faults.errors.append(f"{where}: {line}: no frame with scene.txt there")
            elif found.setdefault(name, part) != part:
                faults.errors.append(f"{where}: {line} is in both lists; remove one")
    return found


def _scene(path: pathlib.Path, faults: Faults) -> str | None:
    with faults.collecting():
        words = [line for _, line in lists.read_lines(path, "the kind of a scene")]
        if len(words) == 1:
            return words[0]
        raise DataError(f"{path}: {len(words)} lines; expected the kind of the scene")
    return None


def _map(frame: pathlib.Path, faults: Faults) -> pathlib.Path | None:
    for name in ("depth", "depth_bfx"):
        found = sorted((frame / name).glob("*.png"))
        if len(found) == 1:
            return found[0]
        if found:
            faults.errors.append(f"{frame / name}: {len(found)} maps; expected one")
            return None
    faults.errors.append(f"{frame}: no map in depth or depth_bfx; remove the frame")
    return None
