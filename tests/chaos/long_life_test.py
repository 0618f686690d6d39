"""A short life: nothing that is held grows; time is for the long one to watch."""

import pathlib

import pytest

from tests.chaos import long_life


@pytest.mark.full("interruption")
@pytest.mark.slow
@pytest.mark.xdist_group("chaos")
def test_nothing_that_is_held_grows(
    encoder_folder: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    held = long_life.watch(encoder_folder, tmp_path / "run", tasks=20)
    grown = long_life.growth(held)
    assert grown["memory"] < long_life.MEMORY
    assert max(grown["files"], grown["threads"]) < long_life.THREADS
