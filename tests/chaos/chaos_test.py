"""What is left of a run that was ended, starved of disk, or damaged while it lay."""

import json
import pathlib
import shutil
import signal

import pytest

from tests.chaos import harness

pytestmark = [
    pytest.mark.slow,
    pytest.mark.full("interruption"),
    pytest.mark.xdist_group("chaos"),
]


@pytest.fixture(scope="module")
def alone(
    encoder_folder: pathlib.Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[pathlib.Path, int]:
    """A run that nothing disturbed, and its moves."""
    workdir = tmp_path_factory.mktemp("alone") / "run"
    return workdir, harness.undisturbed(encoder_folder, workdir)


def _survives(
    run: harness.Run, number: signal.Signals, moments, alone: pathlib.Path
) -> list[int | None]:
    codes = [run.disturb(number, moment) for moment in moments]
    assert run.finish() == 0, run.output.read_text()
    assert harness.differences(alone, run.workdir) == []
    return codes


def test_a_run_that_is_killed_again_and_again_ends_as_if_left_alone(
    alone, encoder_folder: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    workdir, moves = alone
    run = harness.Run(encoder_folder, tmp_path / "run")
    moments = harness.moments(moves, 8, seed=0)
    codes = _survives(run, signal.SIGKILL, moments, workdir)
    assert codes == [-signal.SIGKILL] * 8


def test_a_run_that_is_asked_to_leave_says_run_me_again(
    alone, encoder_folder: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    workdir, moves = alone
    run = harness.Run(encoder_folder, tmp_path / "run")
    moments = [harness.Moment(moves // 3, 0.1), harness.Moment(moves // 3, 0.2)]
    codes = _survives(run, signal.SIGTERM, moments, workdir)
    assert codes == [harness.RUN_AGAIN] * 2
    assert json.loads((run.workdir / "results.json").read_text())["restarts"] == 2
    assert "preempted: saved" in run.output.read_text()


def test_a_full_disk_ends_the_run_and_room_lets_it_go_on(
    alone, encoder_folder: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    workdir, _ = alone
    run = harness.Run(encoder_folder, tmp_path / "run")
    run.disturb(signal.SIGTERM, harness.Moment(10, 0))
    # of a state: a report or a log that cannot be written ends no run
    files = [p for p in (workdir / "snapshots").rglob("*") if p.is_file()]
    largest = max(path.stat().st_size for path in files)
    assert run.starve(largest // 2048) == 1
    assert "error: " in run.output.read_text()
    assert "the same command resumes" in run.output.read_text()
    assert "Traceback" not in run.output.read_text()
    assert run.finish() == 0, run.output.read_text()
    assert harness.differences(workdir, run.workdir) == []


def test_a_damaged_state_is_set_aside_and_the_one_before_it_used(
    alone, encoder_folder: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    workdir, _ = alone
    run = harness.Run(encoder_folder, tmp_path / "run")
    _copy(workdir, run.workdir, "results.json", "checkpoints")
    last, before = f"{harness.TASKS - 1:03d}", f"{harness.TASKS - 2:03d}"
    flipped = harness.flip_bits(run.workdir / "snapshots" / last, seed=1)
    (run.workdir / "snapshots" / before / "commit_success.txt").write_text("")
    cut = run.workdir / "snapshots" / before / "checksums.json"
    cut.write_text(cut.read_text()[:20])
    assert run.finish() == 0, run.output.read_text()
    assert harness.differences(workdir, run.workdir) == []
    output = run.output.read_text()
    assert flipped.name in output and "is not what was written" in output
    assert f"{harness.TASKS - 2} of {harness.TASKS}" in output
    aside = sorted(path.name for path in (run.workdir / "damaged").iterdir())
    assert aside == [f"snapshots-{before}", f"snapshots-{last}"]


def test_a_run_killed_in_its_first_checkpoint_starts_anew(
    alone, encoder_folder: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    workdir, _ = alone
    run = harness.Run(encoder_folder, tmp_path / "run")
    _copy(workdir, run.workdir, "results.json", "snapshots")
    first, *others = sorted((run.workdir / "checkpoints").iterdir())
    for other in others:
        shutil.rmtree(other)
    (first / "checksums.json").unlink()
    assert run.finish() == 0, run.output.read_text()
    assert harness.differences(workdir, run.workdir) == []
    assert "cut off while it was written" in run.output.read_text()


def test_where_all_states_are_damaged_nothing_is_touched(
    alone, encoder_folder: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    workdir, _ = alone
    run = harness.Run(encoder_folder, tmp_path / "run")
    _copy(workdir, run.workdir)
    for name in ("checkpoints", "snapshots"):
        for state in (run.workdir / name).iterdir():
            (state / "checksums.json").unlink()
    before = _files(run.workdir)
    assert run.finish() == 2
    assert "no state in" in run.output.read_text()
    assert _files(run.workdir) == before


def _copy(workdir: pathlib.Path, target: pathlib.Path, *without: str) -> None:
    shutil.copytree(workdir, target, ignore=shutil.ignore_patterns(*without))


def _files(folder: pathlib.Path) -> dict[str, bytes]:
    """Returns the states of a workdir."""
    names = ("checkpoints", "snapshots", "predictions", "results.json", "metrics.jsonl")
    return {
        str(path): path.read_bytes()
        for name in names
        for path in [folder / name, *(folder / name).rglob("*")]
        if path.is_file()
    }
