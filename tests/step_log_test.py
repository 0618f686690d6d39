"""The training loop copies nothing but batches, and a row of metrics now and then."""

import pathlib
from typing import Any

import jax
import numpy as np
import pytest

from mmcl_jax import config
from mmcl_jax.training import experiment
from mmcl_jax.training.batches import ahead
from mmcl_jax.training.moves import Kind
from mmcl_jax.training.step_log import Step, StepLog


class Watched:
    """A number on a device; remembers in which step it was fetched."""

    def __init__(self, value: float, now: list[int], fetched: list) -> None:
        self._value, self._now, self._fetched = value, now, fetched

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        del copy
        self._fetched.append((self._now[0], self._value))
        return np.asarray(self._value, dtype)

    def __float__(self) -> float:
        raise AssertionError("fetched alone")

    __bool__ = __float__  # pyright: ignore


def _logged(steps: int, every: int, bad: int | None = None) -> tuple[list, list, list]:
    """Returns fetches of losses and flags, lines, and steps refused."""
    now, losses, flags = [0], [], []
    lines: list = []
    refused: list = []
    log = StepLog(
        every,
        steps,
        lambda step, values: lines.append((now[0], step, values)),
        lambda step, state: refused.append((now[0], step.number, state)),
    )
    for i in range(steps):
        now[0] = i
        metrics: Any = {
            "loss": Watched(float(i), now, losses),
            "finite": Watched(i != bad, now, flags),
        }
        log.add(Step(i, None, metrics), f"state {i}")  # pyright: ignore
    log.finish("last")  # pyright: ignore
    return losses, lines, refused


def test_metrics_are_fetched_a_row_at_a_time_when_a_later_step_is_under_way():
    losses, lines, refused = _logged(8, every=3)
    # of rows of three, the last of the row, in the step behind it; and the last step
    assert losses == [(3, 2.0), (6, 5.0), (7, 7.0)]
    assert lines == [(3, 3, {"loss": 2.0}), (6, 6, {"loss": 5.0}), (7, 8, {"loss": 7})]
    assert not refused


def test_a_step_that_was_refused_is_told_with_its_row():
    _, _, refused = _logged(8, every=3, bad=4)
    assert refused == [(6, 4, "state 6")]
    _, _, refused = _logged(8, every=100, bad=4)
    assert refused == [(7, 4, "last")]


def test_the_next_item_is_made_before_an_item_is_used():
    made: list[int] = []

    def items():
        for i in range(3):
            made.append(i)
            yield i

    assert [(i, len(made)) for i in ahead(items())] == [(0, 2), (1, 3), (2, 3)]
    assert list(ahead([])) == []


def test_the_training_loop_copies_nothing_to_devices_but_batches(
    encoder_folder: pathlib.Path,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
):
    plain, tried = experiment._Loop._do_moves, []

    def guarded(loop, state, moves, *args):
        if not moves.count(Kind.TRAIN):
            return plain(loop, state, moves, *args)
        with jax.transfer_guard("disallow"):
            # else the guard would guard nothing
            with pytest.raises(Exception, match="Disallowed"):
                jax.jit(lambda x: x + 1)(np.int32(len(tried)))
            state = plain(loop, state, moves, *args)
        tried.append(state)
        return state

    monkeypatch.setattr(experiment._Loop, "_do_moves", guarded)
    world = config.World(
        tasks=2,
        classes_per_task=2,
        modalities=("image", "text"),
        train_per_class=8,
        test_per_class=4,
    )
    options = config.Config(
        stream=world,
        encoder=config.EncoderOptions(str(encoder_folder)),
        train=config.TrainOptions(epochs=2, batch_size=8, log_every_steps=2),
        report="off",
    )
    assert experiment.run(options, tmp_path / "run")
    assert len(tried) == 2
