"""A run of two processes, of which one is asked to leave, and its state damaged."""

import pathlib
import time

import pytest

from tests import helpers
from tests.chaos import harness

TASKS = 2


@pytest.mark.full("interruption")
@pytest.mark.slow
@pytest.mark.xdist_group("chaos")
def test_two_processes_leave_and_go_on_together(
    encoder_folder: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    flags = harness.flags(encoder_folder, every=3, tasks=TASKS)
    alone, workdir = tmp_path / "alone", tmp_path / "run"
    pair = helpers.start_together(*flags, workdir=alone)
    assert [each.finish().code for each in pair] == [0, 0]

    pair = helpers.start_together(*flags, workdir=workdir)
    while harness.moves_of(workdir) < 16 and pair[0].process.poll() is None:
        time.sleep(0.02)
    pair[1].process.terminate()  # they agree, whichever is asked
    assert [each.finish().code for each in pair] == [harness.RUN_AGAIN] * 2
    newest = workdir / "checkpoints" / f"{harness.moves_of(workdir):09d}"
    harness.flip_bits(newest, seed=0)

    first, second = (
        each.finish() for each in helpers.start_together(*flags, workdir=workdir)
    )
    assert (first.code, second.code) == (0, 0), first.errors + second.errors
    assert f"{newest.name} is damaged" in " ".join(first.output.split())
    assert (workdir / "damaged" / f"checkpoints-{newest.name}").is_dir()
    assert harness.differences(alone, workdir, TASKS) == []
