"""Transfer across modalities: streams with and without another one, and its worth."""

import json
import pathlib
from typing import Any

import pytest

from mmcl_jax.config import Config, MethodOptions
from mmcl_jax.errors import ConfigError
from mmcl_jax.streams import pinned
from mmcl_jax.streams.transfer import REAL as STREAMS
from mmcl_jax.sweeps import transfer
from mmcl_jax.sweeps.aggregate import ALL_STREAMS
from mmcl_jax.sweeps.runs import SweepRun, make_config
from tests import helpers

REAL = helpers.REPOSITORY / "configs" / "real.py"
CLASSES = pinned.mmcl_real().tasks["benchmark"].classes


def _names(tasks: tuple[str, ...]) -> set[str]:
    return {name for task in tasks for name in CLASSES[task]}


def _data_sets(tasks: tuple[str, ...]) -> list[str]:
    return [task.rpartition("/")[0] for task in tasks]


@pytest.mark.parametrize(
    ("alone", "shared", "other"),
    [
        ("sounds_alone", "sounds_after_pictures", "sounds_after_other_pictures"),
        ("pictures_alone", "pictures_after_sounds", "pictures_after_other_sounds"),
    ],
)
def test_the_earlier_modality_alone_differs(
    alone: str, shared: str, other: str
) -> None:
    streams = [STREAMS[name] for name in (alone, shared, other)]
    assert len({stream.later for stream in streams}) == 1
    without, same, control = (stream.earlier for stream in streams)
    later = streams[0].later
    assert not without
    assert _names(same) == _names(later) <= pinned.mmcl_real().concepts.keys()
    # the control: the same data sets, and no concept of the later modality
    assert _data_sets(control) == _data_sets(same)
    assert not _names(control) & _names(later)
    assert {name.split("/")[0] for name in same} != {n.split("/")[0] for n in later}


def test_shots_are_those_of_the_later_modality() -> None:
    config = make_config(
        REAL, "sounds_after_pictures,method=ncm,seed=3", {"stream.root": "DATA"}
    )
    assert config.stream.protocol == "mmcl_real_sounds_after_pictures"
    assert (config.stream.max_train_per_class, config.seeds.data) == (4, 3)
    assert config.stream.evaluate_on == "test"


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("sounds_after_picture", "did you mean 'sounds_after_pictures'"),
        ("sounds_alone,2", "sounds_alone has an order of its own"),
        ("sounds_alone,stream=random", "sounds_alone has an order of its own"),
        ("sounds_alone,development", "give one order, and one of benchmark"),
    ],
)
def test_a_stream_has_one_order(argument: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        make_config(REAL, argument, {"stream.root": "DATA"})


def _results(**accuracy: float) -> dict[str, Any]:
    """Returns results of tasks; with the modality predicted, all are a tenth less."""
    names, row = list(accuracy), list(accuracy.values())

    def matrix(less: float) -> list[list[float | None]]:
        return [[None] * len(row), [value - less for value in row]]

    return {
        "tasks": [{"name": name} for name in names],
        "accuracy": {
            "modality": {"given": matrix(0.0)},
            "routed": {"predicted": matrix(0.1)},
        },
        "environment": {"jax": "1"},
    }


def _ended() -> list[tuple[SweepRun, dict[str, Any]]]:
    """Returns two methods on two streams under two seeds, of which one lacks a run."""
    ended = []
    for variant, gains in (("comm", (0.1, 0.3)), ("ncm", (0.0, 0.0))):
        config = Config(method=MethodOptions(name=variant))
        for seed, gain in enumerate(gains):
            for later, share in (("heard", 1.0), ("seen", 0.5)):
                base = 0.5 + 0.1 * seed
                beside = {"alone": f"{later} alone"}
                run = SweepRun(variant, later, seed, config, {}, beside)
                more = {"a": base + share * gain, "b": base}
                # what the earlier modality is, and its order, does not count
                ended.append((run, _results(first=0.9, **more)))
                run = SweepRun(variant, f"{later} alone", seed, config)
                if (variant, later, seed) != ("ncm", "seen", 1):
                    ended.append((run, _results(b=base, a=base)))
    return ended


REPORT = transfer.compare(_ended(), "mine.py")


def test_what_is_gained_over_the_stream_alone() -> None:
    found = REPORT["transfer"]["alone"]["heard"]["comm"]
    # (.1 + 0) / 2 and (.3 + 0) / 2
    assert found["within"]["values"] == pytest.approx([0.05, 0.15])
    assert found["routed"]["values"] == pytest.approx([0.05, 0.15])
    assert found["within/a"]["values"] == pytest.approx([0.1, 0.3])
    assert found["within/b"]["values"] == pytest.approx([0, 0])
    # .1 ± 12.7062 * .0707107 / 2 ** .5
    ends = found["within"]["low"], found["within"]["high"]
    assert ends == pytest.approx((0.1 - 0.635310, 0.1 + 0.635310))
    # t = 2 with one degree of freedom; two streams of the method, and one of the other
    assert found["within"]["p_value"] == pytest.approx(0.295167)
    assert found["within"]["p_holm"] == pytest.approx(3 * 0.295167)
    none = REPORT["transfer"]["alone"]["heard"]["ncm"]["within"]
    assert (none["mean"], none["p_value"]) == (0, 1)


def test_over_all_streams_a_seed_counts_once() -> None:
    found = REPORT["transfer"]["alone"][ALL_STREAMS]
    assert found["comm"]["within"]["values"] == pytest.approx([0.0375, 0.1125])
    # under seed 1 a stream is missing
    assert found["ncm"]["within"]["values"] == [0]
    assert found["comm"].keys() == {"within", "routed"}


def test_accuracy_is_that_of_the_later_modality() -> None:
    found = REPORT["accuracy"]
    assert found["heard"]["comm"]["within"]["values"] == pytest.approx([0.55, 0.75])
    assert found["heard alone"]["comm"]["routed"]["values"] == pytest.approx([0.4, 0.5])


def test_tables_have_all_of_it(tmp_path: pathlib.Path) -> None:
    transfer.write(REPORT, tmp_path)
    assert json.loads((tmp_path / "transfer.json").read_text()) == REPORT
    text = (tmp_path / "transfer.md").read_text()
    assert "| `comm` | 65.0 ± 14.1 | 55.0 ± 7.1 |" in text
    assert "|  | all streams | heard | seen |" in text
    assert "| `comm` | +7.5 [-40.1, +55.1] | +10.0 [-53.5, +73.5] |" in text
    assert "| `ncm` | +0.0 | +0.0 [+0.0, +0.0] | +0.0 |" in text
