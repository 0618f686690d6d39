"""Samples that cannot be decoded, kill a process, or are there twice."""

import dataclasses
import os
import pathlib
import signal
import time
from typing import Any

import numpy as np
import pytest

from mmcl_jax.errors import DataError
from mmcl_jax.modalities.base import InputSpec, Modality, TextReference
from mmcl_jax.streams import watchdog
from mmcl_jax.streams.base import Record, Stream, TaskDraft, build_stream
from mmcl_jax.streams.loader import Decoder, epoch
from mmcl_jax.streams.verification import describe_leaks, leaks, verify, without
from tests import helpers


@dataclasses.dataclass(frozen=True)
class Grey:
    """A picture of one grey level; 100 and up are damaged, 200 kills its process.

    300 takes more memory than there is, 400 never ends.
    """

    level: int

    def load(self, modality: Modality, spec: InputSpec) -> np.ndarray:
        del modality, spec
        if self.level == 200:
            os.kill(os.getpid(), signal.SIGKILL)
        while self.level == 400:
            time.sleep(1)
        if self.level == 300:
            raise MemoryError
        if self.level > 99:
            raise DataError(f"grey/{self.level}.png: too bright")
        return np.full((8, 8, 3), self.level, np.uint8)

    def describe(self) -> str:
        return f"grey/{self.level}.png"

    def identity(self) -> str:
        return str(self.level % 50)


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> InputSpec:
    return helpers.make_spec(tmp_path_factory.mktemp("spec"), image_size=8)


def _stream(train: Any, test: Any) -> Stream:
    parts = [tuple(Grey(level) for level in levels) for levels in (train, test)]
    other = [(Grey(40), Grey(41)), (Grey(42),)]
    drafts = TaskDraft(
        "t",
        "image",
        (("cat", "pets"), ("dog", "pets")),
        (parts[0], other[0]),
        (parts[1], other[1]),
    )
    return build_stream([drafts])


def test_every_sample_is_decoded_once(spec: InputSpec) -> None:
    seen: list[tuple[int, int]] = []
    stream = _stream(range(15), range(15, 30))
    found = verify(Decoder(spec, 2**20), stream, lambda *done: seen.append(done))
    assert not found.failures
    assert seen == [(i + 1, 33) for i in range(33)]


def test_up_to_ten_are_listed(spec: InputSpec) -> None:
    decoder = Decoder(spec, 0)
    with pytest.raises(DataError, match="^2 of 13 samples") as caught:
        verify(decoder, _stream(range(92, 97), range(97, 102)))
    for name in ("grey/100.png", "grey/101.png"):
        assert name in str(caught.value)
    with pytest.raises(DataError, match="^10 or more of 102 samples"):
        verify(decoder, _stream(range(100, 150), range(100, 149)))


def test_skipped_samples_leave_the_stream(spec: InputSpec) -> None:
    stream = _stream([1, 100, 2, 101], [3, 102])
    found = verify(Decoder(spec, 0), stream, collect=True).failures
    assert [found[i] for i in sorted(found)] == [
        f"grey/{level}.png: too bright" for level in (100, 101, 102)
    ]
    (task,) = without(stream, found).tasks
    kept = [(r.id, r.reference.level) for r in (*task.train, *task.test)]
    assert kept == [(0, 1), (2, 2), (4, 40), (5, 41), (6, 3), (8, 42)]
    assert without(stream, {}) == stream


@pytest.mark.parametrize("part", ["train", "test"])
def test_a_class_of_which_nothing_is_left(part: str, spec: InputSpec) -> None:
    levels = {"train": [1, 2], "test": [3]} | {part: [100, 101]}
    stream = _stream(**levels)
    with pytest.raises(DataError, match=f"image/pets: no {part} sample .* 'cat'") as e:
        without(stream, verify(Decoder(spec, 0), stream, collect=True).failures)
    assert "grey/100.png: too bright" in str(e.value)


@pytest.mark.full("files")
def test_a_sample_that_kills_its_process_is_told_apart(spec: InputSpec) -> None:
    stream = _stream([1, 200, *range(2, 20), 100], [3])
    options = {"worker_processes": 2, "collect": True}
    found = verify(Decoder(spec, 0), stream, **options).failures
    assert len(found) == 2
    assert "grey/200.png: the process that decoded it was killed" in found[1]
    assert found[20] == "grey/100.png: too bright"


@pytest.mark.full("workers")
def test_a_worker_that_is_killed_is_an_error(spec: InputSpec) -> None:
    records = [Record(Grey(i), 0, i) for i in (1, 2, 200, 3)]
    batches = epoch(
        records, "image", Decoder(spec, 0), 4, seed=None, worker_processes=1
    )
    with pytest.raises(DataError, match="a worker process was killed") as caught:
        list(batches)
    assert "grey/200.png" in str(caught.value)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers are given up after five seconds, in which they also have to start."""
    answered = watchdog.answered
    monkeypatch.setattr(watchdog, "answered", lambda results: answered(results, 5.0))


@pytest.mark.full("files")
@pytest.mark.skipif(not pathlib.Path("/proc/self/stat").exists(), reason="no /proc")
def test_a_sample_that_hangs_is_told_apart(spec: InputSpec, impatient: None) -> None:
    stream = _stream([1, 400, 2], [3])
    options = {"worker_processes": 1, "collect": True}
    found = verify(Decoder(spec, 0), stream, **options).failures
    assert list(found) == [1]
    assert "grey/400.png: the process that decoded it was killed; the" in found[1]


@pytest.mark.skipif(not pathlib.Path("/proc/self/stat").exists(), reason="no /proc")
@pytest.mark.full("workers")
def test_a_worker_that_hangs_is_an_error(spec: InputSpec, impatient: None) -> None:
    records = [Record(Grey(i), 0, i) for i in (1, 2, 400, 3)]
    batches = epoch(
        records, "image", Decoder(spec, 0), 4, seed=None, worker_processes=1
    )
    with pytest.raises(DataError, match="no worker process has answered for 5 s") as e:
        list(batches)
    assert "grey/400.png" in str(e.value)


def test_a_sample_that_memory_does_not_suffice_for(spec: InputSpec) -> None:
    with pytest.raises(DataError, match="grey/300.png: memory ran out"):
        verify(Decoder(spec, 0), _stream([1, 300], [3]))


def test_leaks_name_both_samples() -> None:
    found = leaks(_stream([1, 2, 3], [52, 4]))
    assert describe_leaks(found) == [
        "warning: grey/52.png is a test sample and grey/2.png a training sample of the "
        "same content"
    ]
    many = describe_leaks(leaks(_stream(range(20), range(50, 70))))
    assert len(many) == 11
    assert many[-1] == "warning: 10 more test samples are training samples too"
    assert describe_leaks([]) == []


def test_leaks_of_sentences() -> None:
    train, test = (
        tuple(TextReference(t, f"{part}.csv", i) for i, t in enumerate(texts, 2))
        for part, texts in (("train", ["a", "b"]), ("test", ["c", "a"]))
    )
    stream = build_stream([TaskDraft("t", "text", (("x", "d"),), (train,), (test,))])
    assert describe_leaks(leaks(stream)) == [
        "warning: test.csv:3 is a test sample and train.csv:2 a training sample of the "
        "same content"
    ]
