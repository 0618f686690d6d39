"""Runs on a real SLURM cluster of one node: tasks, preemption, arrays."""

import json
import pathlib
import time
from collections.abc import Iterator

import pytest

from tests import helpers, slurm
from tests.chaos import harness

TASKS = 5

pytestmark = [
    pytest.mark.full("slurm"),
    pytest.mark.slow,
    pytest.mark.xdist_group("slurm"),
    pytest.mark.skipif(
        bool(slurm.missing()),
        reason=f"needs slurm-wlm and munge; not here: {', '.join(slurm.missing())}",
    ),
]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[slurm.Cluster]:
    with slurm.cluster(tmp_path_factory.mktemp("slurm")) as made:
        yield made


@pytest.fixture(scope="module")
def alone(
    encoder_folder: pathlib.Path, tmp_path_factory: pytest.TempPathFactory
) -> pathlib.Path:
    """Workdir of a run of two processes that nothing has disturbed, without SLURM."""
    workdir = tmp_path_factory.mktemp("undisturbed") / "run"
    flags = harness.flags(encoder_folder, every=3, tasks=TASKS)
    pair = helpers.start_together(*flags, workdir=workdir)
    assert [each.finish().code for each in pair] == [0, 0]
    return workdir


def _soon() -> float:
    """Returns when to give up waiting for a job to start and get on."""
    return time.monotonic() + 120


def _go_on(workdir: pathlib.Path, more: int, made: slurm.Cluster) -> None:
    """Waits until a run has made a checkpoint so many moves from where it stands."""
    before, end = harness.moves_of(workdir), _soon()
    while harness.moves_of(workdir) < before + more:
        assert time.monotonic() < end, made.logs()
        time.sleep(0.02)


def test_two_tasks_are_preempted_thrice_and_end_as_if_they_were_not(
    cluster: slurm.Cluster,
    encoder_folder: pathlib.Path,
    alone: pathlib.Path,
    tmp_path: pathlib.Path,
) -> None:
    workdir = tmp_path / "run"
    flags = harness.flags(encoder_folder, every=3, tasks=TASKS)
    job = cluster.submit(
        "--ntasks=2", "launch/slurm.sbatch", *flags, f"--workdir={workdir}"
    )
    # as at the end of its time, when the script alone is told
    _go_on(workdir, 3, cluster)
    cluster.command("scancel", "--signal=TERM", "--batch", job)
    cluster.hasten(job)
    # by a person
    _go_on(workdir, 3, cluster)
    cluster.command("scontrol", "requeue", job)
    cluster.hasten(job)
    # by a job that may
    _go_on(workdir, 3, cluster)
    urgent = cluster.submit("--partition=urgent", "--ntasks=4", "--wrap=true")
    cluster.hasten(job)
    cluster.wait(urgent, "COMPLETED")
    done = cluster.wait(job, "COMPLETED", "FAILED")
    said = (cluster.folder / f"job-{job}.txt").read_text()
    assert (done["JobState"], done["Restarts"]) == ("COMPLETED", "3"), said
    # every time by itself, before it would have been killed
    assert said.count("preempted: saved") == 3 * 2
    assert json.loads((workdir / "results.json").read_text())["restarts"] == 3
    assert harness.differences(alone, workdir, TASKS) == []


SWEEP = """
from mmcl_jax.sweeps.runs import Sweep, grid

def get_sweep(argument):
    values = {{
        "encoder.path": {encoder!r},
        "stream.tasks": 2,
        "stream.modalities": ("image", "text"),
        "stream.train_per_class": 4,
    }}
    variants = {{"ridge": ("ridge", {{}}), "zero_shot": ("zero_shot", {{}})}}
    runs = grid({world!r}, variants, ["random"], [0], "smoke", values)
    return Sweep(runs, baseline="zero_shot")
"""


def test_a_sweep_is_an_array_whose_jobs_are_requeued_one_by_one(
    cluster: slurm.Cluster, encoder_folder: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    file, out = tmp_path / "mine.py", tmp_path / "out"
    world = str(helpers.REPOSITORY / "configs" / "world.py")
    file.write_text(SWEEP.format(encoder=str(encoder_folder), world=world))
    program = (str(cluster.root / ".venv/bin/python"), "launch/sweep.py")
    sweep = (*program, f"--sweep={file}", f"--out={out}")
    said = cluster.command(*sweep, "--engine=slurm", "--partition=main", "--submit")
    array = said.split("Submitted batch job ")[1].split()[0]
    # the last job of an array has the array's own number
    lock, end = out / "runs" / "zero_shot" / "random" / "0" / "lock", _soon()
    while not lock.exists():
        assert time.monotonic() < end, cluster.logs()
        time.sleep(0.02)
    cluster.command("scancel", "--signal=TERM", "--batch", f"{array}_1")
    cluster.hasten(f"{array}_1")
    ended = [cluster.wait(f"{array}_{i}", "COMPLETED", "FAILED") for i in range(2)]
    assert [job["JobState"] for job in ended] == ["COMPLETED"] * 2, cluster.logs()
    assert [job["Restarts"] for job in ended] == ["0", "1"]
    said = cluster.command(*sweep, "--gather")
    assert "2 runs, 2 of them finished" in said
    summary = json.loads((out / "summary.json").read_text())
    assert set(summary["summaries"]["random"]) == {"ridge", "zero_shot"}


def test_a_job_without_an_environment_says_so(
    cluster: slurm.Cluster, tmp_path: pathlib.Path
) -> None:
    job = cluster.submit(
        f"--export=ALL,MMCL_JAX_ROOT={tmp_path}", "launch/slurm.sbatch"
    )
    assert cluster.wait(job, "FAILED")["ExitCode"] == "2:0"
    said = (cluster.folder / f"job-{job}.txt").read_text()
    assert f"error: no {tmp_path}/.venv/bin/python" in said
