"""A clock that is set back, between the stages of a run and between its starts."""

import pathlib
import re

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests import helpers
from tests.chaos import harness

TASKS = 2
# every look at the clock finds it a minute earlier, as no library has seen it before
_BACK = """
import time
started, looks = time.time(), [0]
def back():
    looks[0] += 1
    return started - {before} - 60.0 * looks[0]
time.time, time.time_ns = back, lambda: int(back() * 1e9)
from mmcl_jax import main
main.cli()
"""


def _run(
    workdir: pathlib.Path, flags: tuple[str, ...], *more: str, before: float | None
) -> helpers.Finished:
    words = ["-m", "mmcl_jax.main"]
    if before is not None:
        words = ["-c", _BACK.format(before=before)]
    # fresh, since libraries take the clock when they are imported
    started = helpers.start(
        *words,
        f"--workdir={workdir}",
        *more,
        flags=flags,
        workdir=workdir,
        fresh=before is not None,
    )
    done = started.finish()
    assert done.code == 0, done.errors
    return done


@pytest.mark.full("interruption")
@pytest.mark.slow
def test_a_clock_that_is_set_back_changes_nothing(
    encoder_folder: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    flags = harness.flags(encoder_folder, every=7, tasks=TASKS)
    flags += ("--config.train.epochs=1", "--config.stream.train_per_class=4")
    alone, back = tmp_path / "alone", tmp_path / "back"
    _run(alone, flags, before=None)
    _run(back, flags, "--stop_after=1", before=0.0)
    done = _run(back, flags, before=1e8)
    assert harness.differences(alone, back, TASKS) == []

    log = (back / "log.txt").read_text()
    stamps = [line[:23] for line in log.splitlines() if line[:2] in ("19", "20")]
    assert stamps and stamps == sorted(stamps, reverse=True)
    # what takes time is not measured by it
    assert all(s >= 0 for s in helpers.results(back)["cost"]["seconds"].values())
    said = done.output + done.errors + log
    assert "Traceback" not in said and "warning" not in said.lower()
    assert "-1 day" not in said
    events = [EventAccumulator(str(w / "tensorboard")).Reload() for w in (alone, back)]
    left, right = (
        {
            tag: [(e.step, e.value) for e in read.Scalars(tag)]
            for tag in read.Tags()["scalars"]
        }
        for read in events
    )
    assert left == right != {}
    pages = [(workdir / "report.html").read_text() for workdir in (alone, back)]
    assert pages[1].count("<svg") == pages[0].count("<svg") > 0


def test_durations_are_measured_by_a_clock_that_cannot_be_set() -> None:
    package = helpers.REPOSITORY / "mmcl_jax"
    using = {
        str(path.relative_to(package))
        for path in package.rglob("*.py")
        if re.search(r"\btime\.time(_ns)?\b", path.read_text(encoding="utf-8"))
    }
    # which says when an event was, and orders its files by their names
    assert using == {"workdir/tensorboard.py"}
