"""The jit boundaries: the only file that compiles.

Every function is traced once per modality, whatever the number of tasks: the task, its
classes and its number of steps are traced, the modality of a batch is static.
"""

import collections
import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int

from mmcl_jax.methods.base import Method
from mmcl_jax.models import Model
from mmcl_jax.ops import optim, rngs
from mmcl_jax.parallel import sharding
from mmcl_jax.training import forwards as forwards_of
from mmcl_jax.types import (
    Batch,
    Classes,
    Context,
    Memory,
    Metrics,
    Params,
    Prediction,
    PyTree,
)


@flax.struct.dataclass
class LearnerState:
    """Everything that training changes.

    Attributes:
        params: trained.
        memory: remembered; the method's own.
        optimizer: of this task, made anew for each.
        step: steps done in this task.
        refused: of them, those whose loss, gradient or outcome was not finite.
    """

    params: Params
    memory: Memory
    optimizer: PyTree
    step: Int[Array, ""]
    refused: Int[Array, ""]


class Learner(NamedTuple):
    """Compiled functions; `frozen` and `classes` are arguments, never constants.

    Attributes:
        init: `() -> state`.
        query: `(frozen, batch) -> un-prompted features [b d]`.
        prepare: `(state, frozen, classes, task, batch, index) -> state`.
        begin_task: `(state, frozen, classes, task) -> state`.
        train_step: `(state, frozen, classes, task, steps, batch) -> state, metrics`.
            A step whose loss, gradient or outcome is not finite changes nothing but
            the counts; nor does any step of the task that follows it, unless such are
            skipped.
        observe: as `prepare`, with the batch's inputs.
        end_task: as `begin_task`.
        health: `(state) -> whether all that was learnt and is remembered is finite`,
            and the largest `jitter` in the memory.
        predict: `(state, frozen, classes, task, batch) -> Prediction` with routes
            stacked in front: `[2, b, ...]` given and predicted, or `[1, b, ...]` where
            the method takes no hint.
        answer: as `predict`, what the tower gives, a tuple by route, see `forwards`.
        conclude: `(state, frozen, classes, task, batch, answers) -> Prediction`, as
            `predict`, and the digests of what was injected, routes in front; reads no
            inputs.
        uncut: as `predict`, why its batches cannot be predicted by `answer` and
            `conclude`; None: they can. Reads no inputs and computes nothing.
        traces: how often each function was traced, by its name and the modality.
        forwards: passes through a tower in each function's last trace.
    """

    init: Callable[..., LearnerState]
    query: Callable[..., Float[Array, "b d"]]
    prepare: Callable[..., LearnerState]
    begin_task: Callable[..., LearnerState]
    train_step: Callable[..., tuple[LearnerState, Metrics]]
    observe: Callable[..., LearnerState]
    end_task: Callable[..., LearnerState]
    health: Callable[..., tuple[Bool[Array, ""], Float[Array, ""]]]
    predict: Callable[..., Prediction]
    answer: Callable[..., tuple]
    conclude: Callable[..., tuple[Prediction, forwards_of.Digests]]
    uncut: Callable[..., str | None]
    traces: collections.Counter
    forwards: dict[str, int]


def make_learner(
    make_method: Callable[[Model], Method],
    model: Model,
    options: optim.OptimizerOptions,
    seed: int,
    mesh: Mesh,
    skip_nonfinite: bool = False,
) -> Learner:
    """Compiles a method (lazily) for a mesh.

    Args:
        make_method: builds the method around a model.
        model: the frozen encoder's static facts.
        options: of the optimizer.
        seed: of initial values and of every later draw of the method.
        mesh: devices; batches are cut over them.
        skip_nonfinite: whether a task goes on behind a step that is not finite.
    """
    traces, forwards, calls = collections.Counter(), {}, [0]

    def counting_embed(*args):
        calls[0] += 1
        return model.embed(*args)

    counted = model._replace(embed=counting_embed)
    method = make_method(counted)
    optimizer = optim.make(options)

    def compiled(function: Callable, donate: tuple[int, ...] = ()) -> Callable:
        name = function.__name__

        @functools.wraps(function)
        def traced(*args):
            traces[name, _modality(args)] += 1
            calls[0] = 0
            with sharding.computing_on(mesh):
                result = function(*args)
            forwards[name] = calls[0]
            return result

        return jax.jit(
            traced, donate_argnums=donate, out_shardings=sharding.replicated(mesh)
        )

    def context(state: LearnerState, frozen, classes, task, train: bool) -> Context:
        return Context(frozen, state.memory, task, classes, train)

    def started(params: Params, memory: Memory) -> LearnerState:
        none = jnp.zeros((), jnp.int32)
        return LearnerState(params, memory, optimizer.init(params), none, none)

    def init() -> LearnerState:
        return started(*method.init(rngs.key(seed, "init"), counted))

    def query(frozen: PyTree, batch: Batch) -> Float[Array, "b d"]:
        return counted.embed(frozen, batch.modality, _clean(batch).inputs, None)

    def prepare(state, frozen, classes, task, batch, index) -> LearnerState:
        memory = method.prepare(
            state.params,
            context(state, frozen, classes, task, True),
            _clean(batch),
            rngs.key(seed, "prepare", task, index),
        )
        return dataclasses.replace(state, memory=memory)

    def begin_task(state, frozen, classes, task) -> LearnerState:
        params, memory = method.begin_task(
            state.params,
            context(state, frozen, classes, task, True),
            rngs.key(seed, "begin", task),
        )
        return started(params, memory)

    def train_step(state, frozen, classes, task, steps, batch):
        at = context(state, frozen, classes, task, True)
        mask = method.trainable(state.params, at)
        key = rngs.key(seed, "step", task, state.step)

        def loss(params):
            return method.loss(params, at, _clean(batch), key)

        (value, metrics), gradient = jax.value_and_grad(loss, has_aux=True)(
            state.params
        )
        gradient = optim.masked(gradient, mask)
        updates, optimizer_state = optimizer.update(
            gradient, state.optimizer, state.params
        )
        updates = method.constrain(updates, state.params, at)
        size = optim.step_size(options, state.step, steps)
        params = optim.apply(state.params, updates, mask, size)
        memory = state.memory
        if method.after_step is not None:
            memory = method.after_step(params, at, _clean(batch))
        norm = optax.tree.norm(gradient)
        finite = jnp.isfinite(value) & jnp.isfinite(norm) & _finite((params, memory))
        moves = finite & (skip_nonfinite | (state.refused == 0))
        metrics = metrics | {
            "loss": value,
            "gradient_norm": norm,
            "learning_rate": size,
            "finite": finite,
        }
        params, memory, optimizer_state = jax.tree.map(
            lambda new, old: new if new is old else jnp.where(moves, new, old),
            (params, memory, optimizer_state),
            (state.params, state.memory, state.optimizer),
        )
        refused = state.refused + ~finite
        return (
            LearnerState(params, memory, optimizer_state, state.step + 1, refused),
            metrics,
        )

    def observe(state, frozen, classes, task, batch, index) -> LearnerState:
        memory = method.observe(
            state.params,
            context(state, frozen, classes, task, True),
            _clean(batch),
            rngs.key(seed, "observe", task, index),
        )
        return dataclasses.replace(state, memory=memory)

    def end_task(state, frozen, classes, task) -> LearnerState:
        params, memory = method.end_task(
            state.params,
            context(state, frozen, classes, task, True),
            rngs.key(seed, "end", task),
        )
        return dataclasses.replace(state, params=params, memory=memory)

    def health(state: LearnerState) -> tuple[Bool[Array, ""], Float[Array, ""]]:
        return _finite((state.params, state.memory)), _largest_jitter(state.memory)

    def routes(state, frozen, classes, task, batch, forward) -> tuple:
        """Calls `forward` without the hint and, if that may matter, with it."""
        at = context(state, frozen, classes, task, False)
        unhinted = dataclasses.replace(batch, hint=jnp.full_like(batch.hint, -1))
        free = forward(state.params, at, unhinted)
        if not method.uses_hint:
            return (free,)
        if method.hint_matters is None:
            return (forward(state.params, at, batch), free)
        matters = method.hint_matters(state.params, at, batch) & (batch.weight > 0)
        given = jax.lax.cond(
            matters.any(), lambda: forward(state.params, at, batch), lambda: free
        )
        return (given, free)

    def predict(state, frozen, classes, task, batch) -> Prediction:
        batch = _clean(batch)
        found = routes(state, frozen, classes, task, batch, method.predict)
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *found)

    def answer(state, frozen, classes, task, batch) -> tuple:
        forward = functools.partial(forwards_of.answer, make_method, counted)
        return routes(state, frozen, classes, task, _clean(batch), forward)

    def conclude(state, frozen, classes, task, batch, answers):
        left = iter(answers[::-1])  # the last route is called first

        def forward(params, at, batch) -> tuple[Prediction, forwards_of.Digests]:
            return forwards_of.conclude(
                make_method, counted, params, at, batch, next(left)
            )

        bare = forwards_of.without_inputs(_clean(batch))
        found = routes(state, frozen, classes, task, bare, forward)
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *found)

    def uncut(state, frozen, classes, task, batch) -> str | None:
        rows = {
            name: jax.ShapeDtypeStruct((len(batch.label), *leaf.shape), leaf.dtype)
            for name, leaf in model.input_shapes[
                model.modalities.index(batch.modality)
            ].items()
        }
        at, whole = (state, frozen, classes, task), batch.replace(inputs=rows)
        try:
            with sharding.computing_on(mesh):
                answers = jax.eval_shape(answer, *at, whole)
                jax.eval_shape(conclude, *at, batch, answers)
        # of a method's own code, in which anything may go wrong without its inputs
        except Exception as error:  # noqa: BLE001
            return f"{type(error).__name__}: {error}".partition("\n")[0]
        return None

    return Learner(
        init=compiled(init),
        query=compiled(query),
        prepare=compiled(prepare),
        begin_task=compiled(begin_task),
        train_step=compiled(train_step, donate=(0,)),
        observe=compiled(observe),
        end_task=compiled(end_task),
        health=compiled(health),
        predict=compiled(predict),
        answer=compiled(answer),
        conclude=compiled(conclude),
        uncut=uncut,
        traces=traces,
        forwards=forwards,
    )


def make_embed(
    make_method: Callable[[Model], Method], model: Model
) -> Callable[..., Float[Array, "b d"]]:
    """Returns what looks into a prediction: the embedding that it is made from.

    Args:
        make_method: builds the method around a model.
        model: the frozen encoder's static facts.

    Returns:
        `(params, memory, frozen, classes, task, batch) -> unit embeddings [b d]`, what
        the tower gives with the adapters that `predict` chooses under `batch.hint`; the
        frozen features for a method that predicts from these alone.
    """
    given: list[Array] = []

    def watched(*args):
        given.append(model.embed(*args))
        return given[-1]

    method = make_method(model._replace(embed=watched))

    def embed(params, memory, frozen, classes, task, batch):
        batch = _clean(batch)
        method.predict(params, Context(frozen, memory, task, classes, False), batch)
        embedding = given[-1] if given else batch.query
        given.clear()  # tracers must not outlive their trace
        return embedding

    return jax.jit(embed)


def make_classes(
    text: Any, modality: Any, seen: Any, of_task: Any, mesh: Mesh, tokens: Any = None
) -> Classes:
    """Returns the class slots on every device of the mesh.

    Args:
        text: unit text embeddings `[C d]`.
        modality: modality index of each slot `[C]`.
        seen: slots met so far.
        of_task: slots of the current task.
        mesh: where to put them.
        tokens: of the class names `[C n]`; None: no method learns words for them.
    """
    # in NumPy, since the number of seen slots would be a new shape in each task
    rows = np.arange(len(text))
    columns: dict[str, Any] = {
        "text": np.asarray(text, np.float32),
        "seen": np.isin(rows, seen),
        "of_task": np.isin(rows, of_task),
        "modality": np.asarray(modality, np.int32),
        "tokens": None if tokens is None else np.asarray(tokens, np.int32),
    }
    return sharding.put(Classes(**columns), mesh)


def _finite(tree: PyTree) -> Bool[Array, ""]:
    leaves = jax.tree.leaves(tree)
    return jnp.array([jnp.isfinite(leaf).all() for leaf in leaves], bool).all()


def _largest_jitter(memory: Memory) -> Float[Array, ""]:
    leaves = jax.tree_util.tree_leaves_with_path(memory)
    named = [
        jnp.max(leaf)
        for path, leaf in leaves
        if jax.tree_util.keystr(path[-1:], simple=True) == "jitter"
    ]
    return jnp.array([0.0, *named]).max()


def _modality(args: tuple) -> str | None:
    return next((arg.modality for arg in args if isinstance(arg, Batch)), None)


def _clean(batch: Batch) -> Batch:
    """Returns the batch with zeros in rows of weight 0.

    A weight of 0 times a NaN is NaN, so what padding holds must not reach the method.
    """

    def zero(x: Array) -> Array:
        keep = (batch.weight > 0).reshape(-1, *[1] * (x.ndim - 1))
        return jnp.where(keep, x, jnp.zeros_like(x))

    return dataclasses.replace(
        batch,
        inputs=jax.tree.map(zero, batch.inputs),
        query=zero(batch.query),
        label=zero(batch.label),
    )
