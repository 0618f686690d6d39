"""What a stage consists of: the moves after each of which a run can be saved.

A move is the smallest change of the state: a batch prepared, the task begun, a training
step, a batch observed, the task ended. Config and stream alone decide which moves a
stage has and in which order, so the number of moves done says exactly where a run is.
"""

import dataclasses
import enum
import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

from mmcl_jax.methods.base import Method
from mmcl_jax.ops import rngs
from mmcl_jax.streams.base import scored_tasks
from mmcl_jax.training.batches import Feed, Records
from mmcl_jax.training.build import Run
from mmcl_jax.types import Batch


class Kind(enum.Enum):
    """What a move does. All but `BEGIN` and `END` take a batch."""

    PREPARE = enum.auto()
    BEGIN = enum.auto()
    TRAIN = enum.auto()
    OBSERVE = enum.auto()
    END = enum.auto()


# the part of `results.json` that the time of each kind counts to
_PARTS = {
    Kind.PREPARE: "prepare",
    Kind.BEGIN: "prepare",
    Kind.TRAIN: "train",
    Kind.OBSERVE: "observe",
    Kind.END: "observe",
}


class Move(NamedTuple):
    """One move.

    Attributes:
        kind: What it does.
        index: Index among the moves of its kind in the stage, from 0: the training
            step, or the batch of the pass.
    """

    kind: Kind
    index: int


@dataclasses.dataclass(frozen=True)
class Moves:
    """Moves of a stage in order; as ranges, since a stage may have millions of steps.

    Attributes:
        spans: Indices of each kind, in the order of the stage; may be empty.
    """

    spans: tuple[tuple[Kind, range], ...]

    def __len__(self) -> int:
        """Returns the number of moves."""
        return sum(len(indices) for _, indices in self.spans)

    def __iter__(self) -> Iterator[Move]:
        """Yields the moves."""
        return (Move(kind, i) for kind, indices in self.spans for i in indices)

    def __getitem__(self, some: slice) -> "Moves":
        """Returns consecutive moves; spans of which none is left stay, empty."""
        start, stop, _ = some.indices(len(self))
        spans = []
        for kind, indices in self.spans:
            spans.append((kind, indices[max(start, 0) : max(stop, 0)]))
            start, stop = start - len(indices), stop - len(indices)
        return Moves(tuple(spans))

    def count(self, kind: Kind) -> int:
        """Returns the number of moves of a kind."""
        return sum(len(indices) for own, indices in self.spans if own is kind)

    def before(self, move: Move) -> int:
        """Returns the number of moves before one of them."""
        kinds = [kind for kind, _ in self.spans]
        position = kinds.index(move.kind)
        earlier = Moves(self.spans[:position])
        return len(earlier) + self.spans[position][1].index(move.index)

    def by_part(self) -> Iterator[tuple[str, "Moves"]]:
        """Yields the moves by the part of `results.json` that their time counts to."""
        for part, spans in itertools.groupby(self.spans, lambda s: _PARTS[s[0]]):
            yield part, Moves(tuple(spans))


class Stage(NamedTuple):
    """One stage of a run.

    Attributes:
        title: Its number and what is learned, for people.
        start: Number of moves of the run before it.
        moves: All moves of the stage.
        samples_before: Number of samples processed before it.
        learned: Number of samples that its moves process, over all passes.
        scored: Number of samples that it is evaluated on.
        per_batch: Mean number of samples in a batch.
    """

    title: str
    start: int
    moves: Moves
    samples_before: int
    learned: int
    scored: int
    per_batch: float

    @property
    def end(self) -> int:
        """Returns the number of moves of the run up to the end of the stage."""
        return self.start + len(self.moves)

    @property
    def samples(self) -> int:
        """Returns the number of samples processed once the stage is evaluated."""
        return self.samples_before + self.learned + self.scored

    def done(self, moves: int) -> Moves:
        """Returns its moves among the first `moves` of the run."""
        return self.moves[: moves - self.start]

    def left(self, moves: int) -> Moves:
        """Returns its moves after the first `moves` of the run."""
        return self.moves[moves - self.start :]

    def samples_after(self, moves: int) -> float:
        """Returns the number of samples processed in the first `moves` of the run."""
        share = len(self.done(moves)) / len(self.moves)
        return self.samples_before + share * self.learned


def moves_of_stage(method: Method, batches: int, epochs: int) -> Moves:
    """Returns the moves of a stage.

    Args:
        method: Says whether there are training steps and a pass of observation.
        batches: Number of batches in one pass over the training samples of the stage.
        epochs: Number of training passes.
    """
    counts = [(Kind.PREPARE, batches), (Kind.BEGIN, 1)]
    if method.trains:
        counts.append((Kind.TRAIN, epochs * batches))
    if method.observes:
        counts.append((Kind.OBSERVE, batches))
    counts.append((Kind.END, 1))
    return Moves(tuple((kind, range(count)) for kind, count in counts))


def stages_of_run(run: Run, feed: Feed) -> tuple[Stage, ...]:
    """Returns the stages of a run, as its config and its stream decide them."""
    stages, start, samples = [], 0, 0
    for index in range(len(run.stream.stages)):
        stage = _stage(run, feed, index, start, samples)
        stages.append(stage)
        start, samples = stage.end, stage.samples
    return tuple(stages)


def _stage(run: Run, feed: Feed, index: int, start: int, samples_before: int) -> Stage:
    stream, method, epochs = run.stream, run.method, run.config.train.epochs
    own = stream.stages[index]
    name = stream.tasks[own[0]].name if len(own) == 1 else f"{len(own)} tasks"
    records = feed.records(own, "train")
    samples, batches = sum(map(len, records.values())), feed.num_batches(records)
    passes = 1 + method.trains * epochs + method.observes
    seen, upcoming = scored_tasks(stream, index, run.config.evaluation.upcoming)
    return Stage(
        title=f"[{index + 1}/{len(stream.stages)}] {name}",
        start=start,
        moves=moves_of_stage(method, batches, epochs),
        samples_before=samples_before,
        learned=passes * samples,
        scored=sum(
            len(stream.tasks[i].test)
            for i in [*seen, *upcoming]
            if i not in run.unscored
        ),
        per_batch=samples / max(batches, 1),
    )


def batches_of(run: Run, feed: Feed, index: int, moves: Moves) -> Iterator[Any]:
    """Yields the batch of each move; None for the moves that begin and end the task.

    Consecutive moves of a kind take theirs from one pass, so that the next batch is
    read and sent to the devices during a move. The order of a pass depends on its
    seed alone: one that starts in the middle skips batches without reading them.

    Args:
        run: The run.
        feed: Holds the cached queries of the stage.
        index: Index of the stage.
        moves: Consecutive moves of the stage.
    """
    records = feed.records(run.stream.stages[index], "train")
    for kind, indices in moves.spans:
        if kind is Kind.TRAIN:
            yield from _epochs(run, feed, index, records, indices.start)
        elif kind in (Kind.PREPARE, Kind.OBSERVE):
            # `prepare` takes cached queries alone, so no file is read
            decoded = kind is Kind.OBSERVE and run.method.needs_inputs
            yield from feed.batches(records, decoded=decoded, start=indices.start)
        else:
            yield from (None for _ in indices)


def _epochs(
    run: Run, feed: Feed, index: int, records: Records, step: int
) -> Iterator[Batch]:
    """Yields the batches of the training steps of a stage from `step` on."""
    epoch, skipped = divmod(step, max(feed.num_batches(records), 1))
    for number in range(epoch, run.config.train.epochs):
        seed = rngs.host_seed(run.config.seeds.data, "epoch", index, number)
        yield from feed.batches(records, seed, run.method.needs_inputs, skipped)
        skipped = 0
