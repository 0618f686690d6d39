"""What is wrong with data is found, named and counted before training."""

import json
import pathlib
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image

from tests import fork_server, helpers


@pytest.fixture
def root(tmp_path: pathlib.Path) -> pathlib.Path:
    for name, first in (("ape", 0), ("bee", 6)):
        for part, start in (("train", 0), ("test", 3)):
            for k in range(3):
                folder = tmp_path / "data/image/pets" / part / name
                helpers.write(folder, "image", first + start + k)
    return tmp_path / "data"


def _run(root: pathlib.Path, *flags: str) -> subprocess.CompletedProcess[str]:
    words = [
        *("-m", "mmcl_jax.prepare"),
        "--config=configs/folders.py",
        f"--config.stream.root={root}",
        *flags,
    ]
    return fork_server.run(words, helpers.REPOSITORY, helpers.environment())


def test_sound_data_pass(root: pathlib.Path, tmp_path: pathlib.Path) -> None:
    page = tmp_path / "new" / "page.html"
    done = _run(root, f"--out={page}")
    assert done.returncode == 0, done.stderr
    assert "image/pets/0: 2 classes, 6 training and 6 test samples" in done.stdout
    assert done.stdout.endswith("errors: 0, warnings: 2\n")
    text = page.read_text()
    assert text.count("<img src") == 6 and text.count("data:image/webp") == 6
    assert "http" not in text.replace("http://www.w3.org", "")


def test_everything_wrong_is_found(root: pathlib.Path, tmp_path: pathlib.Path) -> None:
    train, test = root / "image/pets/train", root / "image/pets/test"
    (train / "ape/damaged.png").write_bytes((train / "ape/0.png").read_bytes()[:100])
    (test / "bee/empty.png").touch()
    shutil.copy(train / "ape/1.png", test / "ape/leak.png")
    shutil.copy(train / "ape/2.png", train / "bee/other.png")
    shutil.copy(train / "bee/7.png", train / "bee/again.png")
    done = _run(root, "--json", f"--out={tmp_path / 'page.html'}")
    assert done.returncode == 2, done.stderr
    found = json.loads(done.stdout)
    assert found["wrong"] == 4
    assert sorted(pathlib.Path(f.split(":")[0]).name for f in found["damaged"]) == [
        "damaged.png",
        "empty.png",
    ]
    place = "image/pets/"
    assert found["leaks"] == [
        {"train": f"{place}train/ape/1.png", "test": f"{place}test/ape/leak.png"}
    ]
    (pair,) = found["contradictions"]
    assert set(pair) == {f"{place}train/ape/2.png", f"{place}train/bee/other.png"}
    (pair,) = found["repeated"]
    assert set(pair) == {f"{place}train/bee/7.png", f"{place}train/bee/again.png"}
    counts = {c["name"]: (c["train"], c["test"]) for c in found["classes"]}
    assert counts == {"ape": (4, 4), "bee": (5, 4)}
    assert any("1 of 2 classes have fewer than 5" in line for line in found["remarks"])
    lines = _run(root).stdout
    kinds = [line.split()[:2] for line in lines.splitlines()]
    assert kinds.count(["error", "damaged"]) == 2
    assert ["error", "leak"] in kinds and ["error", "contradiction"] in kinds
    assert ["warning", "duplicate"] in kinds and ["warning", "imbalance"] in kinds
    assert lines.splitlines()[-1].startswith("errors: 4, warnings: ")
    text = (tmp_path / "page.html").read_text()
    assert "damaged.png" in text
    # a long table comes last
    assert text.index('<section id="samples"') < text.index('<section id="counts"')


def test_names_do_nothing_to_a_terminal(root: pathlib.Path) -> None:
    train, test = root / "image/pets/train", root / "image/pets/test"
    shutil.copy(train / "ape/1.png", test / "ape/a\x1b[2J.png")
    done = _run(root)
    assert done.returncode == 2
    assert r"ape/a\x1b[2J.png is a test sample" in done.stdout
    assert "\x1b" not in done.stdout + done.stderr


def test_uneven_classes_are_a_remark(root: pathlib.Path) -> None:
    for k in range(100, 140):
        path = root / "image/pets/train/ape" / f"{k}.png"
        Image.fromarray(np.full((9, 9, 3), k, np.uint8)).save(path)
    done = _run(root)
    assert done.returncode == 0
    assert "class 'ape' has 43 training samples, 'bee' has 3" in done.stdout


def test_without_a_stream_there_is_nothing_to_look_at(tmp_path: pathlib.Path) -> None:
    done = _run(tmp_path / "none")
    assert done.returncode == 2 and "no such folder" in done.stdout
    assert done.stdout.endswith("errors: 1, warnings: 0\n")
    found = json.loads(_run(tmp_path / "none", "--json").stdout)
    assert found["wrong"] == 1 and not found["classes"]


def _faulty(root: pathlib.Path) -> dict[str, str]:
    """Writes one of each fault; returns a part of each message with its severity."""
    train, test = root / "image/pets/train", root / "image/pets/test"
    shutil.copy(train / "ape/1.png", test / "ape/leak.png")
    shutil.copy(train / "ape/2.png", train / "bee/other.png")
    (train / "ape/pointer.jpg").write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 9\n"
    )
    (train / "ape/page.jpg").write_text("<!DOCTYPE html><html>404</html>")
    (train / "bee/words.txt").write_text("no picture")
    (train / "bee/cut.png").write_bytes((train / "bee/6.png").read_bytes()[:99])
    Image.new("RGB", (9, 9), "red").save(train / "bee/plain.bmp")
    Image.open(train / "ape/0.png").save(train / "ape/0.webp", lossless=True)
    (root / "image/.hidden").mkdir()
    (root / "image/notes.md").touch()
    (root / "sounds/calls/train/moo").mkdir(parents=True)
    shutil.copytree(root / "image/pets/test", root / "image/cats/Test")
    for name in ("café", "cafe\u0301"):
        helpers.write(root / "image/names/train" / name, "image")
    for part in ("train", "test"):
        for label, first in (("near", 0), ("far", 9)):
            for k in range(2):
                folder = root / "depth/rooms" / part / label
                folder.mkdir(parents=True, exist_ok=True)
                metres = np.linspace(2 + k, 4, 99).reshape(9, 11) + (part == "test")
                Image.fromarray((5000 * metres + first).astype(np.uint16)).save(
                    folder / f"{k}.png"
                )
    (root / "text/talk").mkdir(parents=True)
    rows = ["text,label", "hello,there,greet", ",greet", "good day,greet", "bye,part"]
    rows += ["hi,greet", "so long,part", "see you,part"]
    (root / "text/talk/train.csv").write_text("\n".join(rows) + "\n")
    return {
        "sounds: not a modality; rename it to 'audio'": "error",
        "cats/Test: not used: a folder of this name": "error",
        "the same but for their Unicode form": "error",
        "train.csv:2: expected 2 fields in line 2, found 3": "error",
        "train.csv:3: ": "error",
        "pointer.jpg: a Git LFS pointer; run `git lfs pull`": "error",
        "page.jpg: an HTML page": "error",
        "words.txt: suffix '.txt'": "error",
        "cut.png: ": "error",
        "leak.png is a test sample and": "error",
        "have the same content but different classes": "error",
        "depth_scale": "warning",
        "plain.bmp: a picture of a single colour": "warning",
        "0.webp differ as files, but are decoded to the same": "warning",
        "image/.hidden (hidden)": "warning",
        "image/notes.md (a file)": "warning",
    }


def test_one_of_each_fault_is_told_in_one_go(root: pathlib.Path) -> None:
    wanted = _faulty(root)
    done = _run(root, "--config.stream.classes_per_task=2")
    assert done.returncode == 2, done.stderr
    lines = done.stdout.splitlines()
    for part, severity in wanted.items():
        (line,) = [line for line in lines if part in line][:1] or [""]
        assert line.startswith(severity), (part, done.stdout)
    as_json = _run(root, "--config.stream.classes_per_task=2", "--json")
    assert as_json.returncode == 2
    found = json.loads(as_json.stdout)
    said = json.dumps(found, ensure_ascii=False)
    assert lines[-1].startswith(f"errors: {found['wrong']}, warnings: ")
    for part in wanted:
        if (
            not part.endswith(("the same", "different classes"))
            and "sample" not in part
        ):
            assert part.split("plain.bmp: ")[-1] in said, part
    assert found["leaks"] and found["contradictions"] and found["same_when_decoded"]


def test_warnings_alone_end_well(root: pathlib.Path) -> None:
    Image.new("RGB", (9, 9), "red").save(root / "image/pets/train/bee/plain.bmp")
    (root / "image/notes.md").touch()
    done = _run(root)
    assert done.returncode == 0, done.stdout
    assert "a picture of a single colour" in done.stdout
    assert "image/notes.md (a file)" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("errors: 0, warnings: ")
