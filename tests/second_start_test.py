"""The second start of a run compiles nothing and embeds nothing."""

import json
import pathlib

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
