"""Layouts of data sets of videos."""

import pathlib
import re
from collections.abc import Mapping

from mmcl_jax.errors import DataError, Faults
from mmcl_jax.streams.layouts import lists
from mmcl_jax.streams.manifest import Row

_INDEX = "the classes of UCF101, with lines such as `1 ApplyEyeMakeup`"
_UCF = (
    "a list of UCF101, with lines such as ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi"
)
_AVE = "lines such as Church bell&RUhOCu3LNXM&good&0&10, as in AVE"
_HEADER = "Category"


def ucf101(root: pathlib.Path, split: int = 1) -> list[Row]:
    """Returns the clips of UCF101; `ApplyEyeMakeup` becomes "Apply Eye Makeup".

    Args:
        root: Folder that holds `ucfTrainTestlist` and the folders of classes, perhaps
            inside of a folder `UCF-101`.
        split: Which of the three official splits.

    Raises:
        DataError: A list is missing, or names files that are not there or another class
            than `classInd.txt`.

    References:
        K. Soomro, A. R. Zamir, M. Shah, "UCF101: A Dataset of 101 Human Actions Classes
        From Videos in The Wild", 2012.
    """
    faults = Faults()
    folder = lists.one_of(root, ("ucfTrainTestlist",), "the official lists")
    classes = {}
    for where, line in lists.read_lines(folder / "classInd.txt", _INDEX):
        number, _, name = line.partition(" ")
        if not number.isdecimal() or not name or name in classes:
            faults.errors.append(f"{where}: {line!r}; expected {_INDEX}")
        classes[name.strip()] = number
    base = "UCF-101/" if (root / "UCF-101").is_dir() else ""
    rows = []
    for part in ("train", "test"):
        path = folder / f"{part}list{split:02}.txt"
        for where, line in lists.read_lines(path, _UCF):
            listed, _, number = line.partition(" ")
            file = lists.relative(where, listed, faults)
            name = (file or "").partition("/")[0]
            if file is None:
                continue
            if name not in classes or number.strip() not in ("", classes[name]):
                faults.errors.append(
                    f"{where}: {line!r}; its class is not that of classInd.txt"
                )
                continue
            rows.append(Row(f"{base}{file}", _words(name), "video", part, "ucf101"))
    rows = lists.present(root, rows, faults)
    faults.check()
    return rows


def _words(name: str) -> str:
    """Returns the words of a name without spaces.

    >>> _words("ApplyEyeMakeup")
    'Apply Eye Makeup'
    """
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)


def ave(root: pathlib.Path) -> list[Row]:
    """Returns the clips of AVE, the Audio-Visual Event data set.

    The clips of `valSet.txt` are left out.

    Args:
        root: Folder that holds `Annotations.txt`, `trainSet.txt`, `testSet.txt` and the
            clips, `AVE/<id>.mp4`.

    Raises:
        DataError: A list is missing, or names files that are not there or another class
            than `Annotations.txt`.

    References:
        Y. Tian et al., "Audio-Visual Event Localization in Unconstrained Videos", ECCV
        2018.
    """
    faults = Faults()
    known: dict[str, set[str]] = {}
    for label, video, _ in _events(root / "Annotations.txt", faults):
        known.setdefault(video, set()).add(label)
    rows = []
    for part in ("train", "test"):
        for label, video, where in _events(root / f"{part}Set.txt", faults, known):
            if label not in known.get(video, ()):
                faults.errors.append(
                    f"{where}: {video} is not {label!r} in Annotations.txt; download "
                    "the lists again"
                )
            rows.append(Row(f"AVE/{video}.mp4", label, "video", part, "ave"))
    rows = lists.present(root, rows, faults)
    faults.check()
    if not rows:
        raise DataError(f"{root}: no clip is listed; expected {_AVE}")
    return rows


def _events(
    path: pathlib.Path, faults: Faults, known: Mapping[str, set[str]] | None = None
) -> list[tuple[str, str, str]]:
    """Returns class, clip and place of each line; a line may have the clip alone."""
    found = []
    for where, line in lists.read_lines(path, _AVE):
        fields = [field.strip() for field in line.split("&")]
        if fields[0] == _HEADER:
            continue
        if len(fields) == 1 and known and len(known.get(fields[0], ())) == 1:
            (label,) = known[fields[0]]
            fields = [label, fields[0], "", "", ""]
        plain = len(fields) == 5 and re.fullmatch(r"[\w-]+", fields[1], re.ASCII)
        if not plain or not fields[0]:
            faults.errors.append(f"{where}: {line[:80]!r}; expected {_AVE}")
            continue
        found.append((fields[0], fields[1], where))
    return found
