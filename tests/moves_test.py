"""The moves of a stage can be counted and resumed at any of them."""

import itertools
import types
from typing import Any

import pytest

from mmcl_jax.training.moves import Kind, Move, Moves, Stage, moves_of_stage

BATCHES, EPOCHS = 3, 2
ALL = [Kind.PREPARE, Kind.BEGIN, Kind.TRAIN, Kind.OBSERVE, Kind.END]


def _moves(trains: bool = True, observes: bool = True, epochs: int = EPOCHS) -> Moves:
    method: Any = types.SimpleNamespace(trains=trains, observes=observes)
    return moves_of_stage(method, BATCHES, epochs)


@pytest.mark.parametrize("trains", [True, False])
@pytest.mark.parametrize("observes", [True, False])
def test_a_stage_prepares_begins_trains_observes_and_ends(
    trains: bool, observes: bool
) -> None:
    counts = [BATCHES, 1, trains * EPOCHS * BATCHES, observes * BATCHES, 1]
    moves = _moves(trains, observes)
    wanted = [
        Move(kind, i)
        for kind, count in zip(ALL, counts, strict=True)
        for i in range(count)
    ]
    assert list(moves) == wanted
    assert len(moves) == sum(counts)
    assert [moves.count(kind) for kind in ALL] == counts


def test_moves_done_and_left_are_all_moves() -> None:
    moves = _moves()
    everything = list(moves)
    start = 100
    stage = Stage("", start, moves, 1000, 60, 30, 4.0)
    assert stage.end == start + len(everything)
    for number in range(len(everything) + 1):
        done, left = stage.done(start + number), stage.left(start + number)
        assert list(done) == everything[:number]
        assert list(left) == everything[number:]
        assert (len(done), len(left)) == (number, len(everything) - number)
        expected = 1000 + 60 * number / len(everything)
        assert stage.samples_after(start + number) == pytest.approx(expected)


def test_before_is_the_inverse_of_the_order() -> None:
    moves = _moves()
    assert [moves.before(move) for move in moves] == list(range(len(moves)))


def test_every_part_is_timed_even_if_none_of_its_moves_is_left() -> None:
    # else a run that resumes after them would report other parts than a whole one
    moves = _moves()
    for number in (0, BATCHES + 1, len(moves)):
        parts = list(moves[number:].by_part())
        assert [part for part, _ in parts] == ["prepare", "train", "observe"]
        rejoined = itertools.chain.from_iterable(some for _, some in parts)
        assert list(rejoined) == list(moves)[number:]
    parts = [part for part, _ in _moves(trains=False).by_part()]
    assert parts == ["prepare", "observe"]


def test_moves_are_not_made_before_they_are_asked_for() -> None:
    moves = _moves(epochs=10**12)
    left = moves[10**12 :]
    assert next(iter(left)) == Move(Kind.TRAIN, 10**12 - BATCHES - 1)
    assert left.count(Kind.TRAIN) == BATCHES * 10**12 - (10**12 - BATCHES - 1)
