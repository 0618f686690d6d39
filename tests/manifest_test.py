"""Streams from a table that lists files, and tables of published data sets."""

import json
import pathlib
import unicodedata
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmcl_jax.errors import DataError, Faults
from mmcl_jax.modalities import MODALITIES
from mmcl_jax.modalities.base import Storage
from mmcl_jax.streams import folders, layouts, manifest
from mmcl_jax.streams.base import Stream, stream_hash
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


def _build(path: pathlib.Path, **more: Any) -> Stream:
    faults = Faults()
    chosen = {"classes_per_task": 2} | more
    stream = manifest.build(path=str(path), **chosen, faults=faults)
    faults.check()
    return stream


def _fails(path: pathlib.Path, *words: str) -> None:
    with pytest.raises(DataError) as caught:
        _build(path)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("order", ["by_modality", "random"])
def test_the_stream_is_that_of_the_folders(root: pathlib.Path, order: str) -> None:
    manifest.write(root / "all.csv", _rows(root))
    chosen = {"classes_per_task": 2, "order": order, "order_seed": 3}
    listed = _build(root / "all.csv", **chosen)
    (root / "all.csv").unlink()
    found = folders.build(root=str(root), **chosen, faults=Faults())
    assert stream_hash(listed) == stream_hash(found)
    assert listed.tasks[0].train[0].reference == found.tasks[0].train[0].reference


def test_split_and_data_set_may_be_left_out(root: pathlib.Path) -> None:
    lines = [
        f"image/pets/train/{c}/{k}.jpg,{c},image" for c in ("ape", "bee") for k in "012"
    ]
    path = _table(root, *lines, head="path,label,modality\n")
    (task,) = _build(path, test_fraction=0.3).tasks
    assert task.name == "image/table/0"
    assert len(task.train) + len(task.test) == 6
    assert {r.label for r in task.test} == {r.label for r in task.train} == {0, 1}


def test_missing_files_are_named_with_their_lines(root: pathlib.Path) -> None:
    gone = [f"image/{k}.jpg,ape,image,train,pets" for k in range(12)]
    there = "image/pets/train/ape/0.jpg,ape,image,train,pets"
    path = _table(root, there, *gone)
    _fails(path, "13 faults", "table.csv:3: image/0.jpg: no such file", ".csv:12:")
    _fails(_table(root, there, gone[4]), "table.csv:3: image/4.jpg")


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("../secret.jpg", "leads out"),
        ("image/../../secret.jpg", "leads out"),
        ("link.jpg", "leads out"),
        ("linked/secret.jpg", "leads out"),
        ("/etc/secret.jpg", "expected a path relative"),
        ("a\x07.jpg", r"'a\x07.jpg' has a control character; rename the file"),
        ("image/..", "a folder; expected a file"),
        ("image/pets", "a folder; expected a file"),
        (r"image\pets\train\ape\0.jpg", "write / in place of"),
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
    stream = _build(_table(root, *lines))
    assert stream.tasks[0].train[0].reference.describe() == name


def test_a_link_that_stays_inside_is_followed(root: pathlib.Path) -> None:
    (root / "inside.jpg").symlink_to(root / "image/pets/train/ape/0.jpg")
    lines = [
        "inside.jpg,ape,image,train,x",
        "image/pets/train/ape/1.jpg,ape,image,test,x",
    ]
    stream = _build(_table(root, *lines))
    assert stream.tasks[0].train[0].reference.describe() == "inside.jpg"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("image/pets/train/ape/0.jpg,ape,smell,train,x", "modality 'smell'"),
        ("image/pets/train/ape/0.jpg,ape,Images,train,x", "did you mean 'image'?"),
        ("image/pets/train/ape/0.jpg,ape,image,dev,x", "split 'dev'"),
        ("image/pets/train/ape/0.jpg,ape,image,VAL,x", "write test for samples"),
        ("image/pets/train/ape/0.jpg,ape,image,Train,x", "did you mean 'train'?"),
        ("image/pets/train/ape/0.jpg,ape,image,train", "5 fields in line 3, found 4"),
        ("image/pets/train/ape/0.jpg,ape,image,train,x,1", "line 3, found 6; quote"),
        ("image/pets/train/ape/0.jpg,ape,image,train,a/b", "data set 'a/b'"),
        ("image/pets/train/ape/0.jpg,,image,train,x", "empty label"),
        ("image/pets/train/ape/./1.jpg,bee,image,test,x", "is that of line 2"),
    ],
)
def test_a_wrong_row_is_named(root: pathlib.Path, line: str, words: str) -> None:
    first = "image/pets/train/ape/1.jpg,ape,image,train,x"
    _fails(_table(root, first, line), "table.csv:3", words)


def test_all_wrong_rows_are_named_in_one_go(root: pathlib.Path) -> None:
    there = [
        f"image/pets/{part}/{name}/{k}.jpg,{name},image,{part},x"
        for part in ("train", "test")
        for name in ("ape", "bee")
        for k in "01"
    ]
    wrong = ["a.jpg,ape,smell,train,x", "b.jpg,ape,image,val,x", "c.jpg,ape,image,,x"]
    path = _table(root, *there, *wrong)
    _fails(path, "3 faults", ".csv:10: modality", ".csv:11: split", ".csv:12: c.jpg")
    faults = Faults()
    stream = manifest.build(path=str(path), classes_per_task=2, faults=faults)
    assert len(faults.errors) == 3
    assert len(stream.tasks[0].train) == len(stream.tasks[0].test) == 4


def test_a_file_of_another_kind_is_a_sample_that_cannot_be_read(
    root: pathlib.Path,
) -> None:
    (root / "notes.pdf").touch()
    lines = [f"image/pets/train/ape/{k}.jpg,ape,image,train,x" for k in "01"]
    lines += [
        "notes.pdf,ape,image,train,x",
        "image/pets/test/ape/0.jpg,ape,image,test,x",
    ]
    *_, last = _build(_table(root, *lines)).tasks[0].train
    assert last.reference.describe() == "notes.pdf"
    with pytest.raises(DataError, match=r"notes.pdf: line 4 .*takes .jpg"):
        last.reference.load(MODALITIES["image"], helpers.make_spec(root))


def test_links_lead_out_where_that_is_allowed(root: pathlib.Path) -> None:
    (root.parent / "far.jpg").touch()
    (root / "link.jpg").symlink_to(root.parent / "far.jpg")
    lines = [
        "link.jpg,ape,image,train,x",
        "image/pets/train/ape/1.jpg,ape,image,test,x",
    ]
    path = _table(root, *lines)
    _fails(path, "table.csv:2: link.jpg: a link", "--config.stream.follow_links=True")
    (task,) = _build(path, follow_links=True).tasks
    assert task.train[0].reference.describe() == "link.jpg"
    outside = _table(root, "../far.jpg,ape,image,train,x", lines[1])
    with pytest.raises(DataError, match=r"\.\./far.jpg: leads out"):
        _build(outside, follow_links=True)


def _depth(root: pathlib.Path, *lines: str) -> pathlib.Path:
    for k in range(4):
        (root / f"{k}.png").touch()
    return _table(root, *lines, head="path,label,modality,scale,invalid,split\n")


def test_how_a_depth_map_is_stored_may_stand_in_its_row(root: pathlib.Path) -> None:
    path = _depth(
        root,
        "0.png,a,depth,5000,,train",
        "1.png,a,depth,sunrgbd,65535 1,train",
        "2.png,a,depth,,7,train",
        "3.png,a,depth,,,test",
    )
    (task,) = _build(path, depth_scale="256", depth_invalid="9").tasks
    found = [record.reference.storage for record in (*task.train, *task.test)]
    assert found == [
        Storage(depth_scale=5000, depth_invalid=(9,)),
        Storage(depth_scale=1000, depth_rotated=True, depth_invalid=(65535, 1)),
        Storage(depth_scale=256, depth_invalid=(7,)),
        Storage(depth_scale=256, depth_invalid=(9,)),
    ]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("0.png,a,depth,-1,,", ":2: scale: '-1'; expected the stored units"),
        ("0.png,a,depth,,none,", ":2: invalid: 'none'; expected the stored value"),
        ("image/pets/train/ape/0.jpg,a,image,1000,,", ":2: scale and invalid are of"),
    ],
)
def test_a_wrong_storage_is_named(root: pathlib.Path, line: str, words: str) -> None:
    _fails(_depth(root, line), words)


@pytest.mark.parametrize(
    ("head", "words"),
    [
        ("path,lable,modality", "rename 'lable' to 'label'"),
        ("path,label,modality,data_set", "rename 'data_set' to 'dataset'"),
        ("path,label,modality,Spilt", "rename 'spilt' to 'split'"),
        ("path,label,modality,depth scale", "rename 'depth scale' to 'scale'"),
        ("path;label;modality", "separated by semicolons"),
        ("path,label,modality,label", "columns 'label' stand there twice"),
    ],
)
def test_a_wrong_column_is_named(root: pathlib.Path, head: str, words: str) -> None:
    _fails(_table(root, head=head + "\n"), "table.csv:1: ", words)


def test_columns_that_are_not_used_are_named(root: pathlib.Path) -> None:
    rows = [f"{row.path},{row.label},image,{row.split},7" for row in _rows(root)]
    rows = [row for row in rows if row.startswith("image")]
    path = _table(root, *rows, head="\ufeff Path ,LABEL,modality\u200b,split,take\n")
    faults = Faults()
    manifest.build(path=str(path), classes_per_task=2, faults=faults)
    assert faults.unused == [f"{path} (columns 'take')"]
    assert not faults.errors


def test_unicode_forms_make_no_second_class_or_data_set(root: pathlib.Path) -> None:
    forms = [unicodedata.normalize(form, "caf\xe9") for form in ("NFC", "NFD")] * 2
    files = [f"image/pets/{p}/ape/{k}.jpg,{p}" for p in ("train", "test") for k in "01"]
    pairs = [file.split(",") for file in files]
    lines = [
        f"{path},{name}\u200b,image,{part},{name}"
        for (path, part), name in zip(pairs, forms, strict=True)
    ]
    stream = _build(_table(root, *lines))
    assert [(c.name, c.dataset) for c in stream.classes] == [(forms[0], forms[0])]
    _fails(_table(root, f"{forms[1]}.jpg,a,image,,"), "no such file")
    _fails(_table(root, "https://x.org/0.jpg,a,image,,"), "an address; download the")
    (root / f"{forms[0]}.jpg").touch()
    _fails(_table(root, f"{forms[1]}.jpg,a,image,,"), "another Unicode form (NFC)")
    _fails(
        _table(
            root,
            lines[0],
            lines[1]
            .upper()
            .replace("IMAGE/PETS/TRAIN/APE/1.JPG", "image/pets/train/ape/1.jpg")
            .replace(",IMAGE,TRAIN", ",image,train"),
        ),
        "differ in case alone",
    )


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_other_forms_give_the_same_stream(root: pathlib.Path, suffix: str) -> None:
    rows = _rows(root)
    manifest.write(root / "all.csv", rows)
    path = root / f"all{suffix}"
    dicts = [row._asdict() | {"scale": None} for row in rows]
    if suffix == ".jsonl":
        path.write_text("\n".join(map(json.dumps, dicts)))
    else:
        pq.write_table(pa.Table.from_pylist(dicts), path)
    assert stream_hash(_build(path)) == stream_hash(_build(root / "all.csv"))


def test_what_is_no_manifest_is_said(root: pathlib.Path) -> None:
    _fails(root / "none.csv", "none.csv: no such file")
    _fails(_table(root, head="path,label\n"), "no column modality")
    _fails(_table(root), "no row below")
    _fails(
        _table(root, '"a.jpg,ape,image'), ":2: a quote in the row that begins in line 2"
    )


def test_classes_must_be_in_both_parts(root: pathlib.Path) -> None:
    lines = [f"image/pets/{p}/{c}/0.jpg,{c},image,{p},x" for p, c in
             (("train", "ape"), ("train", "bee"), ("test", "ape"))]  # fmt: skip
    _fails(_table(root, *lines), "in 'train' but not in 'test'", "bee")


def test_esc50(tmp_path: pathlib.Path) -> None:
    (tmp_path / "meta").mkdir()
    rows = [f"{f}-{i}.wav,{f},{i},sea_waves" for f in range(1, 6) for i in range(2)]
    head = "filename,fold,target,category\n"
    (tmp_path / "meta/esc50.csv").write_text(head + "\n".join(rows))
    with pytest.raises(DataError, match=r"10 faults(.*\n.*listed, but){10}"):
        layouts.esc50(tmp_path)
    (tmp_path / "audio").mkdir()
    for row in rows:
        (tmp_path / "audio" / row.partition(",")[0]).touch()
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
    stream = _build(tmp_path / "manifest.csv")
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
