"""Training steps of every method, and the published way of L2P and CODA-Prompt.

`python -m tests.bench.methods`. The first table has an epoch of L2P and CODA-Prompt:
here, where the queries of a task are computed once and cached, and where what the first
half of the blocks computes is, too; beside PyTorch, where each step sends its batch
through the frozen tower for the queries and again with prompts, as the published codes
do. The second compares the step of every method with all passes through towers in it,
forward and back, which are compiled and timed alone. `--size=b16` compares epochs with
ViT-B/16.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from rich.console import Console
from torch.nn import functional

from mmcl_jax import config as configs
from mmcl_jax.methods.registry import METHODS
from mmcl_jax.models.model import Model
from mmcl_jax.training import build, capacity, learner
from mmcl_jax.types import Batch
from tests.bench import timing, torch_tower

_MODALITY = "image"
_RATE = 1e-3
PUBLISHED = ("l2p", "coda_prompt")
# `joint` takes the steps of `sequential`, on a stream without stages of one modality
ALL = tuple(name for name, entry in METHODS.items() if not entry.on_joined_stream)
# rows of a batch, steps of an epoch, methods, encoder; PyTorch has no stem to compare
SIZES = {
    "full": (64, 8, ALL, "builtin"),
    "b16": (8, 2, PUBLISHED, "random:b16"),
    "tiny": (4, 1, PUBLISHED, "random:clip_tiny"),
}


def main() -> None:
    given = timing.arguments(__doc__, tuple(SIZES))
    rows, steps, names, encoder = SIZES[given.size]
    epochs, passes = [], []
    for name in names:
        run = run_of(name, rows, encoder)
        if not run.method.trains:
            continue
        step, calls = training(run, rows)
        if encoder != "builtin":
            published = Published(run, rows)
            half = run.model.spec.tower("visual").layers // 2
            later, _ = training(run_of(name, rows, encoder, half), rows)
            contestants = {
                "here": lambda step=step: [step() for _ in range(steps)][-1],
                f"here, from block {half}": lambda step=later: [
                    step() for _ in range(steps)
                ][-1],
                "PyTorch": lambda p=published: [p.step(i) for i in range(steps)][-1],
            }
            timings = timing.take_turns(contestants, given.rounds)
            for row in timing.rows(timings, "PyTorch"):
                epochs.append({"method": name, **row})
        if not calls:
            continue
        alone = passes_alone(run, calls)
        timings = timing.take_turns({"step": step, "passes": alone}, given.rounds)
        passes.append(
            {
                "method": name,
                "forwards": len(calls),
                "backwards": sum(call.backward for call in calls),
                **_ratio(timings["step"], timings["passes"]),
            }
        )
    tables = {
        f"An epoch of {steps} steps of {rows} pictures": epochs,
        "A step, and the passes through towers in it": passes,
    }
    tables = {title: rows for title, rows in tables.items() if rows}
    timing.report(tables, given, torch=torch.__version__)


def _ratio(step: timing.Timing, alone: timing.Timing) -> dict[str, Any]:
    return {
        "step ms": round(1e3 * step.median, 2),
        "step quartiles": f"{1e3 * step.low:.2f} - {1e3 * step.high:.2f}",
        "passes ms": round(1e3 * alone.median, 2),
        "step / passes": round(step.median / alone.median, 3),
        "by CPU time": round(step.cpu / alone.cpu, 3),
    }


def run_of(name: str, rows: int, encoder: str, first_block: int = 0) -> build.Run:
    """Returns a run of a method at the start of a task."""
    config = configs.Config(
        stream=configs.World(
            tasks=10, classes_per_task=5, modalities=(_MODALITY, "text")
        ),
        encoder=configs.EncoderOptions(encoder),
    )
    adapter = dataclasses.replace(config.method.adapter, first_block=first_block)
    config = dataclasses.replace(
        config,
        method=dataclasses.replace(config.method, name=name, adapter=adapter),
        train=dataclasses.replace(config.train, batch_size=rows),
    )
    return build.assemble(config, Console(quiet=True))


@dataclasses.dataclass
class Call:
    """One pass through a tower in a step.

    Attributes:
        modality: of the inputs.
        inputs: their shapes.
        injection: shapes of what is injected.
        backward: whether a gradient goes back through it.
    """

    modality: str
    inputs: Any
    injection: Any
    backward: bool = False


def training(run: build.Run, rows: int) -> tuple[Callable[[], Any], list[Call]]:
    """Returns a step that goes on from the one before, and the passes in it."""
    calls: list[Call] = []

    def watched(frozen, modality, inputs, injection):
        shapes = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), (inputs, injection)
        )
        calls.append(Call(modality, *shapes))
        embedded = run.model.embed(frozen, modality, inputs, injection)
        return _noticing_gradients(calls[-1], embedded)

    def compiled(model: Model) -> learner.Learner:
        options = run.config.train.optimizer
        return learner.make_learner(run.make_method, model, options, 0, run.mesh)

    stage, classes = classes_of(run)
    task, steps, frozen = np.int32(stage), np.int32(10**6), run.encoder.frozen
    batch, state = (
        batch_of(run, rows, stage),
        run.learner.init(capacity.of_stream(run.stream)),
    )
    state = run.learner.begin_task(state, frozen, classes, task)
    watching = compiled(run.model._replace(embed=watched))
    jax.eval_shape(watching.train_step, state, frozen, classes, task, steps, batch)

    def step() -> Any:
        nonlocal state
        state, metrics = run.learner.train_step(
            state, frozen, classes, task, steps, batch
        )
        return metrics

    return step, calls


def _noticing_gradients(call: Call, embedded: jax.Array) -> jax.Array:
    @jax.custom_vjp
    def notice(x: jax.Array) -> jax.Array:
        return x

    def backward(_: None, gradient: jax.Array) -> tuple[jax.Array]:
        call.backward = True
        return (gradient,)

    notice.defvjp(lambda x: (x, None), backward)
    return notice(embedded)


def passes_alone(run: build.Run, calls: list[Call]) -> Callable[[], Any]:
    """Returns the same passes through towers, compiled without a method."""
    rng = np.random.default_rng(0)

    def drawn(tree: Any) -> Any:
        return jax.tree.map(
            lambda x: jnp.asarray(0.02 * rng.normal(size=x.shape), x.dtype), tree
        )

    given = [drawn((call.inputs, call.injection)) for call in calls]

    def embed(injection, call: Call, frozen, inputs):
        return run.model.embed(frozen, call.modality, inputs, injection)

    @jax.jit
    def all_passes(frozen, given):
        results = []
        for call, (inputs, injection) in zip(calls, given, strict=True):
            if call.backward:
                total = lambda *a: embed(*a).sum()  # noqa: E731
                differentiate = jax.value_and_grad(total)
            else:
                differentiate = embed
            results.append(differentiate(injection, call, frozen, inputs))
        return results

    return lambda: all_passes(run.encoder.frozen, given)


def classes_of(run: build.Run) -> tuple[int, Any]:
    """Returns the first stage with pictures, and its classes; texts are random."""
    stream = run.stream
    stage = next(
        i
        for i, tasks in enumerate(stream.stages)
        if stream.tasks[tasks[0]].modality == _MODALITY
    )
    return stage, build.classes_at(run, texts(run), stage)


def texts(run: build.Run) -> np.ndarray:
    """Returns random unit vectors in the place of class texts `[C d]`."""
    shape = (len(run.stream.classes), run.model.spec.embedding)
    text = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    return text / np.linalg.norm(text, axis=1, keepdims=True)


def batch_of(run: build.Run, rows: int, stage: int) -> Batch:
    """Returns a batch of random pictures with random queries."""
    rng, model = np.random.default_rng(2), run.model
    index = model.modalities.index(_MODALITY)
    task = run.stream.tasks[run.stream.stages[stage][0]]
    query = rng.normal(size=(rows, model.spec.embedding)).astype(np.float32)
    inputs = {
        name: rng.normal(size=(rows, *shape.shape)).astype(shape.dtype)
        for name, shape in model.input_shapes[index].items()
    }
    batch = Batch(
        inputs=inputs,
        query=query / np.linalg.norm(query, axis=1, keepdims=True),
        label=rng.choice(task.classes, rows).astype(np.int32),
        weight=np.ones(rows, np.float32),
        id=np.arange(rows, dtype=np.int32),
        hint=np.full(rows, index, np.int32),
        modality=_MODALITY,
    )
    return jax.tree.map(jnp.asarray, batch)


class Published:
    """L2P or CODA-Prompt in PyTorch, each step with a forward for its queries.

    Pool, lengths and layers are those of the run; frames of a clip are rows.
    """

    def __init__(self, run: build.Run, rows: int) -> None:
        self.options = getattr(run.config.method, run.config.method.name)
        spec, width = run.model.spec, run.model.spec.embedding
        reader = spec.reader(spec.tower_of(_MODALITY))
        weights = run.encoder.frozen[spec.tower_of(_MODALITY)]
        self.tower = torch_tower.build(reader, weights, width)
        batch = batch_of(run, rows, classes_of(run)[0])
        pixels = np.array(batch.inputs["pixels"])
        self.frames = pixels.shape[1]
        self.pixels = torch.tensor(pixels).flatten(0, 1).permute(0, 3, 1, 2)
        self.pixels = self.pixels.contiguous()
        self.texts = torch.tensor(texts(run))
        self.label = torch.tensor(np.array(batch.label), dtype=torch.long)
        self.scale = run.model.logit_scale
        trunk = reader.trunk
        if run.config.method.name == "l2p":
            length = self.options.length
            shapes = {
                "prompts": (self.options.pool, length, trunk.width),
                "keys": (self.options.pool, width),
            }
            self.injected = self._chosen_prompts
        else:
            layers = min(self.options.layers, trunk.layers)
            count = self.options.components_per_stage
            shapes = {
                "prefixes": (count, layers, 2, self.options.length, trunk.width),
                "attention": (count, layers, width),
                "keys": (count, layers, width),
            }
            self.injected = self._weighed_prefixes
        self.params = {
            name: (0.02 * torch.randn(shape)).requires_grad_()
            for name, shape in shapes.items()
        }
        self.optimizer = torch.optim.Adam(self.params.values(), lr=_RATE)

    def step(self, _: int) -> float:
        with torch.no_grad():
            query = self._embed({})
        injected, penalty = self.injected(query)
        logits = self.scale * self._embed(injected) @ self.texts.T
        loss = functional.cross_entropy(logits, self.label) + penalty
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.item()

    def _embed(self, injected: dict[str, torch.Tensor]) -> torch.Tensor:
        repeated = {
            name: x.repeat_interleave(self.frames, 0) for name, x in injected.items()
        }
        embedded = torch_tower.embed(self.tower, self.pixels, **repeated)
        return functional.normalize(
            embedded.unflatten(0, (-1, self.frames)).mean(1), dim=-1
        )

    def _chosen_prompts(self, query: torch.Tensor) -> tuple[dict, torch.Tensor]:
        scores = query @ functional.normalize(self.params["keys"], dim=-1).T
        best, chosen = scores.topk(self.options.top_k)
        prompts = self.params["prompts"][chosen].flatten(1, 2)[:, None]
        return {"prompts": prompts}, -self.options.key_pull * best.sum(1).mean()

    def _weighed_prefixes(self, query: torch.Tensor) -> tuple[dict, torch.Tensor]:
        attention, keys = self.params["attention"], self.params["keys"]
        seen = query[:, None, None] * attention
        weights = functional.cosine_similarity(seen, keys[None], dim=-1)
        prefixes = torch.einsum("bsl,sljpw->bljpw", weights, self.params["prefixes"])
        penalty = torch.zeros(())
        for vectors in self.params.values():
            for i in range(vectors.shape[1]):
                flat = vectors[:, i].flatten(1)
                square = (flat @ flat.T - torch.eye(len(flat))) ** 2
                penalty = penalty + square.mean()
        return {"prefixes": prefixes}, self.options.orthogonality * penalty


if __name__ == "__main__":
    main()
