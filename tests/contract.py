"""Cases of the methods' contract: a method, and a stream that it is taught.

The features are random, and told apart.
"""

import contextlib
import functools
import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
import pytest

from mmcl_jax import config, plugins
from mmcl_jax.methods.comm.method import Options as CommOptions
from mmcl_jax.methods.klda import Options as KldaOptions
from mmcl_jax.methods.l2p import Options as L2POptions
from mmcl_jax.methods.layup import Options as LayupOptions
from mmcl_jax.methods.rail import Options as RailOptions
from mmcl_jax.methods.ranpac import Options as RanpacOptions
from mmcl_jax.methods.rapf import Options as RapfOptions
from mmcl_jax.methods.registry import METHODS
from mmcl_jax.methods.ridge import Options as RidgeOptions
from mmcl_jax.modalities import MODALITIES
from mmcl_jax.models import encoder as encoders
from mmcl_jax.models.model import Model
from mmcl_jax.models.pretrained import Encoder
from mmcl_jax.models.specs import EncoderSpec, with_trunks
from mmcl_jax.ops.optim import OptimizerOptions
from mmcl_jax.parallel import sharding
from mmcl_jax.training import build, class_slots, learner
from mmcl_jax.types import Batch, Capacity, Classes

ROWS = 8  # of a batch
TRAIN, TEST = 12, 8  # samples of a task: the second training batch is half padding
HALF, STAGES = 6, 12

_adapter = functools.partial(config.AdapterOptions, length=2, rank=2)


def _options(
    name: str = "comm",
    kind: str = "deep_prompts",
    context: int | None = None,
    **sections: Any,
):
    # heads that are well conditioned on a dozen samples
    heads = {
        "ridge": RidgeOptions(regularization=0.1),
        "ranpac": RanpacOptions(width=32, regularization=0.1),
        "layup": LayupOptions(regularization=0.1),
        "rail": RailOptions(width=32, regularization=0.03),
        "klda": KldaOptions(width=32, regularization=0.1),
        # random texts are far from each other, and should be neighbours
        "rapf": RapfOptions(threshold=2.0),
        # as small as other adapters here: a prompt's gradient is of several samples
        "l2p": L2POptions(pool=4, length=2, top_k=2),
    }
    adapter = _adapter(kind, context=context)
    return config.MethodOptions(name, adapter=adapter, **heads | sections)


def _own_methods() -> dict[str, Any]:
    """Returns options of the methods of the user's own that are to be tested."""
    found = {}
    for path in filter(None, os.environ.get(plugins.VARIABLE, "").split(os.pathsep)):
        module = plugins.run(path)
        chosen = {"module": module, "options": ()}
        if kind := plugins.options(module):
            chosen["options"] = kind()
        for name in plugins.methods(module):
            found[name] = _options(name, **chosen)
    return found


OWN = _own_methods()
# of class names
LEARNERS = ("comm", "sequential")
ALL, SIGHTS = ("image", "video", "text"), ("image", "video")
_PLAIN = CommOptions(
    aggregation="latest",
    self_regularization=None,
    blend="none",
    warm_start=False,
    realignment="text",
)
_COMM = {
    "comm plain": _PLAIN,
    "comm residual": CommOptions(blend="residual"),
    "comm parameters": CommOptions(
        aggregation="latest",
        self_regularization_form="parameters",
        self_weight=None,
        transport=False,
        blocks=1,
    ),
}
# with its defaults; "joint" is "sequential", as method_relations_test.py says
PLAIN = [name for name in (*METHODS, *OWN) if name != "joint"]
CASES = (
    {name: (_options(name), ALL) for name in PLAIN if name not in OWN}
    | {name: (options, ALL) for name, options in OWN.items()}
    | {"comm low-rank": (_options("comm", "low_rank"), SIGHTS)}
    | {f"{name} context": (_options(name, context=2), ALL) for name in LEARNERS}
    | {name: (_options(comm=switches), SIGHTS) for name, switches in _COMM.items()}
)
# what some of them become where there is nothing to tell them apart
ALONE = {
    "sequential alone": (_options("sequential"), ("image",)),
    "sequential sights": (_options("sequential"), SIGHTS),
    "comm plain alone": (CASES["comm plain"][0], ("image",)),
}


# In every suite: COMM, the closed form of its parts, a pool of prompts and a recursive
# head. The other cases run when a method, the towers or the training have changed.
ALWAYS = ("comm", "comm_plus", "l2p", "rail", *OWN)


def over(names: Iterable[str], part: str) -> pytest.MarkDecorator:
    """Runs a test with the bench of each case, all tests of a case in one worker.

    Args:
        names: Names of the cases.
        part: What of `full.PARTS` the cases belong to that are not of `ALWAYS`.
    """
    benches = [
        pytest.param(name, marks=[pytest.mark.xdist_group(name), *_marks(name, part)])
        for name in names
    ]
    return pytest.mark.parametrize("bench", benches, indirect=True)


def _marks(name: str, part: str) -> list[pytest.MarkDecorator]:
    return [] if name in ALWAYS else [pytest.mark.full(part)]


cases = over(CASES, "methods")

Tree = Any


class Bench:
    """A compiled method, and a stream of classes that random prototypes stand for.

    The first task has a single class. Later ones have two, of a modality in turn after
    the first two; every class is met once.
    """

    def __init__(
        self,
        encoder: Encoder,
        case: str,
        devices: int = 1,
        model: int = 1,
        layout: sharding.Layout = "replicated",
    ) -> None:
        spec = with_trunks(encoder.spec, sharded=layout == "sharded")
        encoder = encoder._replace(spec=spec)
        self.case, self.encoder = case, encoder
        options, modalities = (CASES | ALONE)[case]
        self.modalities = modalities
        turns = [modalities[0], *modalities * STAGES]
        self.tasks = [
            (turns[i], [0] if i == 0 else [2 * i - 1, 2 * i]) for i in range(STAGES)
        ]
        slots = [self.modalities.index(name) for name, own in self.tasks for _ in own]
        self.slots = np.array(slots)
        scale = float(np.exp(encoder.frozen["log_scale"]))
        self.model = Model(
            spec=encoder.spec,
            modalities=self.modalities,
            logit_scale=scale,
            input_shapes=build.input_shapes(encoder.inputs, modalities),
            embed=functools.partial(encoders.embed, encoder.spec),
            embed_layers=functools.partial(encoders.embed_layers, encoder.spec),
        )
        self.room = Capacity(len(slots), STAGES)
        self.config = config.Config(
            method=options,
            train=config.TrainOptions(
                optimizer=OptimizerOptions(learning_rate=1e-2, weight_decay=0.1)
            ),
        )
        self.mesh = sharding.make_mesh(jax.devices()[:devices], model)
        self.learner = self.make_learner()
        self.method = build.method_of(self.config)(self.model)
        self.frozen = jax.tree_util.tree_map_with_path(
            lambda path, leaf: sharding.put_weight(
                jax.tree_util.keystr(path, simple=True, separator="/"),
                leaf,
                self.mesh,
                layout,
            ),
            encoder.frozen,
        )
        text = np.random.default_rng(1).normal(size=(len(slots), 16))
        text /= np.linalg.norm(text, axis=1, keepdims=True)
        self.text = text.astype(np.float32)

    def make_learner(self) -> learner.Learner:
        return learner.make_learner(
            build.method_of(self.config),
            self.model,
            self.config.train.optimizer,
            seed=0,
            mesh=self.mesh,
        )

    def classes(
        self,
        stage: int,
        of_task: Sequence[int] | None = None,
        room: int | None = None,
    ) -> Classes:
        seen = sum((own for _, own in self.tasks[: stage + 1]), [])
        own = self.tasks[stage][1] if of_task is None else of_task
        tokens = None
        if self.config.method.adapter.context is not None:
            labels = np.arange(len(self.slots))
            tokens = _inputs(self.encoder, "text", labels, seed=0)["tokens"]
        return class_slots.make_classes(
            self.text, self.slots, seen, own, self.mesh, tokens, room
        )

    def at(self, stage: int) -> tuple:
        return self.frozen, self.classes(stage), np.int32(stage)

    def rows(self, stage: int, test: bool = False) -> Batch:
        """Samples of a task as one NumPy batch, classes in turn."""
        modality, own = self.tasks[stage]
        number = TEST if test else TRAIN
        label = np.resize(own, number).astype(np.int32)
        seed = 2 * stage + test
        inputs = _inputs(self.encoder, modality, label, seed)
        return Batch(
            inputs=inputs,
            query=_queries(self.encoder, modality, inputs, seed),
            label=label,
            weight=np.ones(number, np.float32),
            id=np.arange(number, dtype=np.int32),
            hint=np.full(number, self.modalities.index(modality), np.int32),
            modality=modality,
            layers=self._layers(modality, inputs, seed),
        )

    def _layers(self, modality: str, inputs: dict, seed: int) -> np.ndarray | None:
        """Returns cached layer features, if the method has them."""
        if not (blocks := self.method.layer_blocks):
            return None
        key = (self.encoder.fingerprint, modality, seed, blocks)
        if key not in _QUERIES:
            given = self.encoder.frozen, modality, inputs, None, blocks
            _, layers = _embed_layers(self.encoder.spec)(*given)
            _QUERIES[key] = np.asarray(layers)
        return _QUERIES[key]

    def batches(self, stage: int) -> list[Batch]:
        rows = self.rows(stage)
        return [take(rows, range(i, min(i + ROWS, TRAIN))) for i in (0, ROWS)]

    def put(self, batch: Batch) -> Batch:
        return sharding.put_batch(batch, self.mesh)

    def learn(self, state: learner.LearnerState, stages: Sequence[int]) -> "History":
        """Learns some stages one after the other and keeps what passes by."""
        kept = History()
        for stage in stages:
            with compilations() as compiled:
                state = self._learn(state, stage, kept)
            kept.compiled[stage] = len(compiled)
            kept.ended[stage] = host(state)
            kept.traces[stage] = dict(self.learner.traces)
        kept.state = state
        return kept

    def _learn(self, state, stage: int, kept: "History") -> learner.LearnerState:
        at, batches = self.at(stage), [self.put(b) for b in self.batches(stage)]
        for i, batch in enumerate(batches):
            bare = batch.replace(inputs={})
            state = self.learner.prepare(state, *at, bare, np.int32(i))
        state = self.learner.begin_task(state, *at)
        kept.begun[stage] = host(state)
        if self.method.trains:
            for batch in batches:
                steps = np.int32(len(batches))
                state, metrics = self.learner.train_step(state, *at, steps, batch)
                kept.metrics.setdefault(stage, []).append(host(metrics))
                kept.middle.setdefault(stage, host(state))
        kept.trained[stage] = host(state)
        if self.method.observes:
            for i, batch in enumerate(batches):
                state = self.learner.observe(state, *at, batch, np.int32(i))
        return self.learner.end_task(state, *at)

    def predict(
        self, state: Tree, stage: int, batch: Batch, classes: Classes | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Logits and modality scores, `[routes, b, ...]`."""
        frozen, met, task = self.at(stage)
        result = self.learner.predict(
            sharding.put(state, self.mesh),
            frozen,
            classes or met,
            task,
            self.put(batch),
        )
        return np.asarray(result.logits), np.asarray(result.modality)

    def last_of(self, modality: str) -> int:
        """The last task of a modality."""
        return max(i for i, (name, _) in enumerate(self.tasks) if name == modality)

    @functools.cached_property
    def history(self) -> "History":
        """The whole stream; the first task's model has been asked about modalities
        that it has never seen."""
        first = self.learn(self.learner.init(self.room), [0])
        first.initial = host(self.learner.init(self.room))
        first.strange = [
            self.predict(first.ended[0], 0, self.rows(self.last_of(m), test=True))
            for m in self.modalities
        ]
        rest = self.learn(first.state, range(1, STAGES))
        first.absorb(rest)
        return first


class History:
    """What was seen of a stream, on the host, by stage; `state` is on the devices."""

    def __init__(self) -> None:
        self.begun, self.middle, self.trained, self.ended = {}, {}, {}, {}
        self.metrics, self.compiled, self.traces = {}, {}, {}
        self.state = self.initial = None
        self.strange = []

    def absorb(self, later: "History") -> None:
        for name, value in vars(later).items():
            if isinstance(value, dict):
                getattr(self, name).update(value)
        self.state = later.state


def _inputs(encoder: Encoder, modality: str, label: np.ndarray, seed: int) -> dict:
    rng = np.random.default_rng([seed, len(label)])
    spec = encoder.spec
    if MODALITIES[modality].tower == "text":
        tokens = np.full((len(label), spec.text.context_length), 0, np.int32)
        tokens[:, 0], tokens[:, 7] = 2, spec.text.end_token
        tokens[:, 1:4] = 20 + label[:, None]
        tokens[:, 4:7] = rng.integers(50, 300, (len(label), 3))
        return {"tokens": tokens}
    frames = encoder.inputs.frames if modality == "video" else 1
    shape = (frames, *spec.reader("visual").image_size, 3)
    prototypes = [np.random.default_rng([7, c]).normal(size=shape) for c in label]
    noise = rng.normal(size=(len(label), *shape))
    return {"pixels": (np.stack(prototypes) + 0.5 * noise).astype(np.float32)}


@functools.cache
def _embed(spec: EncoderSpec):
    return jax.jit(functools.partial(encoders.embed, spec), static_argnums=1)


@functools.cache
def _embed_layers(spec: EncoderSpec):
    layers = functools.partial(encoders.embed_layers, spec)
    return jax.jit(layers, static_argnums=(1, 4))


# of the samples of each seed; all cases of an encoder share them
_QUERIES: dict[tuple, np.ndarray] = {}


def _queries(encoder: Encoder, modality: str, inputs: dict, seed: int) -> np.ndarray:
    key = (encoder.fingerprint, modality, seed)
    if key not in _QUERIES:
        _QUERIES[key] = np.asarray(
            _embed(encoder.spec)(encoder.frozen, modality, inputs)
        )
    return _QUERIES[key]


def take(batch: Batch, rows: Sequence[int], pad: str = "zeros") -> Batch:
    """Chosen rows in front, padding of weight 0 behind them.

    `pad` says what the padding holds: "zeros", or "rubbish": NaN and numbers that are
    no class, no token and no modality.
    """
    rows = list(rows)
    rubbish = {"weight": 0, "id": -1} if pad == "rubbish" else {}

    def fill(path, column):
        name = path[0].name
        value = 0
        if pad == "rubbish":
            value = np.nan if column.dtype.kind == "f" else -(10**6)
        value = rubbish.get(name, value)
        padding = np.full((ROWS - len(rows), *column.shape[1:]), value, column.dtype)
        return np.concatenate([column[rows], padding])

    return jax.tree_util.tree_map_with_path(fill, batch)


def host(tree: Tree) -> Tree:
    return jax.tree.map(np.array, tree)


def signature(tree: Tree) -> list:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return [
        (jax.tree_util.keystr(path), x.shape, x.dtype, x.weak_type, x.sharding)
        for path, x in leaves
    ]


def digest(tree: Tree) -> str:
    parts = [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)]
    return hashlib.sha256(b"".join(parts)).hexdigest()


def assert_same(left: Tree, right: Tree) -> None:
    """Every leaf is bitwise equal."""
    jax.tree_util.tree_map_with_path(
        lambda path, a, b: np.testing.assert_array_equal(
            a, b, jax.tree_util.keystr(path)
        ),
        left,
        right,
    )


def assert_near(left: Tree, right: Tree, tolerance: float, least: float = 1e-3) -> None:
    """Leaves differ by at most `tolerance` of their largest entry, or of `least`."""

    def check(path, a, b):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        limit = tolerance * np.abs(b).max(initial=least)
        np.testing.assert_allclose(
            a, b, rtol=0, atol=limit, err_msg=jax.tree_util.keystr(path)
        )

    jax.tree_util.tree_map_with_path(check, left, right)


@contextlib.contextmanager
def compilations() -> Iterator[list]:
    """Collects a mark for every program that is compiled."""
    marks, listening = [], [True]

    def listen(event: str, *_: object, **__: object) -> None:
        if listening[0] and event == "/jax/core/compile/backend_compile_duration":
            marks.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield marks
    finally:
        listening[0] = False
