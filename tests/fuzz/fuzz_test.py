"""A short fuzzing with a fixed seed; `python -m tests.fuzz` is the long one."""

import pytest

from tests.fuzz import DECODERS, Work
from tests.fuzz.__main__ import fuzz
from tests.fuzz.targets import TARGETS

# of each decoder; the long fuzzing takes thousands
CASES = 200


def test_every_target_can_be_named() -> None:
    assert tuple(TARGETS) == DECODERS


@pytest.mark.full("files")
@pytest.mark.parametrize("decoder", DECODERS)
def test_damage_is_refused_with_the_name_of_the_file(decoder: str) -> None:
    report = fuzz(Work(decoder, 0, 0, CASES, memory_mib=2048, seconds=60.0))
    assert report.failures == []
    assert report.counts["rejected"] > 0
    assert report.counts.total() == CASES
