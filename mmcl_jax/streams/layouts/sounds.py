"""Layouts of data sets of sounds."""

import pathlib

from mmcl_jax.errors import DataError, Faults
from mmcl_jax.streams.layouts import lists
from mmcl_jax.streams.manifest import Row
from mmcl_jax.streams.table_files import Column, read_rows

_ESC50 = "the table of ESC-50, with the columns filename, fold and category"
_LIST = "a list of Speech Commands, with lines such as bed/00f0204f_nohash_0.wav"
_NO_WORD = ("_", ".")  # such as _background_noise_


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
            continue
        split = "test" if values["fold"] == str(test_fold) else "train"
        file = f"audio/{values['filename']}"
        rows.append(Row(file, values["category"], "audio", split, "esc50"))
    rows = lists.present(root, rows, faults)
    faults.check()
    return rows


def speech_commands(root: pathlib.Path) -> list[Row]:
    """Returns the spoken words of Speech Commands, version 1 or 2.

    What `testing_list.txt` lists is the test part, all that no list names trains, and
    what `validation_list.txt` lists is left out, as is the background noise.

    Args:
        root: Folder of the lists and of a folder for each word.

    Raises:
        DataError: A list is missing or names files that are not there.

    References:
        P. Warden, "Speech Commands: A Dataset for Limited-Vocabulary Speech
        Recognition", 2018.
    """
    faults = Faults()
    listed: dict[str, set[str]] = {}
    for name in ("validation", "testing"):
        path = root / f"{name}_list.txt"
        found = listed[name] = set()
        for where, line in lists.read_lines(path, _LIST):
            if file := lists.relative(where, line, faults):
                found.add(file)
                if not (root / file).is_file():
                    faults.errors.append(f"{where}: {file}: no such file")
    rows = []
    for folder in sorted(root.iterdir()):
        if not folder.is_dir() or folder.name.startswith(_NO_WORD):
            continue
        sounds = (p for p in folder.iterdir() if p.suffix.lower() == ".wav")
        for path in sorted(sounds):
            file = f"{folder.name}/{path.name}"
            if file not in listed["validation"]:
                split = "test" if file in listed["testing"] else "train"
                rows.append(Row(file, folder.name, "audio", split, "speech_commands"))
    faults.check()
    if not rows:
        raise DataError(f"{root}: no sound in a folder of its word; expected {_LIST}")
    return rows
