"""The jit boundaries: the only file that compiles.

Every function is traced once per modality and capacity, whatever the number of tasks:
the task, its classes and its number of steps are traced, the modality of a batch is
static. Capacities double, so that a stream of n classes has O(log n) of them.

The functions below `make_learner` are compiled, each with the `_Learning` that
`make_learner` binds as its first argument. They are the only callers of a method, so it
is here that batches are cleaned, the tower is run, and a step that is not finite is
refused.
"""

import collections
import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int, UInt32

from mmcl_jax.errors import CodeError
from mmcl_jax.methods.base import Features, Method, forward
from mmcl_jax.models.injection import Injection
from mmcl_jax.models.model import Model
from mmcl_jax.ops import optim, rngs, trees
from mmcl_jax.ops.digest import digest
from mmcl_jax.parallel import sharding
from mmcl_jax.training import forgetting
from mmcl_jax.types import (
    Batch,
    Capacity,
    Classes,
    Context,
    Memory,
    Metrics,
    Params,
    Phase,
    Prediction,
    PyTree,
)


@flax.struct.dataclass
class LearnerState:
    """Everything that training changes.

    Attributes:
        params: Trained parameters.
        memory: Memory of the method.
        optimizer: State of the optimizer, initialized for each task.
        step: Number of steps done in this task.
        refused: Number of steps whose loss, gradient or outcome was not finite.
    """

    params: Params
    memory: Memory
    optimizer: PyTree
    step: Int[Array, ""]
    refused: Int[Array, ""]


# digests of what is injected, for each pass of each route of a prediction
Asked = tuple[tuple[UInt32[Array, " sums"], ...], ...]


class Learner(NamedTuple):
    """Compiled functions; `frozen` and `classes` are arguments, never constants.

    Attributes:
        init: `(capacity) -> state`; the capacity is static.
        grow: `(state, capacity) -> state` with slots that start as those of `init`; old
            ones keep what they hold.
        forget: `(state, slots, capacity) -> state` without what it holds of some class
            slots `[C]` alone, see `forgetting.without_classes`.
        query: `(frozen, batch) -> un-prompted features [b d]`.
        prepare: `(state, frozen, classes, task, batch, index) -> state`.
        begin_task: `(state, frozen, classes, task) -> state`.
        train_step: `(state, frozen, classes, task, steps, batch) -> state, metrics`.
            A step whose loss, gradient or outcome is not finite changes nothing but
            the counts; nor does any step of the task that follows it, unless such
            steps are skipped.
        observe: As `prepare`, with the batch's inputs.
        end_task: As `begin_task`.
        health: `(state) -> whether params and memory are finite`, and the largest
            `jitter` in the memory.
        predict: `(state, frozen, classes, task, batch) -> Prediction` with routes
            stacked in front: `[2, b, ...]` given and predicted, or `[1, b, ...]` if
            the method takes no hint.
        answer: `(state, frozen, classes, task, batch) -> features` by route: the first
            half of `predict`, nearly all of its time.
        conclude: `(state, frozen, classes, task, batch, features)`, the second half,
            which reads no inputs, `-> prediction, asked`. `asked` holds digests of what
            is injected. The tower's features depend on its frozen weights, the samples
            and the injections alone: while these stay the same, bit by bit, stored
            features are those that `answer` would give, whatever else was learnt.
        traces: How often each function was traced, by its name and the modality.
        forwards: Passes through a tower in each function's last trace.
    """

    init: Callable[..., LearnerState]
    grow: Callable[..., LearnerState]
    forget: Callable[..., LearnerState]
    query: Callable[..., Float[Array, "b d"]]
    prepare: Callable[..., LearnerState]
    begin_task: Callable[..., LearnerState]
    train_step: Callable[..., tuple[LearnerState, Metrics]]
    observe: Callable[..., LearnerState]
    end_task: Callable[..., LearnerState]
    health: Callable[..., tuple[Bool[Array, ""], Float[Array, ""]]]
    predict: Callable[..., Prediction]
    answer: Callable[..., tuple[Features, ...]]
    conclude: Callable[..., tuple[Prediction, Asked]]
    traces: collections.Counter
    forwards: dict[str, int]


class _Learning(NamedTuple):
    """What all compiled functions share; static, so a constant of each program."""

    method: Method
    model: Model
    options: optim.OptimizerOptions
    optimizer: optax.GradientTransformation
    seed: int
    skip_nonfinite: bool

    def forward(self, params: Params, context: Context, batch: Batch) -> Features:
        return forward(self.method, self.model, params, context, batch)


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
        make_method: Builds the method around a model.
        model: The frozen encoder's static facts.
        options: Options of the optimizer.
        seed: Seed of initial values and of every later draw of the method.
        mesh: Devices; batches are split over them.
        skip_nonfinite: Whether a task continues after a step that is not finite.
    """
    traces, forwards, calls = collections.Counter(), {}, []
    counted = _counting(model, calls)
    own = _Learning(
        make_method(counted),
        counted,
        options,
        optim.make(options),
        seed,
        skip_nonfinite,
    )

    def compiled(
        function: Callable, donate: tuple[int, ...] = (), static: tuple[int, ...] = ()
    ) -> Callable:
        name = function.__name__.removeprefix("_")

        def traced(*args):
            # Python runs here while JAX traces, and only then: that is what is counted
            traces[name, _modality(args)] += 1
            calls.clear()
            with sharding.computing_on(mesh):
                result = function(own, *args)
            # both routes of a prediction share what no injection has changed
            frozen = sum(injection is None for injection in calls)
            forwards[name] = len(calls) - frozen + min(frozen, 1)
            return result

        traced.__name__ = name
        return jax.jit(
            traced,
            donate_argnums=donate,
            static_argnums=static,
            out_shardings=sharding.replicated(mesh),
        )

    return Learner(
        init=compiled(_init, static=(0,)),
        grow=compiled(_grow, static=(1,)),
        forget=compiled(_forget, static=(2,)),
        query=compiled(_query),
        prepare=compiled(_prepare),
        begin_task=compiled(_begin_task),
        # nothing reads the state before a step again: the new one takes its buffers
        train_step=compiled(_train_step, donate=(0,)),
        observe=compiled(_observe),
        end_task=compiled(_end_task),
        health=compiled(_health),
        predict=compiled(_predict),
        answer=compiled(_answer),
        conclude=compiled(_conclude),
        traces=traces,
        forwards=forwards,
    )


def _counting(model: Model, calls: list[Injection | None]) -> Model:
    """Returns a model that notes what is injected into each pass while it is traced."""

    def counting(function: Callable) -> Callable:
        def call(frozen, modality, inputs, injection, *rest):
            calls.append(injection)
            return function(frozen, modality, inputs, injection, *rest)

        return call

    return model._replace(
        embed=counting(model.embed), embed_layers=counting(model.embed_layers)
    )


def _context(
    state: LearnerState, frozen: PyTree, classes: Classes, task: Array, phase: Phase
) -> Context:
    return Context(frozen, state.memory, task, classes, phase)


def _started(own: _Learning, params: Params, memory: Memory) -> LearnerState:
    none = jnp.zeros((), jnp.int32)
    return LearnerState(params, memory, own.optimizer.init(params), none, none)


def _init(own: _Learning, room: Capacity) -> LearnerState:
    return _started(own, *own.method.init(rngs.key(own.seed, "init"), room))


def _grow(own: _Learning, state: LearnerState, room: Capacity) -> LearnerState:
    # a reservoir, whose rows may become fewer, holds those to keep longest in front
    fresh = own.method.init(rngs.key(own.seed, "init"), room)
    return _started(own, *trees.pasted((state.params, state.memory), fresh))


def _forget(
    own: _Learning, state: LearnerState, slots: Bool[Array, " C"], room: Capacity
) -> LearnerState:
    fresh = own.method.init(rngs.key(own.seed, "init"), room)
    axes = forgetting.class_axes(own.method.init, room)
    learnt = state.params, state.memory
    return _started(own, *forgetting.without_classes(learnt, fresh, axes, slots))


def _query(own: _Learning, frozen: PyTree, batch: Batch) -> Float[Array, "b d_k"]:
    given = frozen, batch.modality, _clean(batch).inputs, None
    if not own.method.layer_blocks:
        return own.model.embed(*given)
    views = own.model.embed_layers(*given, own.method.layer_blocks)
    return jnp.concatenate(views, axis=1)


def _prepare(own: _Learning, state, frozen, classes, task, batch, index):
    context = _context(state, frozen, classes, task, "prepare")
    key = rngs.key(own.seed, "prepare", task, index)
    memory = own.method.prepare(state.params, context, _clean(batch), key)
    return dataclasses.replace(state, memory=memory)


def _begin_task(own: _Learning, state, frozen, classes, task) -> LearnerState:
    context = _context(state, frozen, classes, task, "begin")
    key = rngs.key(own.seed, "begin", task)
    return _started(own, *own.method.begin_task(state.params, context, key))


def _train_step(own: _Learning, state, frozen, classes, task, steps, batch):
    method, batch = own.method, _clean(batch)
    context = _context(state, frozen, classes, task, "train")
    mask = method.trainable(state.params, context)
    key = rngs.key(own.seed, "step", task, state.step)

    def loss(params: Params) -> tuple[Float[Array, ""], Metrics]:
        # inside, since gradients reach what is trained through the tower
        features = own.forward(params, context, batch)
        return method.loss(params, context, batch, features, key)

    (value, metrics), gradient = jax.value_and_grad(loss, has_aux=True)(state.params)
    gradient = optim.masked(gradient, mask)
    updates, optimizer = own.optimizer.update(gradient, state.optimizer, state.params)
    updates = method.constrain(updates, state.params, context)
    size = optim.step_size(own.options, state.step, steps)
    params = optim.apply(state.params, updates, mask, size)
    memory = state.memory
    if method.after_step is not None:
        memory = method.after_step(params, context, batch)
    norm = optax.tree.norm(gradient)
    # memory that a step leaves alone is checked at the end of its pass
    changed = (params,) if memory is state.memory else (params, memory)
    finite = jnp.isfinite(value) & jnp.isfinite(norm) & trees.all_finite(changed)
    # the host hears of a refused step some steps later: until then nothing may move
    moves = finite & (own.skip_nonfinite | (state.refused == 0))
    params, memory, optimizer = jax.tree.map(
        lambda new, old: new if new is old else jnp.where(moves, new, old),
        (params, memory, optimizer),
        (state.params, state.memory, state.optimizer),
    )
    refused = state.refused + ~finite
    state = LearnerState(params, memory, optimizer, state.step + 1, refused)
    return state, metrics | {
        "loss": value,
        "gradient_norm": norm,
        "learning_rate": size,
        "finite": finite,
    }


def _observe(own: _Learning, state, frozen, classes, task, batch, index):
    context = _context(state, frozen, classes, task, "observe")
    batch, key = _clean(batch), rngs.key(own.seed, "observe", task, index)
    features = own.forward(state.params, context, batch)
    memory = own.method.observe(state.params, context, batch, features, key)
    return dataclasses.replace(state, memory=memory)


def _end_task(own: _Learning, state, frozen, classes, task) -> LearnerState:
    context = _context(state, frozen, classes, task, "end")
    key = rngs.key(own.seed, "end", task)
    params, memory = own.method.end_task(state.params, context, key)
    return dataclasses.replace(state, params=params, memory=memory)


def _health(
    own: _Learning, state: LearnerState
) -> tuple[Bool[Array, ""], Float[Array, ""]]:
    del own
    return trees.all_finite((state.params, state.memory)), _largest_jitter(state.memory)


def _routes(own: _Learning, state, frozen, classes, task, batch, route) -> tuple:
    """Calls `route` with the hint and without it, or once if the method takes no hint.

    Args:
        own: What all compiled functions share.
        state: State whose params and memory predict.
        frozen: Weights of the encoder.
        classes: The class slots.
        task: Index of the task.
        batch: Batch with the hint.
        route: `(params, context, batch) -> tree`, whose leaves may depend on the hint.
    """
    context = _context(state, frozen, classes, task, "predict")
    unhinted = dataclasses.replace(batch, hint=jnp.full_like(batch.hint, -1))
    free = route(state.params, context, unhinted)
    if not own.method.uses_hint:
        return (free,)
    if own.method.hint_matters is None:
        return (route(state.params, context, batch), free)
    matters = own.method.hint_matters(state.params, context, batch)
    # padding has no hint that could matter
    matters = (matters & (batch.weight > 0)).any()
    # `cond` runs one branch: a hint that changes nothing costs no second pass
    given = jax.lax.cond(
        matters, lambda: route(state.params, context, batch), lambda: free
    )
    return (given, free)


def _predict(own: _Learning, state, frozen, classes, task, batch) -> Prediction:
    def route(params: Params, context: Context, batch: Batch) -> Prediction:
        features = own.forward(params, context, batch)
        return own.method.predict(params, context, batch, features)

    routes = _routes(own, state, frozen, classes, task, _clean(batch), route)
    return _stacked(routes)


def _answer(own: _Learning, state, frozen, classes, task, batch):
    return _routes(own, state, frozen, classes, task, _clean(batch), own.forward)


def _conclude(own: _Learning, state, frozen, classes, task, batch, features):
    left = iter(features[::-1])  # `_routes` calls the last route first

    def route(params: Params, context: Context, batch: Batch) -> tuple:
        prediction = own.method.predict(params, context, batch, next(left))
        passes = own.method.inject(params, context, batch)
        return prediction, tuple(digest(each) for each in passes)

    try:
        routes = _routes(own, state, frozen, classes, task, _clean(batch), route)
    except KeyError as error:  # while it is traced: the batch has no inputs
        raise CodeError(
            f"the method reads batch.inputs ({error}) in `inject` or `predict`, which "
            "must follow from what the tower gives; a method that needs more says "
            "drives_tower=True, and is then predicted anew after every stage"
        ) from error
    predictions, asked = zip(*routes, strict=True)
    return _stacked(predictions), asked


def _stacked(routes: tuple) -> Any:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *routes)


def make_embed(
    make_method: Callable[[Model], Method], model: Model, mesh: Mesh
) -> Callable[..., Float[Array, "b d"]]:
    """Returns a function that computes the embedding a prediction is made from.

    Args:
        make_method: Builds the method around a model.
        model: The frozen encoder's static facts.
        mesh: Devices; batches are split over them.

    Returns:
        `(params, memory, frozen, classes, task, batch) -> unit embeddings [b d]`: those
        of the tower in the first pass of `predict` under `batch.hint`, or the frozen
        features for a method without such a pass.
    """
    method = make_method(model)

    def embed(params, memory, frozen, classes, task, batch):
        batch = _clean(batch)
        context = Context(frozen, memory, task, classes, "predict")
        with sharding.computing_on(mesh):
            features = forward(method, model, params, context, batch)
        return features.embeddings[0] if features.embeddings else batch.query

    return jax.jit(embed, out_shardings=sharding.replicated(mesh))


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
        layers=None if batch.layers is None else zero(batch.layers),
    )
