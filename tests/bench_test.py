"""Each bench runs at a tiny size and writes what it prints; no figure is looked at."""

import importlib.util
import json
import pathlib
import subprocess
import sys

import pytest

from tests import helpers

NEED_TORCH = ("towers", "methods")
has_torch = importlib.util.find_spec("torch") is not None


@pytest.mark.full("benches")
@pytest.mark.parametrize("name", ["gpu", *NEED_TORCH])
def test_a_bench_runs(name: str, tmp_path: pathlib.Path):
    if name in NEED_TORCH and not has_torch:
        pytest.skip("PyTorch, which it compares with, is not installed")
    out = tmp_path / "out.json"
    done = subprocess.run(
        [sys.executable, "-m", f"tests.bench.{name}", "--size=tiny", f"--out={out}"],
        cwd=helpers.REPOSITORY,
        env=helpers.environment(1),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    written = json.loads(out.read_text())
    assert written["tables"] and all(written["tables"].values())
    for title, table in written["tables"].items():
        assert title in done.stdout
        for row in table:
            assert "| " + " | ".join(map(str, row.values())) in done.stdout
