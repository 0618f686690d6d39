"""The second start compiles nothing and embeds nothing, unless it finds damage."""

import json
import os
import pathlib
import random
import zlib
from collections.abc import Callable

import pytest

from tests import helpers

_COUNTING = """
import atexit, collections, json, sys
import jax.monitoring
counts = collections.Counter()
jax.monitoring.register_event_listener(lambda name, **_: counts.update([name]))
atexit.register(lambda: open({path!r}, "w").write(json.dumps(counts)))
from mmcl_jax import main
main.cli()
"""
_EVENT = "/jax/compilation_cache/"


@pytest.mark.full("devices")
def test_a_second_start_finds_every_program(
    encoder_folder: pathlib.Path,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setenv("MMCL_JAX_TEST_PROGRAMS", str(tmp_path / "programs"))
    flags = (
        "--config=configs/demo.py:smoke",
        f"--config.encoder.path={encoder_folder}",
        "--config.stream.tasks=1",
        "--config.stream.modalities=('image',)",
        "--config.report=off",
    )
    counts = []
    for name in ("first", "second"):
        path = tmp_path / f"{name}.json"
        code = _COUNTING.format(path=str(path))
        workdir = tmp_path / name
        started = helpers.start(
            "-c", code, f"--workdir={workdir}", flags=flags, workdir=workdir, fresh=True
        )
        done = started.finish()
        assert done.code == 0, done.errors
        counts.append(json.loads(path.read_text()))
    first, second = counts
    assert first[f"{_EVENT}cache_misses"] > 5
    assert f"{_EVENT}cache_misses" not in second
    asked = second[f"{_EVENT}compile_requests_use_cache"]
    assert second[f"{_EVENT}cache_hits"] == asked


# programs that are damaged

_PROGRAM = """
import sys
sys.path.insert(0, {modules!r})
import jax, jax.numpy as jnp
from mmcl_jax.parallel import compilation_cache
compilation_cache.keep_compiled_programs()
x = jnp.linspace(0.0, 1.0, 1000).reshape(10, 100)
print(jax.jit(lambda x: jnp.tanh(x @ x.T).sum(0))(x).tolist())
"""
# which notices nothing
_ZSTANDARD = """
class ZstdCompressor:
    def compress(self, data):
        return data
class ZstdDecompressor:
    def decompress(self, data):
        return data
"""


def _flip(data: bytes) -> bytes:
    place, bit = random.Random(0).randrange(len(data)), random.Random(1).randrange(8)
    return data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :]


def _cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


@pytest.mark.parametrize(
    ("damage", "old"),
    [
        (_flip, False),
        (_cut, True),
        pytest.param(_flip, True, marks=pytest.mark.full("devices")),
        pytest.param(_cut, False, marks=pytest.mark.full("devices")),
    ],
)
def test_a_damaged_program_is_compiled_again(
    damage: Callable[[bytes], bytes],
    old: bool,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
):
    programs = tmp_path / "programs"
    monkeypatch.setenv("MMCL_JAX_TEST_PROGRAMS", str(programs))
    (tmp_path / "zstandard.py").write_text(_ZSTANDARD)
    code = _PROGRAM.format(modules=str(tmp_path))

    def run() -> helpers.Finished:
        started = helpers.start("-c", code, flags=(), workdir=tmp_path, fresh=True)
        done = started.finish()
        assert done.code == 0, done.errors
        return done

    first = run()
    for path in programs.glob("*-cache"):
        path.write_bytes(damage(path.read_bytes()))
        if old:
            os.utime(path, (0, 0))
    second = run()
    assert second.output == first.output
    warned = "Error reading persistent compilation cache entry" in second.errors
    assert warned is old
    # a new one may be half of what a killed process wrote: it is made again
    if not old:
        assert all(zlib.decompress(p.read_bytes()) for p in programs.glob("*-cache"))
