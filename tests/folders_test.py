"""Streams from folders and tables."""

import collections
import os
import pathlib
import shutil
import unicodedata

import pytest

from mmcl_jax.errors import DataError, Faults
from mmcl_jax.modalities import MODALITIES
from mmcl_jax.modalities.base import Storage, TextReference
from mmcl_jax.streams.base import Stream, stream_hash
from mmcl_jax.streams.folders import build
from tests import helpers


def _touch(root: pathlib.Path, *paths: str) -> None:
    # Building a stream decodes nothing, so files need no content.
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()


def _table(root: pathlib.Path, path: str, text: str, encoding: str = "utf-8") -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text, encoding=encoding, newline="")


@pytest.fixture
def root(tmp_path: pathlib.Path) -> pathlib.Path:
    root = tmp_path / "data"
    for name in "abcde":
        _touch(root, *(f"image/pets/train/{name}_x/{i}.jpg" for i in range(6)))
        _touch(root, *(f"image/pets/test/{name}_x/{i}.PNG" for i in range(2)))
    for name in ("bark", "meow"):
        _touch(root, *(f"audio/calls/train/{name}/{i:03}.wav" for i in range(40)))
    rows = [f'"words, {i} of {label}",{label}' for label in "uvw" for i in range(5)]
    for part in ("train", "test"):
        _table(root, f"text/talk/{part}.csv", "\r\n".join(["text,label", *rows]))
    _touch(root, "image/pets/SOURCE.md", "image/.DS_Store", "notes.txt", "text/x.json")
    _touch(root, "image/pets/train/a_x/.DS_Store", "image/pets/train/a_x/Thumbs.db")
    _touch(root, "vocabulary/words.txt")
    return root


def _collect(root: pathlib.Path, **changes: object) -> tuple[Stream, Faults]:
    options = {"root": str(root), "classes_per_task": 2, "faults": Faults()} | changes
    return build(**options), options["faults"]


def _build(root: pathlib.Path, **changes: object) -> Stream:
    stream, faults = _collect(root, **changes)
    faults.check()
    return stream


def _paths(stream: Stream) -> set[str]:
    return {f"{s.modality}/{s.dataset}/{s.name}" for s in stream.classes}


def _fails(root: pathlib.Path, *words: str, **changes: object) -> None:
    with pytest.raises(DataError) as caught:
        _build(root, **changes)
    for word in words:
        assert word in str(caught.value)


def test_everything_is_found(root: pathlib.Path) -> None:
    stream = _build(root)
    tasks = {task.name: task for task in stream.tasks}
    assert set(tasks) == {
        "image/pets/0",
        "image/pets/1",
        "audio/calls/0",
        "text/talk/0",
    }
    assert set(stream.modalities) == {"image", "audio", "text"}
    pets = [tasks["image/pets/0"], tasks["image/pets/1"]]
    # Five classes by two: the single one that remains joins the second task.
    assert [len(task.classes) for task in pets] == [2, 3]
    assert len(tasks["text/talk/0"].classes) == 3
    counts = collections.Counter(r.label for task in pets for r in task.train)
    assert set(counts.values()) == {6}
    assert sum(len(task.test) for task in pets) == 10
    assert {"image/pets/a x", "text/talk/u"} <= _paths(stream)


def test_remainder_of_two_is_a_task(root: pathlib.Path) -> None:
    stream = _build(root, classes_per_task=3, include="image")
    assert [len(task.classes) for task in stream.tasks] == [3, 2]
    stream = _build(root, classes_per_task=9, include="image")
    assert [len(task.classes) for task in stream.tasks] == [5]
    stream = _build(root, classes_per_task=1, include="image")
    assert [len(task.classes) for task in stream.tasks] == [1] * 5


def test_references(root: pathlib.Path) -> None:
    stream = _build(root, include="image/pets/a_x, text/talk/u")
    records = {r.reference.describe(): r for t in stream.tasks for r in t.train}
    record = records["image/pets/train/a_x/0.jpg"]
    assert record.reference.path == str(root / "image/pets/train/a_x/0.jpg")
    assert records["text/talk/train.csv:3"].reference == TextReference(
        "words, 1 of u", "text/talk/train.csv", 3
    )


def test_hash_does_not_depend_on_place(
    root: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = stream_hash(_build(root))
    copy = tmp_path / "elsewhere" / "copy"
    shutil.copytree(root, copy)
    assert stream_hash(_build(copy)) == here
    monkeypatch.chdir(root)
    stream = _build(pathlib.Path("."))
    assert stream_hash(stream) == here
    paths = {
        r.reference.path for t in stream.tasks for r in t.train if t.name[0] == "i"
    }
    assert "image/pets/train/b_x/1.jpg" in paths


def test_seeds(root: pathlib.Path) -> None:
    hashes = {stream_hash(_build(root, order_seed=seed)) for seed in range(4)}
    assert len(hashes) > 2
    assert stream_hash(_build(root, order_seed=3)) in hashes


@pytest.mark.parametrize(
    ("include", "exclude", "expected"),
    [
        ("audio", None, {"audio/calls/bark", "audio/calls/meow"}),
        (("text/*",), ("*/u",), {"text/talk/v", "text/talk/w"}),
        ("text/talk/", "text/talk/*,!text/talk/[uv]", {"text/talk/u", "text/talk/v"}),
        ("text", "text,!text/talk,*/w", {"text/talk/u", "text/talk/v"}),
        (None, "image/pets,audio/c*", {f"text/talk/{name}" for name in "uvw"}),
        ("text", "*,!*/u,!*/bark", {"text/talk/u"}),
    ],
)
def test_patterns(
    include: object, exclude: object, expected: set[str], root: pathlib.Path
) -> None:
    assert _paths(_build(root, include=include, exclude=exclude)) == expected


def test_patterns_that_match_nothing(root: pathlib.Path) -> None:
    _fails(root, "'image/pest/a_x'", "'image/pets/a_x'", include="image/pest/a_x")
    _fails(root, "'audio/calls/barks'", exclude="!audio/calls/barks")
    _fails(root, "leave no class", exclude="*")


def test_train_limit(root: pathlib.Path) -> None:
    def kept(**changes: object) -> list[str]:
        stream = _build(root, include="audio", **changes)
        return [r.reference.describe() for t in stream.tasks for r in t.train]

    few, same = kept(max_train_per_class=5), kept(max_train_per_class=5)
    assert few == same
    assert len(few) == 10
    more = kept(max_train_per_class=7)
    assert set(few) < set(more) < set(kept())
    assert set(kept(max_train_per_class=5, data_seed=1)) != set(few)
    _, faults = _collect(root, include="audio", max_train_per_class=5)
    (told,) = [note for note in faults.unused if "max_train_per_class" in note]
    assert told.startswith(f"audio/calls ({len(kept()) - 10} of {len(kept())} training")


@pytest.mark.parametrize("fraction", [0.001, 0.2, 0.999])
def test_split(root: pathlib.Path, fraction: float) -> None:
    def split() -> tuple[set[str], set[str]]:
        (task,) = _build(root, include="audio", test_fraction=fraction).tasks
        train, test = (
            {r.reference.describe() for r in part} for part in (task.train, task.test)
        )
        assert not train & test
        return train, test

    train, test = split()
    assert len(train) + len(test) == 80
    assert len(train) >= 2
    assert len(test) >= 2
    if fraction == 0.2:
        assert 6 <= len(test) <= 28
    _touch(root, *(f"audio/calls/train/bark/new{i}.wav" for i in range(20)))
    new_train, new_test = split()
    moved = (train & new_test) | (test & new_train)
    # Nothing moves but the one sample that a side was lent to be not empty.
    assert len(moved) <= (0 if fraction == 0.2 else 1)


def test_what_cannot_be_read_is_not_all_that_is_split_off(root) -> None:
    for seed in range(8):
        rows = "".join(f" ,{n}\n" * 5 + f"{n}1,{n}\n{n}2,{n}\n" for n in "uv")
        _table(root, "text/new/train.csv", f"text,label\n{rows}")
        for task in _build(root, include="text/new", data_seed=seed).tasks:
            for part in (task.train, task.test):
                kept = [r for r in part if isinstance(r.reference, TextReference)]
                assert len(kept) == 2


def test_split_of_sentences_keeps_twins_together(root: pathlib.Path) -> None:
    (root / "text/talk/test.csv").unlink()
    rows = [f"say {i % 30},{label}" for label in "uv" for i in range(90)]
    _table(root, "text/talk/train.csv", "\n".join(["text,label", *rows]), "utf-8-sig")
    (task,) = _build(root, include="text").tasks
    train, test = (
        {(r.label, r.reference.text) for r in part} for part in (task.train, task.test)
    )
    assert train
    assert test
    assert not train & test


def _parts_of(stream: Stream) -> tuple[set[str], set[str]]:
    found = [
        {r.reference.describe() for task in stream.tasks for r in getattr(task, part)}
        for part in ("train", "test")
    ]
    return found[0], found[1]


@pytest.mark.parametrize("include", ["audio", "image", "text"])
def test_validation_is_taken_from_training_samples(
    root: pathlib.Path, include: str
) -> None:
    train, test = _parts_of(_build(root, include=include))
    rest, validation = _parts_of(
        _build(root, include=include, evaluate_on="validation")
    )
    assert rest | validation == train
    assert not rest & validation
    assert not test & (rest | validation)
    other = _build(root, include=include, evaluate_on="validation", data_seed=1)
    assert _parts_of(other)[1] != validation


def test_share_of_validation(root: pathlib.Path) -> None:
    sizes = []
    for share in (0.001, 0.2, 0.6, 0.999):
        stream = _build(
            root,
            include="image",
            evaluate_on="validation",
            validation_fraction=share,
            max_train_per_class=3,
        )
        rest, validation = _parts_of(stream)
        sizes.append(len(validation))
        # a class has six
        assert len(rest) <= 3 * 5
    assert sizes == sorted(sizes)
    assert (sizes[0], sizes[-1]) == (5, 5 * 5)
    assert 1 < sizes[1] < sizes[2] < 25


def test_a_class_of_one_sample_has_none_for_validation(root: pathlib.Path) -> None:
    _touch(root, "image/pets/train/f_x/0.jpg", "image/pets/test/f_x/0.jpg")
    _build(root)
    _fails(
        root,
        "image/pets",
        "'f_x'",
        "only one training sample",
        evaluate_on="validation",
    )


def test_first_tasks(root: pathlib.Path) -> None:
    whole = _build(root, order="random")
    assert _build(root, order="random", first_tasks=2).tasks == whole.tasks[:2]
    with pytest.raises(ValueError, match="first_tasks is 9, but there are 4 tasks"):
        _build(root, first_tasks=9)


def test_text_files_in_folders(root: pathlib.Path) -> None:
    paths = [f"text/notes/train/{name}/{i}.txt" for name in "xy" for i in range(4)]
    _touch(root, *paths)
    stream = _build(root, include="text/notes")
    assert _paths(stream) == {"text/notes/x", "text/notes/y"}


def test_missing_or_empty_root(root: pathlib.Path, tmp_path: pathlib.Path) -> None:
    _fails(tmp_path / "nowhere", "nowhere", "no such folder")
    (tmp_path / "empty" / "other").mkdir(parents=True)
    _fails(tmp_path / "empty", "no data set", "image")


def test_bad_files(root: pathlib.Path) -> None:
    _touch(root, "image/pets/train/b_x/a.txt")
    records = [r for t in _build(root, include="image").tasks for r in t.train]
    (bad,) = [r.reference for r in records if r.reference.describe().endswith(".txt")]
    with pytest.raises(DataError, match=r"train/b_x/a.txt: suffix '.txt'.*\.jpg, "):
        bad.load(MODALITIES["image"], None)
    (root / "image/pets/train/b_x/a.txt").unlink()
    (root / "image/pets/train/b_x/inner").mkdir()
    _fails(root, "b_x/inner", "not a file")
    _build(root, exclude="image/pets/b_x")


def test_whatever_is_not_used_is_named(root: pathlib.Path) -> None:
    _touch(
        root, "image/pets/val/a_x/0.jpg", "audio/calls.zip", "image/pets/train/x.jpg"
    )
    _touch(root, "audio/calls/train.csv", ".cache/one", ".cache/two", ".git/config")
    _, faults = _collect(root)
    assert not faults.errors
    assert set(faults.unused) == {
        ".cache (hidden and 1 more)",
        "audio/calls.zip (a file)",
        "audio/calls/train.csv (tables of files are read by configs/manifest.py)",
        "image/pets/SOURCE.md (a file)",
        "image/pets/train/x.jpg (a file)",
        "image/pets/val (a folder)",
        "notes.txt (a file)",
        "text/x.json (a file)",
        "vocabulary (a folder)",
    }


@pytest.mark.parametrize(
    "name",
    [
        *("test.zip", "test.tar.gz", "test.xlsx", "test_images", "val2017", "held out"),
        *("tset", "query"),
    ],
)
def test_a_test_part_that_is_not_read_is_an_error(name: str, root) -> None:
    test = root / "image/pets/test"
    test.rename(root / "image/pets" / name)
    if name.startswith("test."):
        shutil.rmtree(root / "image/pets" / name)
        (root / "image/pets" / name).touch()
    _fails(root, f"image/pets/{name}: not used", "it to 'test'")
    # beside a test part they are only named
    _touch(root, *(f"image/pets/test/{c}_x/0.jpg" for c in "abcde"))
    _, faults = _collect(root)
    assert not [fault for fault in faults.errors if name in fault]


def test_what_lies_too_high_or_too_deep(root: pathlib.Path) -> None:
    _touch(
        root, "image/birds/a/0.jpg", "text/train.csv", "train.csv", "birds/train/x/0"
    )
    _touch(root, "more/image/pets/train/x/0.jpg", "image/pets/fish/train/x/0.jpg")
    (root / "image/pets/train/a_x/inner").mkdir()
    _fails(
        root,
        "image/birds: no class in a folder 'train'; move 'a' there if it is a class",
        f"{root}/text/train.csv: a split at the place of a data set",
        f"{root}/train.csv: a split at the place of a modality",
        f"{root}/birds: a data set at the place of a modality",
        f"{root}/more: modalities at the place of one",
        "image/pets/fish: a folder with splits in it, inside of a data set",
        "train/a_x/inner: a folder in that of a class, not a file; move its files up",
    )


def test_what_file_servers_leave_is_no_class(root: pathlib.Path) -> None:
    before = _paths(_build(root))
    for part in ("train", "test"):
        _touch(root, f"image/pets/{part}/@eaDir/0.jpg", f"image/pets/{part}/Thumbs.db")
    _touch(root, "$RECYCLE.BIN/train/x/0.jpg", "image/pets/train/a_x/@eaDir/0.jpg/x")
    stream, faults = _collect(root)
    assert _paths(stream) == before and not faults.errors


def test_names_that_are_one_number_or_have_another_width(root: pathlib.Path) -> None:
    for one, other in (("1", "01"), ("1", "1.0"), ("cat", "\uff43\uff41\uff54")):
        for part in ("train", "test"):
            rows = "".join(f"{n} {k},{n}\n" for n in (one, other) for k in "abc")
            _table(root, f"text/talk/{part}.csv", f"text,label\n{rows}")
        _fails(root, f"classes {one!r} and {other!r} read the same")
    for part, name in (("train", "7"), ("test", "7.0")):
        _table(root, f"text/talk/{part}.csv", f"text,label\na,{name}\nb,c\n")
    _fails(root, "class '7.0' in 'test' and '7' in 'train' read the same")


def test_patterns_may_name_a_class_with_brackets(root: pathlib.Path) -> None:
    (root / "image/pets/train/a_x").rename(root / "image/pets/train/a[1],2")
    (root / "image/pets/test/a_x").rename(root / "image/pets/test/a[1],2")
    assert len(_build(root, include=["image/pets/a[1],2"]).classes) == 1
    _fails(root, "write ? for a comma in a name", include="image/pets/a[1],2")


@pytest.mark.parametrize("name", ["val", "valid", "Test", "testing", "dev", "tests"])
def test_parts_of_other_names(name: str, root: pathlib.Path) -> None:
    (root / "image/pets/test").rename(root / "image/pets" / name)
    _fails(root, f"image/pets/{name}: not used", "rename it to 'test'")
    (root / "text/talk/test.csv").rename(root / "text/talk" / f"{name}.csv")
    _fails(root, f"text/talk/{name}.csv: not used", "a table of this name")


@pytest.mark.parametrize(
    ("name", "near"),
    [("images", "image"), ("Image", "image"), ("sounds", "audio"), ("photo", "image")],
)
def test_modalities_of_other_names(name: str, near: str, root: pathlib.Path) -> None:
    (root / "audio").rename(root / name)
    _fails(root, f"{name}: not a modality; rename it to '{near}'")


def test_data_sets_of_an_unknown_modality(root: pathlib.Path) -> None:
    _touch(root, "thermal/faces/train/one/0.png", "train/cat/0.jpg")
    _, faults = _collect(root)
    assert len(faults.errors) == 2
    assert "thermal: data sets of no known modality" in faults.errors[0]
    assert "train: a split at the place of a modality" in faults.errors[1]


def test_all_faults_are_told_in_one_go(root: pathlib.Path) -> None:
    (root / "image/pets/test").rename(root / "image/pets/valid")
    (root / "audio/calls/train").rename(root / "audio/calls/Train")
    _touch(root, "thermal/faces/train/one/0.png")
    stream, faults = _collect(root)
    assert {task.name for task in stream.tasks} == {
        "image/pets/0",
        "image/pets/1",
        "text/talk/0",
    }
    assert len(faults.errors) == 4
    _fails(root, "4 faults in the data", "valid", "Train", "thermal", "no class in")


def test_unicode_forms_of_one_name(root: pathlib.Path) -> None:
    composed, decomposed = (unicodedata.normalize(f, "café") for f in ("NFC", "NFD"))
    _touch(root, f"image/pets/train/{composed}/0.jpg")
    _touch(root, f"image/pets/test/{decomposed}/0.jpg")
    assert "image/pets/café" in _paths(_build(root))
    _touch(root, f"image/pets/train/{decomposed}/0.jpg")
    _fails(root, "image/pets/train", "'café', the same but for their Unicode form")


def test_storage_of_each_data_set(root: pathlib.Path) -> None:
    for name in ("tum", "kitti"):
        paths = [f"depth/{name}/train/{c}/{i}.png" for c in "xy" for i in range(3)]
        _touch(root, *paths)
    stream = _build(
        root,
        include="depth",
        depth_scale="tum=5000,kitti=sunrgbd",
        depth_invalid="kitti=65535 -1",
    )
    stored = {
        r.reference.describe().split("/")[1]: r.reference.storage
        for task in stream.tasks
        for r in (*task.train, *task.test)
    }
    assert stored == {
        "tum": Storage(depth_scale=5000.0),
        "kitti": Storage(1000.0, (65535.0, -1.0), depth_rotated=True),
    }
    _fails(root, "no data set 'tom'; there are calls, k", depth_scale="tom=5000")
    for text in ("mm", "0", "-1", "inf", "nan"):
        _fails(root, "config.stream.depth_scale", repr(text), "5000", depth_scale=text)
    _fails(root, "config.stream.depth_invalid", "'none'", depth_invalid="none")


def test_bad_classes(root: pathlib.Path) -> None:
    (root / "image/pets/train/f").mkdir()
    _fails(root, "image/pets", "in 'train' but not in 'test'", "['f']")
    (root / "image/pets/test/f").mkdir()
    _fails(root, "image/pets/train/f", "no file in it")
    (root / "image/pets/train/f").rmdir()
    _fails(root, "image/pets", "in 'test' but not in 'train'", "['f']")
    (root / "image/pets/test/f").rmdir()
    _touch(root, "image/pets/train/A X/0.jpg", "image/pets/test/A X/0.jpg")
    _fails(root, "'A X' and 'a_x' read the same")
    _touch(root, "depth/rooms/kitchen/0.png")
    _fails(root, "depth/rooms", "no class in a folder 'train'")


def test_single_sample(root: pathlib.Path) -> None:
    _touch(root, "audio/calls/train/roar/0.wav")
    _fails(root, "audio/calls", "'roar'", "only one training sample")


def test_links(root: pathlib.Path, tmp_path: pathlib.Path) -> None:
    link = root / "image/pets/train/c_x/link.jpg"
    link.symlink_to(root / "image/pets/train/c_x/0.jpg")
    _build(root)
    link.unlink()
    _touch(tmp_path, "secret.jpg")
    link.symlink_to(tmp_path / "secret.jpg")
    _fails(root, str(link), "leads out of")
    link.unlink()
    link.symlink_to(root / "image/none.jpg")
    _fails(root, str(link), "a broken link")
    link.unlink()
    os.symlink(tmp_path, root / "video")
    _fails(root, "video", "leads out of", "--config.stream.follow_links=True")


def test_links_that_are_followed(root: pathlib.Path, tmp_path: pathlib.Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    (root / "image/pets").rename(elsewhere)
    os.symlink(elsewhere, root / "image/pets")
    _fails(root, "image/pets", "leads out of")
    assert "image/pets/a x" in _paths(_build(root, follow_links=True))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("text,name\na,b\n", ["no column label", "'text', 'name'"]),
        ("", ["the file is empty"]),
        ("text,label\n", ["no row"]),
        ("text,label\nhello,u\nhello\n", ["train.csv:3", "expected 2 fields"]),
        ('text,label\n"open,u\n', ["train.csv:2", "quote"]),
    ],
)
def test_bad_tables(content: str, words: list[str], root: pathlib.Path) -> None:
    _table(root, "text/talk/train.csv", content)
    _fails(root, "text/talk/train.csv", *words)


def test_table_of_another_encoding(root: pathlib.Path) -> None:
    _table(root, "text/talk/train.csv", "text,label\ncafé,u\n", "latin-1")
    _fails(root, "text/talk/train.csv", "UTF-8")


def test_bad_arguments(root: pathlib.Path) -> None:
    for changes in (
        {"classes_per_task": 0},
        {"test_fraction": 0.0},
        {"max_train_per_class": 0},
        {"order": "sideways"},
    ):
        with pytest.raises(ValueError, match=next(iter(changes))):
            _build(root, **changes)


def test_links_in_a_circle(root: pathlib.Path) -> None:
    link = root / "image/pets/train/c_x/link.jpg"
    link.symlink_to(link)
    _fails(root, str(link), "a broken link")


@pytest.mark.parametrize("name", ["image", "image/pets/train", "image/pets/train/a_x"])
def test_folders_that_cannot_be_listed(
    name: str, root: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan = os.scandir

    # a mode of 0 would not stop an administrator
    def scandir(folder: pathlib.Path):
        if pathlib.Path(folder) == root / name:
            raise PermissionError(13, "Permission denied")
        return scan(folder)

    monkeypatch.setattr(os, "scandir", scandir)
    _fails(root, f"{root / name}: cannot be listed (Permission denied)")


def test_names_that_are_not_utf_8(root: pathlib.Path) -> None:
    folder = root / "image/pets/train/c_x"
    (folder / os.fsdecode(b"\xff.jpg")).touch()
    _fails(root, str(folder), "is not UTF-8")


@pytest.mark.parametrize("name", ["..", "a/b", "🐈\u200d🔥", "two\nlines"])
def test_odd_names_of_classes(name: str, root: pathlib.Path) -> None:
    rows = [f'words,"{name}"', "more,plain"]
    for part in ("train", "test"):
        _table(root, f"text/talk/{part}.csv", "\n".join(["text,label", *rows]))
    stream = _build(root, include="text")
    assert {slot.name for slot in stream.classes} == {" ".join(name.split()), "plain"}
    assert {task.name for task in stream.tasks} == {"text/talk/0"}


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("a" * 10_000, "10000 characters"),
        ("__", "0 characters"),
        ("\x1b[2J", "control"),
    ],
)
def test_names_that_no_class_may_have(name: str, word: str, root: pathlib.Path) -> None:
    _table(root, "text/talk/train.csv", f"text,label\nwords,{name}\n")
    _fails(root, "text/talk", word)


def test_real_data() -> None:
    root = helpers.shared_data()
    if root is None:
        pytest.skip("no folder shared/data beside the repository")
    stream = _build(root, classes_per_task=5, exclude="text/*,!text/clinc150/[bc]*")
    assert set(stream.modalities) == {"image", "video", "audio", "depth", "text"}
    assert sum(len(task.train) for task in stream.tasks) > 3900
    zeros = {s.canonical for s in stream.classes if s.name == "zero"}
    assert len(zeros) == 1
