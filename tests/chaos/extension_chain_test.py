"""Extensions that are killed at any moment end as if left alone."""

import json
import os
import pathlib
import time

import numpy as np
import pytest

from mmcl_jax.workdir import layout, lock
from tests import helpers
from tests.contract import assert_same

DATA = (("image", "ab"), ("text", "cd"), ("image", "e"), ("image", "bf"), ("text", "g"))
FLAGS = (
    "--config=configs/folders.py:smoke,method=sequential",
    "--config.report=off",
    "--config.checkpoint.every_steps=2",
    "--config.train.epochs=2",
)


def _write(root: pathlib.Path, modality: str, labels: str, name: str) -> pathlib.Path:
    for label in labels:
        for part, samples in (("train", 3), ("test", 2)):
            folder = root / modality / name / part / label
            folder.mkdir(parents=True)
            for i in range(samples):
                number = 10 * ord(label) + i + 5 * (part == "test")
                if modality == "text":
                    (folder / f"{i}.txt").write_text(f"sentence {number} of {label}")
                else:
                    helpers.write_picture(folder / f"{i}.png", number)
    return root


def _extend(workdir: pathlib.Path, data: pathlib.Path) -> helpers.Started:
    flags = (f"--workdir={workdir}", f"--data={data}")
    return helpers.start("-m", "mmcl_jax.extend", flags=flags, workdir=workdir)


def _chain(
    start: pathlib.Path, data: list[pathlib.Path], kills: int, seconds: float
) -> int:
    """Extends a run five times, killing `kills` processes; returns how many died."""
    rng, killed = np.random.default_rng(kills), 0
    for i, each in enumerate(data):
        wanted = killed + kills // len(data) + (i < kills % len(data))
        while killed < wanted:
            running = _extend(start, each)
            # also while there is nothing left to learn
            time.sleep(rng.uniform(0.05, 0.8 * seconds))
            running.process.kill()
            killed += running.finish().code != 0
        done = _extend(start, each).finish()
        assert done.code == 0, done.errors
    return killed


@pytest.mark.full("extension")
def test_a_chain_of_extensions_that_are_killed(
    encoder_folder: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    kills = 50
    first = _write(tmp_path / "first", "image", "yz", "first")
    data = [
        _write(tmp_path / f"data{i}", modality, labels, "more")
        for i, (modality, labels) in enumerate(DATA)
    ]
    alone, disturbed = tmp_path / "alone", tmp_path / "disturbed"
    flags = (*FLAGS, f"--config.encoder.path={encoder_folder}")
    flags = (*flags, f"--config.stream.root={first}")
    for workdir in (alone, disturbed):
        done = helpers.run(*flags, workdir=workdir)
        assert done.code == 0, done.errors
    started = time.monotonic()
    assert _chain(alone, data, 0, 0) == 0
    killed = _chain(disturbed, data, kills, (time.monotonic() - started) / len(data))
    assert killed == kills
    for stage in range(1 + len(data)):
        assert_same(*[helpers.snapshot(each, stage) for each in (alone, disturbed)])
        assert_same(*[helpers.predictions(each, stage) for each in (alone, disturbed)])
    streams = [json.loads((w / layout.STREAM).read_text()) for w in (alone, disturbed)]
    assert [len(each["tasks"]) for each in streams] == [6, 6]
    added = [each.pop("origin")["added"] for each in streams]
    assert [len(each) for each in added] == [5, 5]
    assert streams[0] == streams[1]


@pytest.mark.full("extension")
def test_two_processes_do_not_extend_one_run(
    encoder_folder: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    first = _write(tmp_path / "first", "image", "ab", "made")
    more = _write(tmp_path / "more", "image", "c", "made")
    workdir = tmp_path / "run"
    flags = (*FLAGS, f"--config.encoder.path={encoder_folder}")
    done = helpers.run(*flags, f"--config.stream.root={first}", workdir=workdir)
    assert done.code == 0, done.errors
    held = lock.Lock(workdir)
    before = (workdir / layout.STREAM).read_bytes()
    refused = _extend(workdir, more).finish()
    assert refused.code == 2
    assert f"in use by process {os.getpid()}" in refused.errors
    assert (workdir / layout.STREAM).read_bytes() == before
    held.release()
    done = _extend(workdir, more).finish()
    assert done.code == 0, done.errors
