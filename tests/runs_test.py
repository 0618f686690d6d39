"""A run that is stopped, or cut over devices or processes, ends as a whole one."""

import pathlib
import re
import shutil

import pytest

from tests import helpers
from tests.contract import (
    assert_near,
    assert_same,
)

SHARDED = ("--config.mesh.encoder=sharded",)
NO_PAGE = "--config.report=off"  # none of it is compared


@pytest.mark.slow
def test_a_run_stopped_and_gone_on_with_ends_bitwise_alike(
    whole_run: helpers.Finished, tmp_path: pathlib.Path
) -> None:
    workdir = tmp_path / "halved"
    first = helpers.run(*whole_run.flags, "--stop_after=2", workdir=workdir)
    assert first.code == 0, first.errors
    assert "stopped after stage 2 of 3" in first.output
    assert not (workdir / "results.json").exists()
    # afresh, since nothing that a process draws for itself may matter
    second = helpers.run(workdir=workdir, fresh=True)
    assert second.code == 0, second.errors
    assert "resuming after stage 2 of 3" in second.output
    for stage in range(3):
        pair = [helpers.snapshot(r.workdir, stage) for r in (second, whole_run)]
        assert_same(*pair)
        assert_same(
            *[helpers.predictions(r.workdir, stage) for r in (second, whole_run)]
        )
    reports = [run.results() for run in (second, whole_run)]
    for report in reports:
        assert report["cost"].pop("seconds")
    assert [report.pop("restarts") for report in reports] == [1, 0]
    assert reports[0] == reports[1]
    lines = [(r.workdir / "metrics.jsonl").read_text() for r in (second, whole_run)]
    assert lines[0] == lines[1]


@pytest.mark.slow
@pytest.mark.full("devices")
def test_four_devices_report_what_one_reports(
    whole_run: helpers.Finished, tmp_path: pathlib.Path
) -> None:
    flags = (*whole_run.flags, NO_PAGE)
    cut = helpers.run(*flags, workdir=tmp_path / "cut", devices=4)
    assert_alike(cut, whole_run)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("processes", "mesh"),
    [
        pytest.param(2, SHARDED, marks=pytest.mark.full("devices")),
        pytest.param(2, (), marks=pytest.mark.full("interruption")),
        pytest.param(4, SHARDED, marks=pytest.mark.full("interruption")),
    ],
)
def test_processes_report_what_one_reports(
    whole_run: helpers.Finished,
    tmp_path: pathlib.Path,
    processes: int,
    mesh: tuple[str, ...],
) -> None:
    workdir, flags = tmp_path / "shared", (*whole_run.flags, *mesh, NO_PAGE)
    started = helpers.start_together(*flags, workdir=workdir, processes=processes)
    first, *others = [process.finish() for process in started]
    assert_alike(first, whole_run)
    for other in others:
        assert other.code == 0, other.errors
        # only one of them speaks and writes
        assert "accuracy" not in other.output + other.errors
    told, alone = (
        helpers.told(r.workdir.joinpath("log.txt").read_text())
        for r in (first, whole_run)
    )
    assert len(told) == len(alone)


@pytest.mark.full("devices")
def test_a_state_of_eight_devices_is_gone_on_with_by_fewer(
    whole_run: helpers.Finished, tmp_path: pathlib.Path
) -> None:
    begun = tmp_path / "begun"
    many = ("--config.mesh.model=2", *SHARDED)
    saving = (*whole_run.flags, "--config.checkpoint.every_steps=3", NO_PAGE)
    first = helpers.run(*saving, *many, "--stop_after=1", workdir=begun, devices=8)
    assert first.code == 0, first.errors

    shutil.copytree(begun, tmp_path / "inside")
    shutil.rmtree(tmp_path / "inside" / "snapshots" / "000")
    after_task = helpers.run(*saving, workdir=begun)
    assert "resuming after stage 1 of 3" in after_task.output
    assert_alike(after_task, whole_run)

    inside_task = helpers.run(
        *saving, "--config.mesh.model=2", workdir=tmp_path / "inside", devices=4
    )
    assert re.search(r"after stage 0 of 3, \d+ moves", inside_task.output)
    assert_alike(inside_task, whole_run)


def assert_alike(left: helpers.Finished, right: helpers.Finished) -> None:
    """Two runs end with the same numbers, but for rounding."""
    for run in (left, right):
        assert run.code == 0, run.errors
    stored, wanted = (helpers.snapshot(run.workdir, 2) for run in (left, right))
    assert stored.keys() == wanted.keys()
    for name, leaf in wanted.items():
        if "params" in name:
            assert_near(stored[name], leaf, 1e-5)
        else:
            assert_near(stored[name], leaf, 1e-4, least=1.0)
    reports = [run.results() for run in (left, right)]
    for part in ("accuracy", "metrics", "modality_identification", "tasks"):
        assert reports[0][part] == reports[1][part]
