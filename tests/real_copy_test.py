"""The copy of mmcl-real v1, made of clones of the shape that is published."""

import csv
import json
import pathlib
from collections.abc import Iterable

import pytest

from mmcl_jax.errors import DataError
from mmcl_jax.streams import layouts
from mmcl_jax.streams.pinned import mmcl_real
from tests import fork_server, helpers

DIGITS = "zero one two three four five six seven eight nine".split()
# frames of the letter a in the published stream, of 528
FIRST, LAST = (1, 7, 14, 20, 27), (502, 506, 511, 515, 520, 524)


def _touch(folder: pathlib.Path, names: Iterable[str]) -> None:
    folder.mkdir(parents=True)
    for name in names:
        (folder / name).write_text(f"{folder.name}/{name}")


def _said(*sentences: list[str]) -> list[dict]:
    return [{"data": [{"text": part} for part in parts]} for parts in sentences]


@pytest.fixture
def sources(tmp_path: pathlib.Path) -> pathlib.Path:
    """Clones with a few classes, and with more files than are copied."""
    root = tmp_path / "sources"
    for part, count in (("train", 203), ("test", 82)):
        names = [f"{k:04}.jpg" for k in range(count)]
        _touch(root / "CIFAR-10-images" / part / "frog", names)
    objects = root / "Homework2-Caltech101/101_ObjectCategories"
    for name in ("Leopards", "Faces_easy", "BACKGROUND_Google"):
        _touch(objects / name, [f"image_{k:04}.jpg" for k in range(1, 34)])
    for digit in range(10):
        folder = root / "Sign-Language-Digits-Dataset/Dataset" / str(digit)
        _touch(folder, [f"IMG_{k}.JPG" for k in range(980 + digit, 1400, 10)])
    recordings = [f"{d}_theo_{k}.wav" for d in range(10) for k in range(17)]
    folder = root / "free-spoken-digit-dataset/recordings"
    _touch(folder, [*recordings, "README.md"])
    for number, letter in enumerate("abcdefghiklm"):
        frames = range(1, 529 if letter == "a" else 11)
        names = [
            f"{kind}_{number}_{k:04}.png" for kind in ("color", "depth") for k in frames
        ]
        _touch(root / "gesture_recognition/dataset5/A" / letter, names)
    strokes = root / "3DCNN-Tennis-Action-Recognition/tennis_dataset"
    for name in ("serve", "f_volley"):
        _touch(strokes / name, [f"{name}{k}.mp4" for k in range(1, 54)])
    clinc = root / "oos-eval/data"
    clinc.mkdir(parents=True)
    rows = {"train": [["to be, or", "quote"]], "test": [['say "x"', "quote"]]}
    (clinc / "data_full.json").write_text(
        json.dumps(rows | {"oos_test": [["?", "oos"]]})
    )
    snips = root / "nlu-benchmark/2017-06-custom-intent-engines"
    _touch(snips / "PlayMusic", [])
    (snips / "README.md").touch()
    test = [[f"play  song {k}"] for k in range(45)]
    (snips / "PlayMusic/validate_PlayMusic.json").write_text(
        json.dumps({"PlayMusic": _said(["play ", "a\tsong", " "], *test)})
    )
    train = _said(
        ["play a", " song"], ["one"], ["one"], *([f"{k}"] for k in range(200))
    )
    text = json.dumps(
        {"PlayMusic": [*_said(["caf\xe9 de "]), *train]}, ensure_ascii=False
    )
    content = text.encode().replace("\xe9".encode(), b"\xe9")
    (snips / "PlayMusic/train_PlayMusic_full.json").write_bytes(content)
    return root


def _names(folder: pathlib.Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_files_are_those_of_the_published_stream(
    sources: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    out = tmp_path / "DATA"
    secret = tmp_path / "secret.jpg"
    secret.touch()
    (sources / "CIFAR-10-images/train/frog/0000a.jpg").symlink_to(secret)
    copied = layouts.copy_mmcl_real(sources, out)
    assert set(copied) == {n.rpartition("/")[0] for n in mmcl_real().classes} - {
        "audio/instruments"
    }
    frog = _names(out / "image/cifar10/train/frog")
    assert frog == [f"{k:04}.jpg" for k in range(200)]
    assert len(_names(out / "image/cifar10/test/frog")) == 80
    assert _names(out / "image/caltech101/train") == ["leopards"]
    test = _names(out / "image/caltech101/test/leopards")
    assert test == [f"image_{k:04}.jpg" for k in range(21, 31)]
    # numbers in the order of their values
    signs = _names(out / "image/sign_digits/train/two")
    assert {"img_982.jpg", "img_1272.jpg"} <= set(signs) and len(signs) == 30
    assert "img_1392.jpg" in _names(out / "image/sign_digits/test/two")
    sounds = out / "audio/fsdd"
    assert _names(sounds / "train/nine") == sorted(
        f"9_theo_{k}.wav" for k in range(5, 15)
    )
    assert _names(sounds / "test/zero") == sorted(f"0_theo_{k}.wav" for k in range(5))
    hands = out / "depth/asl_fingerspelling"
    train, test = (_names(hands / part / "a") for part in ("train", "test"))
    assert (len(train), len(test)) == (60, 24)
    assert train[:5] == [f"depth_0_{k:04}.png" for k in FIRST]
    assert test[-6:] == [f"depth_0_{k:04}.png" for k in LAST]
    clips = out / "video/tennis/test/forehand_volley"
    assert _names(clips) == sorted(f"f_volley{k}.mp4" for k in range(41, 54))
    path = out / "image/cifar10/test/frog/0007.jpg"
    assert path.read_text() == "frog/0007.jpg"


def test_sentences_become_tables(sources: pathlib.Path, tmp_path: pathlib.Path) -> None:
    out = tmp_path / "DATA"
    layouts.copy_mmcl_real(sources, out)
    text = (out / "text/clinc150/test.csv").read_text(encoding="utf-8")
    assert text == 'text,label\n"say ""x""",quote\n'
    assert "to be, or" in (out / "text/clinc150/train.csv").read_text()

    def rows(part: str) -> list[list[str]]:
        with (out / f"text/snips/{part}.csv").open(encoding="utf-8") as file:
            return list(csv.reader(file))

    test = ["play a song", *(f"play song {k}" for k in range(39))]
    assert rows("test") == [["text", "label"], *([s, "play_music"] for s in test)]
    # without what is tested, and each sentence once
    train = ["café de", "one", *map(str, range(98))]
    assert rows("train")[1:] == [[sentence, "play_music"] for sentence in train]


def test_a_copy_is_resumed(sources: pathlib.Path, tmp_path: pathlib.Path) -> None:
    out = tmp_path / "DATA"
    (sources / "oos-eval/data/data_full.json").write_text('{"train": 1}')
    with pytest.raises(DataError, match="data_full.json: cannot be decoded"):
        layouts.copy_mmcl_real(sources, out)
    assert not (out / "text/clinc150").exists()
    (sources / "oos-eval/data/data_full.json").write_text('{"train": [], "test": []}')
    mark = out / "image/cifar10/test/frog/0000.jpg"
    mark.write_text("not copied again")
    assert set(layouts.copy_mmcl_real(sources, out)) == {"text/clinc150", "text/snips"}
    assert mark.read_text() == "not copied again"
    assert {p.name for p in (out / "text").iterdir()} == {"clinc150", "snips"}


def test_missing_clones_are_named_before_anything_is_copied(
    sources: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    for name in ("CIFAR-10-images", "nlu-benchmark"):
        (sources / name).rename(tmp_path / name)
    (sources / "cifar-10-batches-py").mkdir()
    out = tmp_path / "DATA"
    with pytest.raises(DataError) as caught:
        layouts.copy_mmcl_real(sources, out)
    for words in (
        "CIFAR-10-images: no such folder; clone it as docs/data.md",
        "holds pickles, which are never opened",
        "nlu-benchmark: no such folder",
    ):
        assert words in str(caught.value)
    assert not out.exists()


def test_the_program(sources: pathlib.Path, tmp_path: pathlib.Path) -> None:
    command = ["-m", "mmcl_jax.manifest", f"--root={sources}"]
    out = f"--out={tmp_path / 'DATA'}"
    for flags, code, words in (
        (["--layout=mmcl_real", out], 0, "DATA/video/tennis: 106 samples"),
        (["--layout=esc50", out], 2, "--out belongs to --layout=mmcl_real"),
    ):
        where = helpers.REPOSITORY, helpers.environment()
        done = fork_server.run([*command, *flags], *where)
        assert done.returncode == code
        assert words in done.stdout + done.stderr


def test_tables_are_those_that_are_pinned(
    sources: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    root = helpers.shared_data()
    if root is None:
        pytest.skip("no folder shared/data beside the repository")
    texts = root / "text"
    rows: dict[str, dict[str, list]] = {}
    for name in ("clinc150", "snips"):
        for part in ("train", "test"):
            with (texts / name / f"{part}.csv").open(encoding="utf-8") as file:
                rows.setdefault(name, {})[part] = list(csv.reader(file))[1:]
    (sources / "oos-eval/data/data_full.json").write_text(json.dumps(rows["clinc150"]))
    for label in dict.fromkeys(label for _, label in rows["snips"]["train"]):
        intent = label.title().replace("_", "")
        folder = sources / "nlu-benchmark/2017-06-custom-intent-engines" / intent
        folder.mkdir(exist_ok=True)
        for part, file in (
            ("train", f"train_{intent}_full"),
            ("test", f"validate_{intent}"),
        ):
            own = [
                text.split(" ", 1)
                for text, other in rows["snips"][part]
                if other == label
            ]
            said = _said(*([f"{first} ", *rest] for first, *rest in own))
            (folder / f"{file}.json").write_text(json.dumps({intent: said}))
    layouts.copy_mmcl_real(sources, tmp_path / "DATA")
    for name in ("clinc150", "snips"):
        for part in ("train", "test"):
            path = f"{name}/{part}.csv"
            made = (tmp_path / "DATA/text" / path).read_bytes()
            assert made == (texts / path).read_bytes(), path
