"""Batches: shapes, padding, order, shards, threads, processes, errors, the memo."""

import dataclasses
import itertools
import os
import pathlib
import pickle
import signal
import subprocess
import sys
import time
from typing import Any

import numpy as np
import pytest

from mmcl_jax.errors import DataError
from mmcl_jax.modalities.base import FileReference, InputSpec, Modality, TokenizerSpec
from mmcl_jax.streams.base import Record
from mmcl_jax.streams.loader import Decoder, epoch, num_batches
from mmcl_jax.types import Batch
from tests import helpers

_ROOM = 2**20


@dataclasses.dataclass(frozen=True)
class Grey:
    """A picture of one grey level; none above 99."""

    level: int

    def load(self, modality: Modality, spec: InputSpec) -> np.ndarray:
        del modality, spec
        if self.level > 99:
            raise DataError(f"grey/{self.level}.png: too bright")
        return np.full((8, 8, 3), self.level, np.uint8)

    def describe(self) -> str:
        return f"grey/{self.level}.png"

    def identity(self) -> str:
        return str(self.level)


class Counting(Decoder):
    """A decoder that knows how often it was called for which record."""

    def __call__(self, record: Record, modality: str) -> dict[str, np.ndarray]:
        self.__dict__.setdefault("calls", []).append(record.id)
        return super().__call__(record, modality)


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> InputSpec:
    return helpers.make_spec(tmp_path_factory.mktemp("spec"), image_size=8)


def _records(levels: range) -> list[Record]:
    return [Record(Grey(i), i % 3, 100 + i) for i in levels]


def _epoch(spec: InputSpec, count: int = 10, **changes: Any) -> list[Batch]:
    options: dict[str, Any] = {"batch_size": 4, "seed": 7} | changes
    decoder = options.pop("decoder", Decoder(spec, _ROOM))
    size = options.pop("batch_size")
    return list(epoch(_records(range(count)), "image", decoder, size, **options))


def _equal(left: list[Batch], right: list[Batch]) -> None:
    assert len(left) == len(right)
    for a, b in zip(left, right, strict=True):
        assert a.modality == b.modality
        for name in ("query", "label", "weight", "id", "hint"):
            x, y = getattr(a, name), getattr(b, name)
            assert x.dtype == y.dtype
            np.testing.assert_array_equal(x, y)
        np.testing.assert_array_equal(a.inputs["pixels"], b.inputs["pixels"])


def test_shapes_and_padding(spec: InputSpec) -> None:
    batches = _epoch(spec)
    assert len(batches) == num_batches(10, 4) == 3
    for batch in batches:
        assert batch.modality == "image"
        assert batch.inputs["pixels"].shape == (4, 1, 8, 8, 3)
        assert batch.inputs["pixels"].dtype == batch.weight.dtype == np.float32
        assert batch.label.dtype == batch.id.dtype == batch.hint.dtype == np.int32
        assert batch.query.shape == (4, 0)
        assert (batch.hint == -1).all()
    last = batches[-1]
    np.testing.assert_array_equal(last.weight, [1, 1, 0, 0])
    np.testing.assert_array_equal(last.id[2:], -1)
    np.testing.assert_array_equal(last.label[2:], 0)
    assert not last.inputs["pixels"][2:].any()
    ids = np.concatenate([batch.id for batch in batches])
    assert sorted(ids[:10]) == list(range(100, 110))


def test_rows_belong_together(spec: InputSpec) -> None:
    for batch in _epoch(spec, hint=2):
        level = batch.inputs["pixels"][:, 0, 0, 0, 0] * 0.25 + 0.5
        real = batch.weight > 0
        np.testing.assert_allclose(level[real] * 255, batch.id[real] - 100, atol=1e-3)
        np.testing.assert_array_equal(batch.label[real], (batch.id[real] - 100) % 3)
        assert (batch.hint == 2).all()


def test_order(spec: InputSpec) -> None:
    def ids(**changes: Any) -> list[int]:
        return np.concatenate([b.id for b in _epoch(spec, **changes)]).tolist()

    assert ids(seed=None)[:10] == list(range(100, 110))
    assert ids(seed=1) == ids(seed=1)
    orders = {tuple(ids(seed=(0, task, n))) for task in range(2) for n in range(2)}
    assert len(orders) == 4


@pytest.mark.parametrize("threads", [0, 1, 4])
def test_threads_change_nothing(threads: int, spec: InputSpec) -> None:
    _equal(_epoch(spec, threads=threads), _epoch(spec))
    _equal(_epoch(spec, threads=threads, decoder=Decoder(spec, 0)), _epoch(spec))


def test_processes_change_nothing(spec: InputSpec) -> None:
    queries = {100 + i: np.full(2, i, np.float32) for i in range(14)}
    changes = {"count": 14, "queries": queries, "hint": 1, "start_step": 1}
    _equal(_epoch(spec, worker_processes=2, **changes), _epoch(spec, **changes))


@pytest.mark.parametrize("count", [2, 4])
@pytest.mark.parametrize("samples", [1, 8, 9])
def test_shards_make_up_the_batch(count: int, samples: int, spec: InputSpec) -> None:
    whole = _epoch(spec, samples)
    parts = [_epoch(spec, samples, shard=(i, count)) for i in range(count)]
    for step, batch in enumerate(whole):
        for name in ("label", "weight", "id"):
            joined = np.concatenate([getattr(part[step], name) for part in parts])
            np.testing.assert_array_equal(joined, getattr(batch, name))
        pixels = [part[step].inputs["pixels"] for part in parts]
        np.testing.assert_array_equal(np.concatenate(pixels), batch.inputs["pixels"])


def test_start_step_skips_without_decoding(spec: InputSpec) -> None:
    decoder = Counting(spec, _ROOM)
    rest = _epoch(spec, start_step=2, decoder=decoder)
    _equal(rest, _epoch(spec)[2:])
    assert len(decoder.calls) == 2
    assert _epoch(spec, start_step=3) == []


def test_no_records(spec: InputSpec) -> None:
    assert _epoch(spec, count=0) == []


@pytest.mark.parametrize("array", [True, False])
def test_queries(array: bool, spec: InputSpec) -> None:
    table = np.arange(220, dtype=np.float32).reshape(110, 2)
    queries = table if array else {i: table[i] for i in range(100, 110)}
    for batch in _epoch(spec, queries=queries):
        real = batch.weight > 0
        np.testing.assert_array_equal(batch.query[real], table[batch.id[real]])
        assert not batch.query[~real].any()
        assert batch.query.dtype == np.float32
    with pytest.raises(ValueError, match=r"no query .* \[110\]"):
        _epoch(spec, 11, queries=queries, batch_size=1, seed=None)


@pytest.mark.parametrize(
    ("batch_size", "shard"), [(0, (0, 1)), (4, (0, 3)), (4, (2, 2)), (4, (-1, 2))]
)
def test_bad_shards(batch_size: int, shard: tuple[int, int], spec: InputSpec) -> None:
    with pytest.raises(ValueError, match="expected a positive batch size"):
        _epoch(spec, batch_size=batch_size, shard=shard)


@pytest.mark.parametrize("threads", [0, 2])
def test_errors_surface(threads: int, spec: InputSpec) -> None:
    with pytest.raises(DataError, match="grey/100.png: too bright"):
        _epoch(spec, 101, threads=threads)


@pytest.mark.full("workers")
def test_errors_of_processes_surface(spec: InputSpec) -> None:
    with pytest.raises(DataError, match="grey/100.png: too bright"):
        _epoch(spec, 101, worker_processes=1)


def test_stopping_early_ends_the_threads(spec: InputSpec) -> None:
    decoder = Counting(spec, 0)
    batches = epoch(_records(range(90)), "image", decoder, 1, seed=None, threads=2)
    next(batches)
    batches.close()
    assert len(decoder.calls) < 20


def test_memo(spec: InputSpec) -> None:
    decoder = Decoder(spec, _ROOM)
    first, *_ = records = _records(range(3))
    inputs = decoder(first, "image")
    assert decoder(first, "image") is inputs
    copy = pickle.loads(pickle.dumps(decoder))
    assert copy.spec == spec
    again = copy(first, "image")
    assert again is not inputs
    np.testing.assert_array_equal(again["pixels"], inputs["pixels"])
    size = inputs["pixels"].nbytes
    small = Decoder(spec, 2 * size)
    kept = [small(record, "image") for record in records]
    assert small(records[1], "image") is kept[1]
    assert small(records[2], "image") is not kept[2]
    nothing = Decoder(spec, size - 1)
    assert nothing(first, "image") is not nothing(first, "image")


def test_memo_does_not_take_another_sample_for_its_own(spec: InputSpec) -> None:
    decoder = Decoder(spec, _ROOM)
    one, two = Record(Grey(1), 0, 5), Record(Grey(2), 0, 5)
    assert decoder(one, "image")["pixels"][0, 0, 0, 0] < 0
    expected = Decoder(spec, 0)(two, "image")["pixels"]
    np.testing.assert_array_equal(decoder(two, "image")["pixels"], expected)


def test_memo_stays_in_its_room_and_renews(spec: InputSpec) -> None:
    size = Decoder(spec, 0)(_records(range(1))[0], "image")["pixels"].nbytes
    decoder = Decoder(spec, 5 * size)
    for record in _records(range(100)) * 3:
        decoder(record, "image")
        kept = [inputs["pixels"].nbytes for _, inputs in decoder._memo.values()]
        assert sum(kept) <= 5 * size
    assert set(decoder._memo) != {100, 101, 102, 103, 104}


def test_unnamed_errors_are_named(spec: InputSpec, tmp_path: pathlib.Path) -> None:
    path = helpers.write(tmp_path, "text")
    absent = TokenizerSpec(str(tmp_path / "absent.json"))
    spec = dataclasses.replace(spec, tokenizer=absent)
    with pytest.raises(DataError, match="^somewhere: .*absent.json: no such file"):
        Decoder(spec, 0)(Record(FileReference(path, "somewhere"), 0, 0), "text")


_WITH_WORKER = """
import multiprocessing, pathlib, sys, time
from tests import helpers, loader_test as t
from mmcl_jax.streams.loader import Decoder, epoch
spec = helpers.make_spec(pathlib.Path(sys.argv[1]), image_size=8)
records = t._records(range(90))
batches = epoch(records, "image", Decoder(spec, 0), 1, seed=None, worker_processes=1)
next(batches)
print(*(child.pid for child in multiprocessing.active_children()), flush=True)
sys.stdin.readline()
print(1 + len(list(batches)), flush=True)
time.sleep(60)
"""


def _with_worker(folder: pathlib.Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", _WITH_WORKER, str(folder)],
        cwd=helpers.REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.full("workers")
def test_workers_finish_what_a_signal_should_end(tmp_path: pathlib.Path) -> None:
    with _with_worker(tmp_path) as process:
        assert process.stdin and process.stdout
        workers = [int(pid) for pid in process.stdout.readline().split()]
        assert workers
        # as a terminal and a scheduler signal all processes of a run
        for pid, number in itertools.product(workers, (signal.SIGTERM, signal.SIGINT)):
            os.kill(pid, number)
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "90\n"
        process.kill()


@pytest.mark.full("workers")
def test_workers_of_a_killed_run_end(tmp_path: pathlib.Path) -> None:
    with _with_worker(tmp_path) as process:
        assert process.stdout
        workers = [int(pid) for pid in process.stdout.readline().split()]
        process.kill()
    deadline = time.monotonic() + 120
    while any(map(_lives, workers)):
        assert time.monotonic() < deadline, "a worker has outlived its run"
        time.sleep(0.1)


def _lives(pid: int) -> bool:
    try:
        state = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return False
    return state[0] != "Z"
