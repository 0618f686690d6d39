"""How long the stages of a run are: in moves, in training steps, in samples.

A move is the least that a run is saved behind, see `keeper.Keeper`.
"""

import itertools
from typing import NamedTuple

from mmcl_jax.streams.base import scored_tasks
from mmcl_jax.training.batches import Feed
from mmcl_jax.training.build import Run


class Stage(NamedTuple):
    """One stage.

    Attributes:
        title: for people: its number and what is learnt.
        batches: of one pass over its training samples.
        steps: of training.
        observed: batches of the pass of observation; 0 where the method has none.
        learnt: samples that it learns from, and
        scored: those that it is scored by, each as often as it is gone through.
    """

    title: str
    batches: int
    steps: int
    observed: int
    learnt: int
    scored: int

    @property
    def moves(self) -> int:
        """Returns all moves: to prepare, begin, train, observe and end."""
        return self.batches + 1 + self.steps + self.observed + 1


class Schedule(NamedTuple):
    """All stages.

    Attributes:
        stages: in order.
        ends: moves done by the end of each.
        samples: gone through by the end of each.
    """

    stages: tuple[Stage, ...]
    ends: tuple[int, ...]
    samples: tuple[int, ...]

    def start(self, index: int) -> int:
        """Returns the moves done before a stage."""
        return self.ends[index - 1] if index else 0

    def samples_done(self, index: int, moves: int) -> float:
        """Returns the samples gone through, some moves into the run, in a stage."""
        if index == len(self.stages):
            return self.samples[-1]
        share = (moves - self.start(index)) / self.stages[index].moves
        before = self.samples[index - 1] if index else 0
        return before + share * self.stages[index].learnt


def of_run(run: Run, feed: Feed) -> Schedule:
    """Returns the schedule of a run, which its config and its stream decide."""
    stages = tuple(_stage(run, feed, index) for index in range(len(run.stream.stages)))
    samples = (stage.learnt + stage.scored for stage in stages)
    return Schedule(
        stages,
        tuple(itertools.accumulate(stage.moves for stage in stages)),
        tuple(itertools.accumulate(samples)),
    )


def _stage(run: Run, feed: Feed, index: int) -> Stage:
    stream, method, epochs = run.stream, run.method, run.config.train.epochs
    own = stream.stages[index]
    records = feed.records(own, "train")
    batches = feed.num_batches(records)
    name = stream.tasks[own[0]].name if len(own) == 1 else f"{len(own)} tasks"
    passes = 1 + method.trains * epochs + method.observes
    seen, upcoming = scored_tasks(stream, index, run.config.evaluation.upcoming)
    return Stage(
        title=f"[{index + 1}/{len(stream.stages)}] {name}",
        batches=batches,
        steps=method.trains * epochs * batches,
        observed=method.observes * batches,
        learnt=passes * sum(map(len, records.values())),
        scored=sum(len(stream.tasks[i].test) for i in [*seen, *upcoming]),
    )
