"""Streams from a table that lists files, and tables of published data sets."""

import pathlib

import pytest

from mmcl_jax.errors import DataError
from mmcl_jax.streams import folders, layouts, manifest
from mmcl_jax.streams.base import stream_hash
from mmcl_jax.streams.manifest import Row
from tests import fork_server, helpers

HEAD = "path,label,modality,split,dataset\n"


@pytest.fixture
def root(tmp_path: pathlib.Path) -> pathlib.Path:
    """A tree that `folders` reads; building a stream decodes nothing."""
    for kind, suffix in (("image/pets", "jpg"), ("audio/calls", "wav")):
        for part, number in (("train", 3), ("test", 2)):
            for name in ("ape", "bee", "cat"):
                folder = tmp_path / "data" / kind / part / name
                folder.mkdir(parents=True)
                for k in range(number):
                    (folder / f"{k}.{suffix}").touch()
    return tmp_path / "data"


def _rows(root: pathlib.Path) -> list[Row]:
    rows = []
    for path in sorted(root.rglob("*.*")):
        place = path.relative_to(root)
        modality, dataset, part, label, _ = place.parts
        rows.append(Row(place.as_posix(), label, modality, part, dataset))
    return rows


def _table(root: pathlib.Path, *lines: str, head: str = HEAD) -> pathlib.Path:
    path = root / "table.csv"
    path.write_text(head + "\n".join(lines) + "\n", encoding="utf-8")
    return path


def _fails(path: pathlib.Path, *words: str) -> None:
    with pytest.raises(DataError) as caught:
        manifest.build(path=str(path), classes_per_task=2)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("order", ["by_modality", "random"])
def test_the_stream_is_that_of_the_folders(root: pathlib.Path, order: str) -> None:
    manifest.write(root / "all.csv", _rows(root))
    chosen = {"classes_per_task": 2, "order": order, "order_seed": 3}
    listed = manifest.build(path=str(root / "all.csv"), **chosen)
    (root / "all.csv").unlink()
    found = folders.build(root=str(root), **chosen)
    assert stream_hash(listed) == stream_hash(found)
    assert listed.tasks[0].train[0].reference == found.tasks[0].train[0].reference


def test_split_and_data_set_may_be_left_out(root: pathlib.Path) -> None:
    lines = [
        f"image/pets/train/{c}/{k}.jpg,{c},image" for c in ("ape", "bee") for k in "012"
    ]
    path = _table(root, *lines, head="path,label,modality\n")
    (task,) = manifest.build(
        path=str(path), classes_per_task=2, test_fraction=0.3
    ).tasks
    assert task.name == "image/table/0"
    assert len(task.train) + len(task.test) == 6
    assert {r.label for r in task.test} == {r.label for r in task.train} == {0, 1}


def test_missing_files_are_named_with_their_lines(root: pathlib.Path) -> None:
    gone = [f"image/{k}.jpg,ape,image,train,pets" for k in range(12)]
    there = "image/pets/train/ape/0.jpg,ape,image,train,pets"
    path = _table(root, there, *gone)
    _fails(path, "10 or more", "table.csv:3: image/0.jpg: no such file", ".csv:12:")
    _fails(_table(root, there, gone[4]), "1 files are wrong", ".csv:3: image/4.jpg")


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("../secret.jpg", "leads out"),
        ("image/../../secret.jpg", "leads out"),
        ("link.jpg", "leads out"),
        ("linked/secret.jpg", "leads out"),
        ("/etc/secret.jpg", "expected a path relative"),
        ("a\x07.jpg", r"'a\x07.jpg' has a control character; rename the file"),
        ("image/..", "takes .jpg"),
    ],
)
def test_no_path_leads_out(root: pathlib.Path, path: str, words: str) -> None:
    (root.parent / "secret.jpg").touch()
    (root / "link.jpg").symlink_to(root.parent / "secret.jpg")
    (root / "linked").symlink_to(root.parent)
    _fails(_table(root, f"{path},ape,image,train,pets"), "table.csv:2", words)


def test_a_path_is_checked_as_it_is_opened(root: pathlib.Path) -> None:
    # `deep/../../x.jpg` is in `image` for who follows the link, and outside as text
    (root / "deep").symlink_to(root / "image/pets/train")
    (root / "image/x.jpg").touch()
    (root.parent / "x.jpg").touch()
    _fails(_table(root, "deep/../../x.jpg,ape,image,train,pets"), ":2", "leads out")


@pytest.mark.parametrize("name", ["no\N{NO-BREAK SPACE}break.jpg", "a\u200db.jpg"])
def test_a_name_may_have_what_is_no_control_character(
    root: pathlib.Path, name: str
) -> None:
    (root / name).touch()
    lines = [
        f"{name},ape,image,train,x",
        "image/pets/train/ape/1.jpg,ape,image,test,x",
    ]
    stream = manifest.build(path=str(_table(root, *lines)), classes_per_task=2)
    assert stream.tasks[0].train[0].reference.describe() == name


def test_a_link_that_stays_inside_is_followed(root: pathlib.Path) -> None:
    (root / "inside.jpg").symlink_to(root / "image/pets/train/ape/0.jpg")
    lines = [
        "inside.jpg,ape,image,train,x",
        "image/pets/train/ape/1.jpg,ape,image,test,x",
    ]
    stream = manifest.build(path=str(_table(root, *lines)), classes_per_task=2)
    assert stream.tasks[0].train[0].reference.describe() == "inside.jpg"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("image/pets/train/ape/0.jpg,ape,smell,train,x", "modality 'smell'"),
        ("image/pets/train/ape/0.jpg,ape,image,dev,x", "split 'dev'"),
        ("image/pets/train/ape/0.jpg,ape,image,train,a/b", "data set 'a/b'"),
        ("image/pets/train/ape/0.jpg,ape,audio,train,x", ".wav, .ogg"),
        ("image/pets/train/ape/0.jpg,,image,train,x", "empty path or label"),
        ("image/pets/train/ape/./1.jpg,bee,image,test,x", "is that of line 2"),
    ],
)
def test_a_wrong_row_is_named(root: pathlib.Path, line: str, words: str) -> None:
    first = "image/pets/train/ape/1.jpg,ape,image,train,x"
    _fails(_table(root, first, line), "table.csv:3", words)


def test_what_is_no_manifest_is_said(root: pathlib.Path) -> None:
    _fails(root / "none.csv", "none.csv: no such file")
    _fails(_table(root, head="path,label\n"), "no column modality")
    _fails(_table(root), "no row below")
    _fails(_table(root, '"a.jpg,ape,image'), "cannot be decoded")


def test_classes_must_be_in_both_parts(root: pathlib.Path) -> None:
    lines = [f"image/pets/{p}/{c}/0.jpg,{c},image,{p},x" for p, c in
             (("train", "ape"), ("train", "bee"), ("test", "ape"))]  # fmt: skip
    _fails(_table(root, *lines), "in 'train' but not in 'test'", "bee")


def test_esc50(tmp_path: pathlib.Path) -> None:
    (tmp_path / "meta").mkdir()
    rows = [f"{f}-{i}.wav,{f},{i},sea_waves" for f in range(1, 6) for i in range(2)]
    head = "filename,fold,target,category\n"
    (tmp_path / "meta/esc50.csv").write_text(head + "\n".join(rows))
    found = layouts.esc50(tmp_path, test_fold=2)
    assert len(found) == 10
    assert [r.path for r in found if r.split == "test"] == [
        "audio/2-0.wav",
        "audio/2-1.wav",
    ]
    assert {r[1:3] for r in found} == {("sea_waves", "audio")}
    (tmp_path / "meta/esc50.csv").write_text(head + "x.wav,6,0,rain\n")
    with pytest.raises(DataError, match=r"esc50.csv:2: fold '6'"):
        layouts.esc50(tmp_path)


@pytest.mark.parametrize("inner", ["", "depth"])
def test_nyu_depth(tmp_path: pathlib.Path, inner: str) -> None:
    for split in ("train", "val"):
        for name in ("kitchen", "office"):
            helpers.write(tmp_path / split / inner / name, "depth")
    if inner:
        helpers.write(tmp_path / "val" / "rgb" / "kitchen", "image")
    found = layouts.nyu_depth(tmp_path)
    manifest.write(tmp_path / "manifest.csv", found)
    stream = manifest.build(path=str(tmp_path / "manifest.csv"), classes_per_task=2)
    assert {slot.name for slot in stream.classes} == {"kitchen", "office"}
    (task,) = stream.tasks
    assert len(task.train) == len(task.test) == 2
    with pytest.raises(DataError, match="no depth map"):
        layouts.nyu_depth(tmp_path / "train" / "none")


def test_the_command(tmp_path: pathlib.Path) -> None:
    helpers.write(tmp_path / "train" / "office", "depth")
    helpers.write(tmp_path / "test" / "office", "depth")
    command, folder = ["-m", "mmcl_jax.manifest"], helpers.REPOSITORY
    for flags, code, words in (
        (["--layout=nyu_depth", f"--root={tmp_path}"], 0, "manifest.csv: 2 files"),
        (["--layout=esc50", f"--root={tmp_path}"], 2, "esc50.csv: no such file"),
        ([], 2, "give --layout"),
    ):
        done = fork_server.run([*command, *flags], folder, helpers.environment())
        assert done.returncode == code
        assert words in done.stdout + done.stderr
    made = tmp_path / "manifest.csv"
    assert made.read_text().splitlines()[1:] == [
        "train/office/0.png,office,depth,train,nyu_depth",
        "test/office/0.png,office,depth,test,nyu_depth",
    ]
    # the same again is no harm; what somebody has written is kept
    command += ["--layout=nyu_depth", f"--root={tmp_path}"]
    done = fork_server.run(command, folder, helpers.environment())
    done.check_returncode()
    made.write_text("my own\n")
    done = fork_server.run(command, folder, helpers.environment())
    assert done.returncode == 2
    assert f"{made} exists with other rows" in done.stderr
    assert made.read_text() == "my own\n"
