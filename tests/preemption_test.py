"""A run that is asked to leave looks up often enough, and loses nothing."""

import dataclasses
import pathlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest

from mmcl_jax import config
from mmcl_jax.errors import Preempted
from mmcl_jax.training import batches, experiment
from mmcl_jax.training.evaluator import Scorer
from mmcl_jax.training.preemption import Interrupt

STREAM = config.World(
    modalities=("image", "text"),
    tasks=2,
    classes_per_task=2,
    train_per_class=12,
    test_per_class=8,
)

pytestmark = pytest.mark.full("interruption")


class AfterLooks(Interrupt):
    """Is asked to leave when the run has looked whether it is, so many times."""

    def __init__(self, looks: int) -> None:
        self._left = looks
        super().__init__()

    @property
    def requested(self) -> bool:
        self._left -= 1
        return self._left < 0

    @requested.setter
    def requested(self, value: bool) -> None:
        del value


def _config(folder: pathlib.Path) -> config.Config:
    return config.Config(
        stream=STREAM,
        encoder=config.EncoderOptions(str(folder)),
        # features are computed, not read
        data=config.DataOptions(feature_cache=False),
        train=config.TrainOptions(epochs=1, batch_size=8),
        report="off",
    )


@pytest.fixture(scope="module")
def whole(encoder_folder, tmp_path_factory) -> dict[str, Any]:
    workdir = tmp_path_factory.mktemp("whole") / "run"
    return experiment.run(_config(encoder_folder), workdir)


@pytest.mark.xdist_group("preemption")
@pytest.mark.parametrize(
    "looks",
    [0, 1, 2, 11, 25],
)
def test_leaving_at_any_look_loses_nothing(
    looks: int, whole, encoder_folder, tmp_path: pathlib.Path
) -> None:
    made = _config(encoder_folder)
    with pytest.raises(Preempted):
        experiment.run(made, tmp_path, interrupt=AfterLooks(looks))
    results = experiment.run(made, tmp_path)
    assert results["accuracy"] == whole["accuracy"]
    assert results["restarts"] == 1
    for name in ("000", "001"):
        assert (tmp_path / "snapshots" / name).is_dir()


def test_it_looks_behind_each_batch_that_is_embedded(
    encoder_folder, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # before anything was learnt: twelve samples of two classes are three batches
    embedded = []
    ahead = batches.ahead

    def counted(items: Iterable) -> Iterator:
        for item in ahead(items):
            embedded.append(item)
            yield item

    monkeypatch.setattr(batches, "ahead", counted)
    for looks in (0, 2):
        embedded.clear()
        with pytest.raises(Preempted):
            workdir = tmp_path / str(looks)
            experiment.run(
                _config(encoder_folder), workdir, interrupt=AfterLooks(looks)
            )
        # class names come before
        names = -(-4 * 3 // 8)
        assert len(embedded) == names + looks + 1
        assert [p.name for p in (workdir / "snapshots").glob("0*")] == []


def test_scoring_counts_samples_and_looks_behind_each_batch(
    encoder_folder, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: dict[str, list[int]] = {"score": [], "predict": []}

    def watched(name: str, original: Callable) -> Callable:
        def call(self: Scorer, *args: Any) -> Any:
            *rest, between = args

            def told(samples: int) -> None:
                counted[name].append(samples)
                between(samples)

            return original(self, *rest, told)

        return call

    for name in counted:
        monkeypatch.setattr(Scorer, name, watched(name, getattr(Scorer, name)))
    # ten test samples of a task are two batches, of which six rows are padding
    fewer = dataclasses.replace(STREAM, test_per_class=5)
    made = dataclasses.replace(_config(encoder_folder), stream=fewer)
    experiment.run(made, tmp_path)
    # behind each of two stages both test sets
    assert sum(counted["score"]) == 2 * 2 * 10
    assert max(counted["score"]) == 8
    # 24 training samples a stage
    assert counted["predict"] == [0] * 2 * 3
