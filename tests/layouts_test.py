"""Tables of published data sets, on small trees of the shape that is published."""

import json
import pathlib
from collections.abc import Callable

import pytest

from mmcl_jax.errors import DataError, Faults
from mmcl_jax.modalities.base import Storage
from mmcl_jax.streams import layouts, manifest
from mmcl_jax.streams.manifest import Row


def _touch(root: pathlib.Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def _write(root: pathlib.Path, name: str, *lines: str, end: str = "\n") -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(end.join([*lines, ""]), encoding="utf-8", newline="")


def _fails(read: Callable[[], list[Row]], *words: str) -> None:
    with pytest.raises(DataError) as caught:
        read()
    for word in words:
        assert word in str(caught.value)


CLIPS = {
    "train": [
        "ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi 1",
        "YoYo/v_YoYo_g08_c01.avi 2",
    ],
    "test": ["ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi", "YoYo/v_YoYo_g01_c01.avi"],
}


@pytest.mark.parametrize("base", ["", "UCF-101/"])
def test_ucf101(tmp_path: pathlib.Path, base: str) -> None:
    lists = "ucfTrainTestlist"
    # the official lists end their lines in both ways
    _write(tmp_path, f"{lists}/classInd.txt", "1 ApplyEyeMakeup", "2 YoYo", end="\r\n")
    for number in (1, 2):
        for part, lines in CLIPS.items():
            lines = lines if number == 1 else lines[::-1]
            _write(tmp_path, f"{lists}/{part}list{number:02}.txt", *lines)
            _touch(tmp_path, *(f"{base}{line.split()[0]}" for line in lines))
    found = layouts.ucf101(tmp_path)
    assert found == layouts.ucf101(tmp_path, split=2)
    assert [row[1:7] for row in found] == [
        ("Apply Eye Makeup", "video", part, "ucf101", "", "")
        for part in ("test", "train")
    ] + [("Yo Yo", "video", part, "ucf101", "", "") for part in ("test", "train")]
    assert found[0].path == f"{base}ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi"
    _fails(lambda: layouts.ucf101(tmp_path, split=3), "trainlist03.txt: no such file")
    for line in CLIPS["test"]:
        (tmp_path / base / line).unlink()
    _fails(
        lambda: layouts.ucf101(tmp_path), "2 faults", "v_YoYo_g01_c01.avi: listed, but"
    )
    _write(tmp_path, f"{lists}/testlist01.txt", "YoYo/a.avi 1", "Cat/b.avi", "../c.avi")
    _fails(
        lambda: layouts.ucf101(tmp_path),
        *("testlist01.txt:1: 'YoYo/a.avi 1'; its class", "testlist01.txt:2"),
        "testlist01.txt:3: '../c.avi'; expected a path inside",
    )


def test_speech_commands(tmp_path: pathlib.Path) -> None:
    names = [f"{word}/{k}_nohash_0.wav" for word in ("bed", "yes") for k in "abc"]
    names[2] = names[2].replace("wav", "WAV")
    _touch(tmp_path, *names, "_background_noise_/pink_noise.wav", "LICENSE")
    _write(tmp_path, "validation_list.txt", names[0], names[3])
    _write(tmp_path, "testing_list.txt", names[1], names[4])
    assert layouts.speech_commands(tmp_path) == [
        Row(name, name[:3], "audio", part, "speech_commands")
        for name, part in zip(names, ["", "test", "train"] * 2, strict=True)
        if part
    ]
    _write(tmp_path, "testing_list.txt", "bed/x.wav", "yes/y.wav", "/etc/z.wav")
    _fails(
        lambda: layouts.speech_commands(tmp_path),
        *(
            "3 faults",
            "testing_list.txt:1: bed/x.wav: no such file",
            "txt:2: yes/y.wav",
        ),
    )
    (tmp_path / "testing_list.txt").unlink()
    _fails(lambda: layouts.speech_commands(tmp_path), "testing_list.txt: no such file")


@pytest.mark.parametrize("base", ["", "images/"])
def test_coop(tmp_path: pathlib.Path, base: str) -> None:
    split = {
        "train": [["Abyssinian_1.jpg", 0, "abyssinian"], ["beagle_2.jpg", 4, "beagle"]],
        "val": [["beagle_3.jpg", 4, "beagle"]],
        "test": [["beagle_4.jpg", 4, "beagle"], ["Abyssinian_5.jpg", 0, "abyssinian"]],
    }
    path = tmp_path / "split_zhou_OxfordPets.json"
    path.write_text(json.dumps(split, indent=4))
    (tmp_path / "annotations").mkdir()
    files = [entry[0] for part in split.values() for entry in part]
    _touch(tmp_path, *(base + file for file in files))
    assert layouts.coop(tmp_path) == [
        Row(base + file, name, "image", part, "OxfordPets")
        for file, name, part in (
            ("Abyssinian_1.jpg", "abyssinian", "train"),
            ("Abyssinian_5.jpg", "abyssinian", "test"),
            ("beagle_2.jpg", "beagle", "train"),
            ("beagle_4.jpg", "beagle", "test"),
        )
    ]
    (tmp_path / base / "beagle_2.jpg").unlink()
    (tmp_path / base / "beagle_4.jpg").unlink()
    _fails(
        lambda: layouts.coop(tmp_path), "2 faults", f"{base}beagle_4.jpg: listed, but"
    )
    split["test"] += [["a.jpg", "0", "x"], ["../b.jpg", 1, "y"]]
    path.write_text(json.dumps(split))
    _fails(
        lambda: layouts.coop(tmp_path),
        *("test[2]: ['a.jpg', '0', 'x']; expected [path", "test[3]: '../b.jpg'"),
    )
    path.write_text(json.dumps({"train": split["train"]}))
    _fails(lambda: layouts.coop(tmp_path), f"{path}: no list 'test'")
    path.write_text(json.dumps(split)[:-5])
    _fails(lambda: layouts.coop(tmp_path), f"{path}: cannot be decoded")
    (tmp_path / "split_zhou_Other.json").touch()
    _fails(lambda: layouts.coop(tmp_path), "2 files split_zhou_*.json; expected one")


HEAD = "Category&VideoID&Quality&StartTime&EndTime"


def test_ave(tmp_path: pathlib.Path) -> None:
    events = [
        f"{name}&{video}&good&0&10"
        for name, video in zip(
            ("Church bell", "Truck", "Church bell", "Truck", "Truck"),
            ("RUhOCu3LNXM", "-kzxsdcEY1k", "JAqxGw5X_SQ", "a", "b"),
            strict=True,
        )
    ]
    _write(tmp_path, "Annotations.txt", HEAD, *events)
    _write(tmp_path, "trainSet.txt", *events[:2])
    _write(tmp_path, "valSet.txt", events[4])
    _write(tmp_path, "testSet.txt", HEAD, *events[2:4], events[2])
    _touch(tmp_path, *(f"AVE/{event.split('&')[1]}.mp4" for event in events))
    assert layouts.ave(tmp_path) == [
        Row("AVE/-kzxsdcEY1k.mp4", "Truck", "video", "train", "ave"),
        Row("AVE/JAqxGw5X_SQ.mp4", "Church bell", "video", "test", "ave"),
        Row("AVE/RUhOCu3LNXM.mp4", "Church bell", "video", "train", "ave"),
        Row("AVE/a.mp4", "Truck", "video", "test", "ave"),
    ]
    (tmp_path / "AVE/a.mp4").unlink()
    (tmp_path / "AVE/RUhOCu3LNXM.mp4").unlink()
    _fails(
        lambda: layouts.ave(tmp_path), "2 faults", "AVE/a.mp4: listed, but there is no"
    )
    _write(
        tmp_path, "testSet.txt", "Truck&JAqxGw5X_SQ&good&0&10", "a&b", "x&../y&good&0&1"
    )
    _fails(
        lambda: layouts.ave(tmp_path),
        *("testSet.txt:1: JAqxGw5X_SQ is not 'Truck' in", "testSet.txt:2: 'a&b'"),
        "testSet.txt:3",
    )


def _frames(root: pathlib.Path) -> list[str]:
    frames = [
        "kv1/NYUdata/NYU0001",
        "kv2/kinect2data/000002_2014-05-26_14-23-37_260595134347_rgbf000103",
        "realsense/lg/2014_10_21",
        "xtion/sun3ddata/x/0001",
    ]
    scenes = ("bathroom", "home_office", "idk", "bathroom")
    for frame, scene in zip(frames, scenes, strict=True):
        _write(root, f"SUNRGBD/{frame}/scene.txt", scene, end="")
        _touch(root, f"SUNRGBD/{frame}/depth/0.png", f"SUNRGBD/{frame}/depth_bfx/0.png")
        _touch(root, f"SUNRGBD/{frame}/image/0.jpg")
    (root / f"SUNRGBD/{frames[3]}/depth/0.png").unlink()
    return frames


def test_sun_rgbd(tmp_path: pathlib.Path) -> None:
    frames = _frames(tmp_path)
    wanted = [
        (f"SUNRGBD/{frames[0]}/depth/0.png", "bathroom"),
        (f"SUNRGBD/{frames[1]}/depth/0.png", "home_office"),
        (f"SUNRGBD/{frames[3]}/depth_bfx/0.png", "bathroom"),
    ]
    found = layouts.sun_rgbd(tmp_path)
    assert found == [
        Row(path, label, "depth", "train", "sun_rgbd", "sunrgbd")
        for path, label in wanted
    ]
    manifest.write(tmp_path / "manifest.csv", [*found, found[1]._replace(path="b.png")])
    _touch(tmp_path, "b.png")
    stream = manifest.build(
        path=str(tmp_path / "manifest.csv"), classes_per_task=2, faults=Faults()
    )
    stored = {r.reference.storage for r in stream.tasks[0].train}
    assert stored == {Storage(depth_scale=1000, depth_rotated=True)}
    inside = layouts.sun_rgbd(tmp_path / "SUNRGBD")
    assert [f"SUNRGBD/{row.path}" for row in inside] == [path for path, _ in wanted]


def test_a_validation_part_beside_a_test_part_does_not_score(tmp_path) -> None:
    _touch(tmp_path, "train/a/0.png", "val/a/1.png", "test/depth/a/2.png")
    rows = [(row.path, row.split) for row in layouts.nyu_depth(tmp_path)]
    assert rows == [("train/a/0.png", "train"), ("test/depth/a/2.png", "test")]


def test_lists_of_sun_rgbd(tmp_path: pathlib.Path) -> None:
    frames = _frames(tmp_path)
    _write(tmp_path, "train.txt", f"/n/fs/sun3d/data/SUNRGBD/{frames[0]}/")
    _write(tmp_path, "test.txt", f"SUNRGBD/{frames[1]}", frames[2])
    found = layouts.sun_rgbd(tmp_path)
    assert [(row.label, row.split) for row in found] == [
        ("bathroom", "train"),
        ("home_office", "test"),
    ]
    _write(tmp_path, "test.txt", "kv1/gone", frames[0], "kv2/gone")
    _fails(
        lambda: layouts.sun_rgbd(tmp_path),
        *(
            "3 faults",
            "test.txt:1: kv1/gone: no frame",
            "test.txt:2",
            "is in both lists",
        ),
    )
    (tmp_path / "test.txt").unlink()
    _fails(lambda: layouts.sun_rgbd(tmp_path), "test.txt: no such file")


def test_faulty_frames_of_sun_rgbd_are_named(tmp_path: pathlib.Path) -> None:
    frames = _frames(tmp_path)
    _touch(tmp_path, f"SUNRGBD/{frames[0]}/depth/1.png")
    (tmp_path / f"SUNRGBD/{frames[3]}/depth_bfx/0.png").unlink()
    (tmp_path / f"SUNRGBD/{frames[1]}/scene.txt").write_text("")
    _fails(
        lambda: layouts.sun_rgbd(tmp_path),
        *("3 faults", "NYU0001/depth: 2 maps; expected one", "x/0001: no map in depth"),
        "scene.txt: the file is empty",
    )
    _fails(lambda: layouts.sun_rgbd(tmp_path / "none"), "no frame in it")
