"""Sweeps: what is run, what is left, and what happens when a run fails."""

import io
import json
import pathlib
import signal
import subprocess
import sys
import time
from typing import Any

import pytest
from rich.console import Console

from mmcl_jax.config import resolve, to_json
from mmcl_jax.errors import ConfigError, DataError, WorkdirError
from mmcl_jax.methods.registry import METHODS
from mmcl_jax.streams.base import ORDERS
from mmcl_jax.sweeps import local, runs
from mmcl_jax.sweeps.runs import Sweep, SweepRun, grid
from mmcl_jax.workdir import layout
from mmcl_jax.workdir.lock import Lock
from tests import helpers
from tests.pages import EXAMPLE, make_run, reseal

WORLD = helpers.REPOSITORY / "configs" / "world.py"
FAILED = 1
PROGRAM = str(helpers.REPOSITORY / "launch" / "sweep.py")


def _grid(**changes: Any) -> tuple[SweepRun, ...]:
    arguments = {
        "variants": {
            "ridge": ("ridge", {}),
            "strong": ("ridge", {"method.ridge.regularization": 1.0}),
        },
        "streams": ["interleaved", "recurring"],
        "seeds": [0, 1],
        "argument": "smoke",
    }
    return grid(WORLD, **(arguments | changes))


# what is run


def test_a_grid_is_every_variant_on_every_stream_under_every_seed() -> None:
    made = _grid(values={"train.batch_size": 4})
    assert len({run.name for run in made}) == len(made) == 8
    assert made[0].name == "ridge/interleaved/0"
    for run in made:
        assert run.config.stream.order == run.stream
        assert run.config.seeds.order == run.config.seeds.data == run.seed
        assert (run.config.method.name, run.config.train.batch_size) == ("ridge", 4)
        strong = run.config.method.ridge.regularization == 1.0
        assert strong == (run.variant == "strong")
        assert resolve(json.loads(to_json(run.config))) == run.config


def test_values_are_checked() -> None:
    with pytest.raises(ConfigError, match="train.epochs: 0 is less than 1"):
        _grid(values={"train.epochs": 0})
    with pytest.raises(ConfigError, match="'epoch' is not one"):
        _grid(values={"train.epoch": 1})


def test_a_sweep_needs_runs_with_names_of_their_own() -> None:
    with pytest.raises(ConfigError, match="no runs"):
        runs.check(Sweep(()))
    made = _grid(seeds=[0, 0])
    with pytest.raises(ConfigError, match="two runs .* 'ridge/interleaved/0'"):
        runs.check(Sweep(made))


def test_files_without_a_sweep_are_named(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ConfigError, match="no Python file"):
        runs.load_function(tmp_path / "none.py", "get_sweep")
    (tmp_path / "empty.py").write_text("")
    with pytest.raises(ConfigError, match="no function 'get_sweep'"):
        runs.load_function(tmp_path / "empty.py", "get_sweep")


def test_the_benchmark_is_every_method_on_every_stream() -> None:
    get_sweep = runs.load_function(WORLD.parent / "sweeps" / "world.py", "get_sweep")
    made = get_sweep("methods=comm+ridge,seeds=0+4").runs
    assert {run.variant for run in made} == {"comm", "ridge"}
    assert {run.stream for run in made} == set(ORDERS)
    assert {run.seed for run in made} == {0, 4}
    assert len(made) == 2 * 2 * len(ORDERS)
    assert all(run.config.stream.tasks == 20 for run in made)
    every = get_sweep("streams=random")
    assert {run.variant for run in every.runs} == {*METHODS, "sequential_shared"}
    assert every.baseline in METHODS
    assert len(every.runs) == 3 * (len(METHODS) + 1)
    shared = [run for run in every.runs if run.variant == "sequential_shared"]
    assert {run.config.method.sharing for run in shared} == {"shared"}
    with pytest.raises(ConfigError, match="'method' is not one of"):
        get_sweep("method=comm")


# what is left


def test_what_has_ended_is_not_run_again(tmp_path: pathlib.Path) -> None:
    first, second, *_ = _grid()
    assert runs.prepare_workdir(first, tmp_path)
    assert runs.prepare_workdir(first, tmp_path)  # was begun, and resumes
    stored = json.loads((tmp_path / first.name / "config.json").read_text())
    assert resolve(stored) == first.config
    assert runs.finished([first, second], tmp_path) == []
    whole = make_run(tmp_path / "whole", EXAMPLE)
    for name in ("stream.json", "results.json", "predictions", "embeddings.npz"):
        (whole / name).rename(tmp_path / first.name / name)
    with pytest.raises(DataError, match="results.json: of the run"):
        runs.finished([first, second], tmp_path)
    reseal(tmp_path / first.name)
    assert not runs.prepare_workdir(first, tmp_path)
    ((ended, results),) = runs.finished([first, second], tmp_path)
    assert ended == first and results["method"] == "comm"


def test_a_folder_of_another_config_is_left_alone(tmp_path: pathlib.Path) -> None:
    run, other = _grid()[0], _grid(values={"train.epochs": 9})[0]
    runs.prepare_workdir(run, tmp_path)
    (tmp_path / run.name / "results.json").write_text("{}")
    with pytest.raises(ConfigError, match="made with another config"):
        runs.prepare_workdir(other, tmp_path)
    out = tmp_path.parent / "out"
    tmp_path.rename(tmp_path.parent / "kept")
    runs.prepare_workdir(run, out / "runs")
    failures = local.run(Sweep((other,)), out, 1, Console(quiet=True))
    assert list(failures) == [other.name]


# processes


def _program(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, code: str):
    """Makes runs execute `code` in place of `mmcl_jax.main`."""
    path = tmp_path / "program.sh"
    path.write_text(f"#!/bin/sh\nworkdir=${{3#--workdir=}}\n{code}\n")
    path.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(path))


def test_failures_do_not_stop_other_runs(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = """case $workdir in
      *strong*/0) echo first; echo bad >&2; exit 3;;
      *strong*/1) exit 0;;
      *) echo '{}' > $workdir/results.json;; esac"""
    _program(tmp_path, monkeypatch, code)
    console = Console(file=io.StringIO(), width=200)
    failures = local.run(Sweep(_grid()), tmp_path / "out", 2, console)
    assert failures == {
        "strong/interleaved/0": "bad",
        "strong/recurring/0": "bad",
        # the program says that it has ended well, and has left nothing
        "strong/interleaved/1": "exit code 0",
        "strong/recurring/1": "exit code 0",
    }
    output = console.file.getvalue()
    assert "8 runs, 8 of them to do" in output
    assert "strong/recurring/0: failed: bad" in output
    ended = [layout.is_finished(tmp_path / "out" / "runs" / r.name) for r in _grid()]
    assert sum(ended) == 4
    # the same once more does what is missing alone
    failures = local.run(Sweep(_grid()), tmp_path / "out", 2, console)
    assert "8 runs, 4 of them to do" in console.file.getvalue()
    assert len(failures) == 4


def test_as_many_runs_at_a_time_as_there_are_workers(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # the first of them wait for each other, however long a process takes to start
    code = """touch $workdir/on
      count() { ls OUT/runs/*/*/*/on | wc -l; }
      for _ in $(seq 600); do
        [ -e OUT/met ] || [ $(count) -ge WORKERS ] && break; sleep 0.05; done
      touch OUT/met; sleep 0.3; count > $workdir/count
      rm $workdir/on; echo '{}' > $workdir/results.json"""
    for workers in (1, 3):
        out = tmp_path / f"out{workers}"
        filled = code.replace("OUT", str(out)).replace("WORKERS", str(workers))
        _program(tmp_path, monkeypatch, filled)
        assert not local.run(Sweep(_grid()), out, workers, Console(quiet=True))
        counts = [int(path.read_text()) for path in out.rglob("count")]
        assert max(counts) == workers
    assert len(counts) == 8


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "give --out, and --config and --methods or else --sweep"),
        (["--sweep=none.py", "--out=x"], "no Python file 'none.py'"),
        (["--sweep=configs/demo.py", "--out=x"], "no function 'get_sweep'"),
    ],
)
def test_wrong_commands_are_named(
    flags: list[str], message: str, tmp_path: pathlib.Path
) -> None:
    done = helpers.start(PROGRAM, flags=tuple(flags), workdir=tmp_path).finish()
    assert done.code == 2
    assert message in done.errors
    assert len(done.errors.strip().splitlines()) == 1


SWEEP = """
from mmcl_jax.sweeps.runs import Sweep, grid

def get_sweep(argument):
    variants = {{"zero_shot": ("zero_shot", {{}}), "ridge": ("ridge", {{}})}}
    if argument == "broken":
        nowhere = {{"encoder.path": "/no/such/encoder"}}
        variants = {{"broken": ("ridge", nowhere)}} | variants
    values = {{
        "encoder.path": {encoder!r},
        "stream.tasks": 3,
        "stream.modalities": ("image", "text"),
        "stream.train_per_class": 4,
        "report": "off",
    }}
    runs = grid({world!r}, variants, ["random"], [0, 1], "smoke", values)
    return Sweep(runs, baseline="zero_shot")
"""


@pytest.mark.slow
def test_a_sweep_from_its_command_to_its_tables(
    encoder_folder: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    file, out = tmp_path / "mine.py", tmp_path / "out"
    file.write_text(SWEEP.format(encoder=str(encoder_folder), world=str(WORLD)))
    choice = tmp_path / "tuned.json"

    def start(argument: str) -> helpers.Finished:
        flags = (f"--sweep={file}:{argument}", f"--out={out}", f"--choose={choice}")
        more = (*flags, "--workers=2")
        return helpers.start(PROGRAM, flags=more, workdir=out).finish()

    done = start("broken")
    assert done.code == FAILED
    assert "6 runs, 6 of them to do" in done.output
    named = [line for line in done.errors.splitlines() if line.startswith("failed: ")]
    assert [line.split(": ")[1] for line in sorted(named)] == [
        "broken/random/0",
        "broken/random/1",
    ]
    assert all("/no/such/encoder: no such folder" in line for line in named)
    assert not choice.exists()
    report = json.loads((out / "summary.json").read_text())
    assert list(report["summaries"]["random"]) == ["zero_shot", "ridge"]
    for run in report["runs"]:
        excess = run["values"]["predicted/excess_forgetting"]
        assert (excess == 0) == (run["variant"] == "zero_shot")
    (out / "runs" / "ridge" / "random" / "1" / "results.json").unlink()
    done = start("whole")
    assert (done.code, done.errors) == (0, "")
    assert "4 runs, 1 of them to do" in done.output
    assert (
        json.loads((out / "summary.json").read_text())["summaries"]
        == (report["summaries"])
    )
    assert json.loads(choice.read_text())["chosen"] == {"zero_shot": {}, "ridge": {}}
    assert "| `ridge` | 2 |" in (out / "summary.md").read_text()


@pytest.mark.slow
def test_runs_end_with_the_sweep(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(SWEEP.format(encoder="builtin", world=str(WORLD)))
    flags = (f"--sweep={file}", f"--out={tmp_path / 'out'}")
    started = helpers.start(PROGRAM, flags=flags, workdir=tmp_path)
    output = tmp_path / "out" / "runs" / "zero_shot" / "random" / "0" / layout.OUTPUT
    while not output.exists():
        assert started.process.poll() is None
        time.sleep(0.05)
    started.process.send_signal(signal.SIGTERM)
    # it waits for the processes of its runs
    done = started.finish()
    assert done.code == 128 + signal.SIGTERM
    assert not (tmp_path / "out" / "summary.json").exists()


def test_values_may_be_what_a_config_file_leaves_out() -> None:
    folders = WORLD.parent / "folders.py"
    made = runs.make_config(folders, "method=ridge", {"stream.root": "data"})
    assert (made.stream.root, made.method.name) == ("data", "ridge")
    with pytest.raises(ConfigError, match=r"config\.stream\.root: missing"):
        runs.make_config(folders, "method=ridge")
    with pytest.raises(ConfigError, match="'epohcs'.*did you mean 'epochs'"):
        runs.make_config(WORLD, "", {"train.epohcs": 3})
    with pytest.raises(ConfigError, match="'trian'.*did you mean 'train'"):
        runs.make_config(WORLD, "", {"trian.epochs": 3})
    with pytest.raises(
        ConfigError, match=r"train\.epochs\.more: 'epochs' has no fields"
    ):
        runs.make_config(WORLD, "", {"train.epochs.more": 3})


def test_one_sweep_at_a_time_writes_into_a_folder(tmp_path: pathlib.Path) -> None:
    first = Lock(tmp_path, "--out")
    with pytest.raises(WorkdirError, match=f"--out: {tmp_path} is in use by process"):
        local.run(Sweep(_grid()), tmp_path, 1, Console(quiet=True))
    first.release()


_CHILD = """
import sys, time
from mmcl_jax.training.preemption import Interrupt
interrupt = Interrupt()
interrupt.catch()
interrupt.follow_parent()
interrupt.nothing_to_save = False
open(sys.argv[1] + "/started", "w").close()
while not interrupt.requested:
    time.sleep(0.05)
open(sys.argv[1] + "/saved", "w").close()
"""
_SWEEP = """
import os, subprocess, sys, time
variables = os.environ | {"MMCL_JAX_PARENT": str(os.getpid())}
subprocess.Popen([sys.executable, "-c", sys.argv[2], sys.argv[1]], env=variables)
time.sleep(600)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="a system call of Linux")
def test_runs_of_a_sweep_that_is_killed_save_and_leave(tmp_path: pathlib.Path) -> None:
    words = [sys.executable, "-c", _SWEEP, str(tmp_path), _CHILD]
    with subprocess.Popen(words, cwd=helpers.REPOSITORY) as parent:
        try:
            _wait_for(tmp_path / "started")
        finally:
            parent.kill()
    _wait_for(tmp_path / "saved")


def _wait_for(path: pathlib.Path) -> None:
    for _ in range(1200):
        if path.exists():
            return
        time.sleep(0.05)
    raise AssertionError(f"{path} did not appear")
