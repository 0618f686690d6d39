"""`python -m tests.bench.growth --tasks=10,50,200`: what grows with the stream.

Tasks have five classes of random pictures or depth maps in turn, through the built-in
encoder. Two kinds of growth are told apart. *Along a stream*: arrays have the size of
the longest stream, and the states behind so many tasks of it are compared. *Between
streams*: each stream has arrays of its own size. Measured are the pieces of a task, in
turns; a task is made of them as `configs/demo.py` would: 200 samples, 8 epochs.
"""

import argparse
import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mmcl_jax import config
from mmcl_jax.evaluation import cost
from mmcl_jax.modalities.base import InputSpec, Media, Modality
from mmcl_jax.ops.trees import nbytes
from mmcl_jax.parallel import sharding
from mmcl_jax.streams import loader
from mmcl_jax.streams.base import Stream, TaskDraft, build_stream
from mmcl_jax.training import build, capacity
from mmcl_jax.training.learner import LearnerState
from mmcl_jax.types import Batch
from tests.bench import table

MODALITIES = ("image", "depth")
CLASSES, SAMPLES, EPOCHS, ROWS = 5, 200, 8, 32
BATCHES = -(-SAMPLES // ROWS)
# how often a task does each of its pieces
PIECES = {
    "prepare": BATCHES,
    "begin_task": 1,
    "train_step": BATCHES * EPOCHS,
    "observe": BATCHES,
    "end_task": 1,
}
SIZES = {"full": (CLASSES, ROWS), "single": (1, ROWS), "tiny": (2, 4)}


@dataclasses.dataclass(frozen=True)
class Noise:
    """A sample that nobody reads: batches are drawn at random."""

    seed: int

    def load(self, modality: Modality, spec: InputSpec) -> Media:
        raise AssertionError("batches are drawn, no sample is read")

    def describe(self) -> str:
        return f"noise#{self.seed}"

    def identity(self) -> str:
        return self.describe()


def make_stream(tasks: int, classes: int) -> Stream:
    """Returns a stream of tasks of so many classes, in two modalities in turn."""
    return build_stream(
        [
            TaskDraft(
                name=f"task {i}",
                modality=MODALITIES[i % len(MODALITIES)],
                classes=tuple((f"class {i} {c}", "noise") for c in range(classes)),
                train=tuple((Noise(i * classes + c),) for c in range(classes)),
                test=((),) * classes,
            )
            for i in range(tasks)
        ]
    )


class Learnt:
    """A stream that is learnt, one step a task, and the states behind some tasks.

    Attributes:
        run: encoder, stream and compiled functions.
        states: by number of tasks learnt.
    """

    def __init__(
        self, method: str, tasks: int, size: str, behind: Sequence[int]
    ) -> None:
        classes, self._rows = SIZES[size]
        experiment = config.Config(
            method=config.MethodOptions(method),
            train=config.TrainOptions(batch_size=self._rows),
        )
        mesh = sharding.make_mesh(jax.devices()[:1])
        encoder = build.load_encoder(experiment.encoder, mesh)
        decoder = loader.Decoder(encoder.inputs, 0)
        stream = make_stream(tasks, classes)
        self.run = build.compose(experiment, encoder, stream, mesh, decoder)
        self._text = _unit(np.random.default_rng(0), classes * tasks, encoder)
        self.states: dict[int, LearnerState] = {}
        state = self.run.learner.init(capacity.at_stage(stream, 0))
        for i in range(max(behind)):
            room = capacity.at_stage(stream, i)
            if i and room != capacity.at_stage(stream, i - 1):
                state = self.run.learner.grow(state, room)
            state = self._learn(state, i)
            if i + 1 in behind:
                self.states[i + 1] = jax.tree.map(jnp.copy, state)

    def _learn(self, state: LearnerState, index: int) -> LearnerState:
        learner, batch, at = self.run.learner, self._batch(index), self._at(index)
        first, steps = self._number(0), self._number(1)
        state = learner.prepare(state, *at, batch, first)
        state = learner.begin_task(state, *at)
        if self.run.method.trains:
            state, _ = learner.train_step(state, *at, steps, batch)
        if self.run.method.observes:
            state = learner.observe(state, *at, batch, first)
        return jax.block_until_ready(learner.end_task(state, *at))

    def pieces(self, tasks: int) -> dict[str, Callable[[], Any]]:
        """Returns the pieces of the task behind `tasks` others, and a prediction."""
        learner, method, index = self.run.learner, self.run.method, tasks - 1
        batch, at, state = self._batch(index), self._at(index), self.states[tasks]
        first, steps = self._number(0), self._number(100)
        began = learner.begin_task(learner.prepare(state, *at, batch, first), *at)
        calls = {
            "prepare": lambda: learner.prepare(state, *at, batch, first),
            "begin_task": lambda: learner.begin_task(state, *at),
            "end_task": lambda: learner.end_task(began, *at),
            "predict": lambda: learner.predict(state, *at, batch),
        }
        if method.observes:
            calls["observe"] = lambda: learner.observe(began, *at, batch, first)
        if method.trains:
            trained = [jax.tree.map(jnp.copy, began)]

            def step() -> Any:  # what it is given is given away
                trained[0], metrics = learner.train_step(trained[0], *at, steps, batch)
                return metrics, trained[0]

            calls["train_step"] = step
        return calls

    def _at(self, index: int) -> tuple:
        classes = build.classes_at(self.run, self._text, index)
        return self.run.encoder.frozen, classes, self._number(index)

    def _number(self, value: int) -> jax.Array:
        return sharding.put(np.int32(value), self.run.mesh)

    def _layers(self, rng: np.random.Generator, modality: str) -> np.ndarray | None:
        spec = self.run.encoder.spec
        width = build.view_width(spec, self.run.method, modality) - spec.embedding
        return rng.standard_normal((self._rows, width), np.float32) if width else None

    def _batch(self, index: int) -> Batch:
        task, rng = self.run.stream.tasks[index], np.random.default_rng(index)
        place, rows = self.run.model.modalities.index(task.modality), self._rows
        inputs = {
            name: rng.standard_normal((rows, *leaf.shape)).astype(leaf.dtype)
            for name, leaf in self.run.model.input_shapes[place].items()
        }
        batch = Batch(
            inputs=inputs,
            query=_unit(rng, rows, self.run.encoder),
            label=rng.choice(task.classes, rows).astype(np.int32),
            weight=np.ones(rows, np.float32),
            id=np.arange(rows, dtype=np.int32),
            hint=np.full(rows, place, np.int32),
            modality=task.modality,
            layers=self._layers(rng, task.modality),
        )
        return sharding.put_batch(batch, self.run.mesh)


def _unit(rng: np.random.Generator, rows: int, encoder: Any) -> np.ndarray:
    drawn = rng.standard_normal((rows, encoder.spec.embedding))
    return (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)


def exponent(sizes: Sequence[int], times: Sequence[float]) -> float | None:
    """Returns the slope of a line through logarithms; None: nothing to draw it through.

    >>> round(exponent([10, 20, 40], [3, 12, 48]), 6)
    2.0
    """
    if len(set(sizes)) < 2 or min(times) <= 0:
        return None
    return float(np.polyfit(np.log(sizes), np.log(times), 1)[0])


def measure(
    title: str, learnt: dict[int, Learnt], times: int
) -> dict[str, dict[str, Any]]:
    """Prints and returns what each piece takes behind so many tasks."""
    calls = {
        (name, tasks): call
        for tasks, of in learnt.items()
        for name, call in of.pieces(tasks).items()
    }
    measured = table.rounds(calls, times)
    found, rows = {}, []
    names = list(dict.fromkeys(name for name, _ in calls))
    of_task = {
        tasks: sum(
            PIECES[name] * table.spread(measured[name, tasks]).median
            for name in names
            if name in PIECES
        )
        for tasks in learnt
    }
    for name in names:
        spreads = [table.spread(measured[name, tasks]) for tasks in learnt]
        medians = [each.median for each in spreads]
        slope = exponent(list(learnt), medians)
        share = None
        if name in PIECES:
            share = max(
                PIECES[name] * m / of_task[t]
                for t, m in zip(learnt, medians, strict=True)
            )
        found[name] = {"seconds": spreads, "exponent": slope, "largest share": share}
        shown = [str(table.Spread(*(1e3 * x for x in each))) for each in spreads]
        rows.append([name, *shown, _shown(slope), _percent(share)])
    totals = list(of_task.values())
    slope = exponent(list(learnt), totals)
    found["task"] = {"seconds": totals, "exponent": slope}
    whole = [f"{1e3 * x:.3g}" for x in totals]
    rows.append(["whole task", *whole, _shown(slope), ""])
    unit = f"ms ({table.machine()['clock']}), median (quartiles)"
    heads = [f"{tasks} tasks" for tasks in learnt]
    table.show(f"{title}, {unit}", ["", *heads, "exponent", "of a task"], rows)
    return found


def _shown(slope: float | None) -> str:
    return "" if slope is None else f"{slope:+.2f}"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f} %"


def memory(learnt: dict[int, Learnt], classes: int) -> list[dict[str, int]]:
    """Prints and returns the bytes that states have, and what the ledger says."""
    rows = []
    for tasks, of in learnt.items():
        state = of.states[tasks]
        room = capacity.at_stage(of.run.stream, tasks - 1)
        said = cost.sizes(of.run.make_method, of.run.model, room)
        rows.append(
            {
                "tasks": tasks,
                "classes": classes * tasks,
                "bytes": nbytes((state.params, state.memory)),
                "bytes said": said["bytes_remembered"],
                "per class": said["bytes_per_class"],
                "per task": said["bytes_per_task"],
                "programs": sum(of.run.learner.traces.values()),
            }
        )
    table.show(
        "what is remembered, and programs compiled",
        list(rows[0]),
        [list(row.values()) for row in rows],
    )
    for before, after in zip(rows, rows[1:], strict=False):
        more = after["tasks"] - before["tasks"]
        said = more * (classes * after["per class"] + after["per task"])
        grown = after["bytes"] - before["bytes"]
        print(f"{more} tasks more: {grown} bytes; by the ledger {said}")
    return rows


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", default="10,50,200")
    parser.add_argument("--method", default="comm")
    parser.add_argument("--size", choices=SIZES, default="full")
    parser.add_argument("--rounds", type=int, default=None)
    parser.add_argument("--out", default=None)
    args = parser.parse_args(argv)
    tiny = args.size == "tiny"
    tasks = [2, 4] if tiny else sorted(int(n) for n in args.tasks.split(","))
    times = args.rounds or (1 if tiny else 15)
    make = functools.partial(Learnt, args.method)
    longest = make(tasks[-1], args.size, tasks)
    along = measure(
        f"{args.method}: along a stream of {tasks[-1]} tasks",
        dict.fromkeys(tasks, longest),
        times,
    )
    # an even number of tasks behind, so that all end with the same modality
    streams = {n: make(n, args.size, [n]) for n in tasks[:-1]} | {tasks[-1]: longest}
    between = measure(f"{args.method}: streams of their own size", streams, times)
    remembered = memory(streams, SIZES[args.size][0])
    results = {"method": args.method, "tasks": tasks, "along": along}
    table.write(args.out, results | {"between": between, "memory": remembered})


if __name__ == "__main__":
    main()
