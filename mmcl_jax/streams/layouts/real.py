"""The copy of mmcl-real v1 that is made of clones of the repositories that it is from.

Files are copied as they are, but for names in lower case; lists of sentences become
tables. `docs/data.md` names the repositories and their commits.
"""

import csv
import io
import json
import pathlib
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from mmcl_jax.errors import DataError, Faults, check_bytes, reading
from mmcl_jax.files import write_text

_REMEDY = 'clone it as docs/data.md, section "mmcl-real v1", says'
_MAX_BYTES = 64 * 2**20  # of a list of sentences
_LIST = "a list of sentences, as the repository has it"
_DIGITS = "zero one two three four five six seven eight nine".split()
_NO_OBJECT = ("BACKGROUND_Google", "Faces_easy")
_STROKES = {
    "b_slice": "backhand_slice",
    "b_volley": "backhand_volley",
    "f_volley": "forehand_volley",
}
_LETTERS = "abcdefghiklm"  # j is a movement
_PICKLES = ("cifar-10-batches-py", "cifar-10-python.tar.gz")


class Item(NamedTuple):
    """A file of a clone, and its place in the copy."""

    part: str
    label: str
    path: pathlib.Path
    name: str


# sentences with their labels, by part
Rows = Mapping[str, Sequence[tuple[str, str]]]


def copy(sources: pathlib.Path, out: pathlib.Path) -> dict[str, int]:
    """Copies all data sets but `audio/instruments`, which is rendered.

    A data set that is there is left as it is; one that was half copied is copied anew.

    Args:
        sources: Folder of the clones, each under the name of its repository.
        out: Folder of the copy, `<out>/<modality>/<data set>/{train,test}/...`.

    Returns:
        Number of samples that were copied, by data set.

    Raises:
        DataError: Clones are missing, or a file in one of them is; nothing is copied if
            a clone is missing.
    """
    faults = Faults()
    for data_set, (clone, _) in (_FILES | _TABLES).items():
        if not (sources / clone).is_dir():
            faults.errors.append(f"{sources / clone}: no such folder; {_REMEDY}")
            if data_set == "image/cifar10" and _holds_pickles(sources):
                faults.errors[-1] += (
                    "; the official archive for Python holds pickles, which are never "
                    "opened, since they may run any code"
                )
    faults.check()
    copied = {}
    for data_set in _FILES | _TABLES:
        target = out / data_set
        if target.exists():
            continue
        partial = target.with_name(f".{target.name}.part")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        if data_set in _FILES:
            clone, list_items = _FILES[data_set]
            copied[data_set] = _copy_files([*list_items(sources / clone)], partial)
        else:
            clone, read_rows = _TABLES[data_set]
            copied[data_set] = _write_tables(read_rows(sources / clone), partial)
        partial.rename(target)
    return copied


def _holds_pickles(sources: pathlib.Path) -> bool:
    return any((sources / name).exists() for name in _PICKLES)


def _copy_files(items: Sequence[Item], target: pathlib.Path) -> int:
    for item in items:
        folder = target / item.part / item.label
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(item.path, folder / item.name)
    return len(items)


def _write_tables(rows: Rows, target: pathlib.Path) -> int:
    for part, found in rows.items():
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow(("text", "label"))
        table.writerows(found)
        write_text(target / f"{part}.csv", text.getvalue())
    return sum(map(len, rows.values()))


def _cifar10(root: pathlib.Path) -> Iterator[Item]:
    """Yields the first pictures of each class and official part."""
    for part, count in (("train", 200), ("test", 80)):
        for folder in _inside(root / part):
            yield from _items(part, folder.name, _inside(folder)[:count])


def _caltech101(root: pathlib.Path) -> Iterator[Item]:
    """Yields the first 30 pictures of each object, of which 20 train."""
    for folder in _inside(root / "101_ObjectCategories"):
        if folder.name not in _NO_OBJECT:
            files, label = _inside(folder), folder.name.lower()
            yield from _items("train", label, files[:20])
            yield from _items("test", label, files[20:30])


def _sign_digits(root: pathlib.Path) -> Iterator[Item]:
    """Yields the first 30 pictures of each digit to train, and the last 12."""
    for digit, label in enumerate(_DIGITS):
        files = _inside(root / "Dataset" / str(digit))
        yield from _items("train", label, files[:30])
        yield from _items("test", label, files[-12:])


def _fsdd(root: pathlib.Path) -> Iterator[Item]:
    """Yields the recordings 5 to 14 of each speaker and digit to train, 0 to 4."""
    for path in _inside(root / "recordings"):
        found = re.fullmatch(r"(\d)_[a-z]+_(\d+)\.wav", path.name)
        if found and (number := int(found[2])) < 15:
            part = "test" if number < 5 else "train"
            yield from _items(part, _DIGITS[int(found[1])], [path])


def _asl_fingerspelling(root: pathlib.Path) -> Iterator[Item]:
    """Yields frames of the first three quarters of a letter, and of its last fifth.

    What lies between is left out, since a letter is one continuous recording.
    """
    for letter in _LETTERS:
        folder = root / "dataset5" / "A" / letter
        frames = [path for path in _inside(folder) if path.name.startswith("depth_")]
        first, last = frames[: 3 * len(frames) // 4], frames[4 * len(frames) // 5 :]
        yield from _items("train", letter, _spread(first, 60))
        yield from _items("test", letter, _spread(last, 24))


def _spread(paths: Sequence[pathlib.Path], count: int) -> list[pathlib.Path]:
    return [paths[i * len(paths) // count] for i in range(count)] if paths else []


def _tennis(root: pathlib.Path) -> Iterator[Item]:
    """Yields all clips of each stroke, of which the first 40 train."""
    for folder in _inside(root / "tennis_dataset"):
        files, label = _inside(folder), _STROKES.get(folder.name, folder.name)
        yield from _items("train", label, files[:40])
        yield from _items("test", label, files[40:])


def _items(part: str, label: str, paths: Sequence[pathlib.Path]) -> Iterator[Item]:
    return (Item(part, label, path, path.name.lower()) for path in paths)


def _inside(folder: pathlib.Path) -> list[pathlib.Path]:
    """Returns what lies in a folder, numbers in names in the order of their values.

    Links are left out: a clone must not make other files be copied.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; {_REMEDY}")

    def key(path: pathlib.Path) -> list[tuple[int, str]]:
        parts = re.split(r"(\d+)", path.name)
        return [(int(p), "") if p.isdecimal() else (0, p) for p in parts]

    inside = (p for p in folder.iterdir() if p.name[0] != "." and not p.is_symlink())
    return sorted(inside, key=key)


def _clinc150(root: pathlib.Path) -> Rows:
    """Returns the sentences that are in scope, in their official parts."""
    path = root / "data" / "data_full.json"
    with reading(str(path), _LIST):
        found = _json(path)
        return {
            part: [(text, label) for text, label in found[part]]
            for part in ("train", "test")
        }
    raise AssertionError("`reading` passes no error on")


def _snips(root: pathlib.Path) -> Rows:
    """Returns 100 sentences of each intent to train, and 40 for testing."""
    rows: dict[str, list[tuple[str, str]]] = {"train": [], "test": []}
    for folder in _inside(root / "2017-06-custom-intent-engines"):
        if not folder.is_dir():
            continue
        name = folder.name
        label = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()
        test = _sentences(folder / f"validate_{name}.json", name)[:40]
        train = _sentences(folder / f"train_{name}_full.json", name)
        train = [sentence for sentence in train if sentence not in test][:100]
        for part, sentences in (("train", train), ("test", test)):
            rows[part] += [(sentence, label) for sentence in sentences]
    return rows


def _sentences(path: pathlib.Path, intent: str) -> list[str]:
    """Returns the different sentences of an intent, each joined of its parts."""
    with reading(str(path), _LIST):
        parts = [
            [part["text"] for part in each["data"]] for each in _json(path)[intent]
        ]
        joined = (" ".join("".join(texts).split()) for texts in parts)
        return list(dict.fromkeys(joined))
    raise AssertionError("`reading` passes no error on")


def _json(path: pathlib.Path) -> Any:
    """Returns a JSON file, in which bytes that are no UTF-8 are Latin-1."""
    check_bytes(path, _MAX_BYTES)
    text = path.read_bytes().decode("utf-8", "surrogateescape")
    latin = re.sub(r"[\udc80-\udcff]", lambda found: chr(ord(found[0]) - 0xDC00), text)
    return json.loads(latin)


_FILES: dict[str, tuple[str, Callable[[pathlib.Path], Iterator[Item]]]] = {
    "image/cifar10": ("CIFAR-10-images", _cifar10),
    "image/caltech101": ("Homework2-Caltech101", _caltech101),
    "image/sign_digits": ("Sign-Language-Digits-Dataset", _sign_digits),
    "audio/fsdd": ("free-spoken-digit-dataset", _fsdd),
    "depth/asl_fingerspelling": ("gesture_recognition", _asl_fingerspelling),
    "video/tennis": ("3DCNN-Tennis-Action-Recognition", _tennis),
}
_TABLES: dict[str, tuple[str, Callable[[pathlib.Path], Rows]]] = {
    "text/clinc150": ("oos-eval", _clinc150),
    "text/snips": ("nlu-benchmark", _snips),
}
