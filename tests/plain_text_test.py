"""Names from data do nothing to terminals, logs and spreadsheets."""

import csv
import io
import math
import pathlib
import random
import shutil

import pytest
from rich.console import Console

from mmcl_jax.plain_text import printable, to_csv
from mmcl_jax.workdir.logs import Writer
from tests import helpers

FORGED = "pets\x1b]0;owned\x07\n2031-01-01 00:00:00,000 accuracy 100 %\u202egpj"


def test_nothing_that_controls_is_left() -> None:
    draw = random.Random(0)
    for _ in range(200):
        # surrogates too, which names of files that are not UTF-8 have
        text = "".join(chr(draw.randrange(0x3000)) for _ in range(20)) + "\udcff"
        assert printable(text).isprintable()
        assert printable(printable(text)) == printable(text)


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_a_cell_is_never_a_formula(start: str) -> None:
    (row,) = csv.reader(io.StringIO(to_csv([[f"{start}cmd|' /C calc'!A0", "a", -1.5]])))
    assert row[0][0] in "'\\" and row[1:] == ["a", "-1.5"]


def test_numbers_are_cells_as_they_are() -> None:
    assert to_csv([[-1, 0.5, math.nan, None, "b=c"]]) == "-1,0.5,,,b=c\n"


def test_no_line_of_a_log_is_forged(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    writer = Writer(tmp_path, Console())
    writer.say(f"skipped: {FORGED}")
    writer.close()
    (line,) = (tmp_path / "log.txt").read_text().splitlines()
    shown = capsys.readouterr().out
    assert line.endswith(r"100 %\u202egpj")
    assert "\x1b" not in shown and "\u202e" not in shown and shown.count("\n") == 1


def test_names_of_folders_and_files_are_harmless(tmp_path: pathlib.Path) -> None:
    # a data set, files that cannot be read, and a file that is in both parts
    name = FORGED.replace("/", "")
    for part in ("train", "test"):
        for kind, first in (("ape", 0), ("bee", 2)):
            for k in range(2):
                folder = tmp_path / "data/image" / name / part / kind
                helpers.write(folder, "image", first + k + 9 * (part == "test"))
    folder = tmp_path / "data/image" / name
    (folder / "train/ape" / f"{name}.png").write_bytes(b"no picture")
    shutil.copy(folder / "train/bee/2.png", folder / "test/bee" / f"{name}.png")
    (tmp_path / "data" / f"{name}.zip").touch()
    done = helpers.run(
        "--config=configs/folders.py:smoke,method=ncm",
        f"--config.stream.root={tmp_path / 'data'}",
        "--config.data.on_error=skip",
        workdir=tmp_path / "run",
    )
    assert done.code == 0, done.errors
    log = (tmp_path / "run/log.txt").read_text()
    for text in (done.output, done.errors, log):
        assert not set("\x1b\x07\u202e") & set(text)
    assert "skipped: " in log and "training sample of the same content" in log
    assert not [line for line in log.splitlines() if line.startswith("2031")]
