"""What a method is: a tuple of pure functions, and the defaults they are built from.

In the order of a task: `prepare` passes over its frozen queries, `begin_task` follows,
`loss` trains, `observe` passes over its samples, `end_task` closes it.

A method never calls the tower. `inject` says what goes into it, and `loss`, `observe`
and `predict` take what came out. So the learner can count passes, cache the tower's
outputs for test samples, and show embeddings, without any change to a method. None of
the functions does I/O or compiles; the learner does. Wrappers replace fields of the
tuple.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mmcl_jax.fields import Sharing
from mmcl_jax.models.adapters import Adapter
from mmcl_jax.models.injection import Injection
from mmcl_jax.models.model import Model
from mmcl_jax.models.specs import layer_width
from mmcl_jax.ops import losses
from mmcl_jax.ops.relevance import modalities_of
from mmcl_jax.types import (
    Batch,
    Capacity,
    Classes,
    Context,
    Key,
    Memory,
    Metrics,
    Params,
    Prediction,
    PyTree,
)

LabelSpace = Literal["task", "modality_seen", "all_seen"]


class Common(NamedTuple):
    """What a run chooses for every method, whatever options of its own it has.

    Attributes:
        adapter: What is trained inside the towers.
        sharing: Which modalities share it, see `methods.sharing`.
        label_space: Classes that the training loss is over, see `label_space`.
        class_context: Number of learnt vectors in front of class names; None: none.
    """

    adapter: Adapter
    sharing: Sharing
    label_space: LabelSpace
    class_context: int | None = None


class Pass(NamedTuple):
    """One pass of a batch through its tower.

    Attributes:
        injection: What the adapter adds, per sample.
        when: Whether the pass is needed, traced; otherwise its embedding is zero and
            costs nothing. None: it always is.
    """

    injection: Injection
    when: Bool[Array, ""] | None = None


class Features(NamedTuple):
    """What came out of the tower.

    Attributes:
        embeddings: Unit embeddings of each pass, in the order of `inject`.
        layers: Features of the last frozen blocks before the final one; None unless the
            method has `layer_blocks`.
        adapted_layers: The same of each pass, under what it injects; none unless the
            method `observes_layers`.
    """

    embeddings: tuple[Float[Array, "b d"], ...] = ()
    layers: Float[Array, "b k"] | None = None
    adapted_layers: tuple[Float[Array, "b k"], ...] = ()


def _nothing(params: Params, context: Context, batch: Batch) -> tuple[Pass, ...]:
    del params, context, batch
    return ()


def _unconstrained(updates: PyTree, params: Params, context: Context) -> PyTree:
    del params, context
    return updates


class Method(NamedTuple):
    """A way to learn a stream.

    If `begin_task` or `end_task` had to add a number to the diagonal of a matrix to
    solve it, they store that number in entries of the memory named `jitter`, which are
    reported.

    Attributes:
        init: Returns params and memory for a capacity, of a structure that does not
            depend on it. Along an axis of class slots or stages, what a slot starts
            with must not depend on how many there are: when a stream outgrows the
            capacity, the arrays are initialized anew with twice as many slots, and the
            old values are written over those in front.
        loss: The scalar that is minimised, and metrics to log.
        predict: Logits over all class slots, and modality scores.
        trainable: Tree like params of 0/1 arrays that broadcast to them; where it is
            0 a parameter stays bitwise the same.
        prepare: Memory after one more batch of the task's queries; `batch.inputs` is
            empty. Called over the whole task before it is trained.
        begin_task: Params and memory with which training starts.
        observe: Memory after one more batch of the trained task's samples.
        end_task: Params and memory that the task leaves behind.
        inject: Passes through the tower whose embeddings `loss`, `observe` and
            `predict` get, in `context.phase` "train", "observe" and "predict". It reads
            no inputs, so the passes of a prediction are known before a sample is
            decoded: while they stay bitwise the same, the tower's outputs for a test
            sample are reused after the next stages. `()`: frozen views suffice.
        layer_blocks: Number of last frozen blocks whose layer features come with each
            batch.
        observes_layers: Whether these features come for each pass too. Then none come
            in training.
        constrain: The optimizer's updates (before the step size) as they may be
            applied: a projection here is exact, whatever the optimizer does.
        after_step: Memory after the parameters have moved; None: it stays as it was.
        uses_hint: Whether a prediction depends on the modality hint.
        hint_matters: Rows whose prediction the hint may change `[b]`; None: any. Where
            it changes none of a batch, one pass serves both routes.
        needs_inputs: Whether anything but the cached views of the frozen tower, queries
            and layer features, is read; otherwise inputs are not decoded again.
        drives_tower: Whether `loss`, `observe` or `predict` call `model.embed` with
            `context.frozen` and `batch.inputs` themselves, which only a user-defined
            method needs to (prompts in pixels, a tower that is tuned). Its predictions
            are recomputed after every stage.
        trains: Whether there is anything to minimise.
        observes: Whether `observe` does anything.
    """

    init: Callable[[Key, Capacity], tuple[Params, Memory]]
    loss: Callable[
        [Params, Context, Batch, Features, Key], tuple[Float[Array, ""], Metrics]
    ]
    predict: Callable[[Params, Context, Batch, Features], Prediction]
    trainable: Callable[[Params, Context], PyTree]
    prepare: Callable[[Params, Context, Batch, Key], Memory]
    begin_task: Callable[[Params, Context, Key], tuple[Params, Memory]]
    observe: Callable[[Params, Context, Batch, Features, Key], Memory]
    end_task: Callable[[Params, Context, Key], tuple[Params, Memory]]
    inject: Callable[[Params, Context, Batch], tuple[Pass, ...]] = _nothing
    layer_blocks: int = 0
    observes_layers: bool = False
    constrain: Callable[[PyTree, Params, Context], PyTree] = _unconstrained
    after_step: Callable[[Params, Context, Batch], Memory] | None = None
    uses_hint: bool = False
    hint_matters: Callable[[Params, Context, Batch], Bool[Array, " b"]] | None = None
    needs_inputs: bool = True
    drives_tower: bool = False
    trains: bool = True
    observes: bool = False


def forward(
    method: Method, model: Model, params: Params, context: Context, batch: Batch
) -> Features:
    """Returns the tower's outputs for the passes that a method asks for.

    The learner calls it. So do wrappers whose functions need the tower for other
    samples, such as remembered ones.

    Args:
        method: Method whose `inject` says what goes into the tower.
        model: The frozen encoder.
        params: Parameters of the method.
        context: Context with the frozen weights; its phase decides on the passes.
        batch: Samples of one modality, with their inputs.
    """
    frozen, modality, inputs = context.frozen, batch.modality, batch.inputs
    of_frozen, blocks = method.layer_blocks, 0
    if method.observes_layers:
        of_frozen = blocks = 0 if context.phase == "train" else method.layer_blocks

    def embed(each: Pass) -> tuple[Float[Array, "b d"], Float[Array, "b k"]]:
        def run() -> tuple[Float[Array, "b d"], Float[Array, "b k"]]:
            if blocks:
                return model.embed_layers(
                    frozen, modality, inputs, each.injection, blocks
                )
            embedding = model.embed(frozen, modality, inputs, each.injection)
            return embedding, jnp.zeros((embedding.shape[0], 0))

        if each.when is None:
            return run()
        # a branch, not a select: a pass that is not needed is not computed
        rows = batch.label.shape[0]
        width = layer_width(model.spec.tower(model.tower_of(modality)), blocks)
        nothing = jnp.zeros((rows, model.spec.embedding)), jnp.zeros((rows, width))
        return jax.lax.cond(each.when, run, lambda: nothing)

    layers = batch.layers if of_frozen else None
    if of_frozen and layers is None:
        _, layers = model.embed_layers(frozen, modality, inputs, None, of_frozen)
    passes = [embed(each) for each in method.inject(params, context, batch)]
    embeddings = tuple(embedding for embedding, _ in passes)
    adapted = tuple(found for _, found in passes) if blocks else ()
    return Features(embeddings, layers, adapted)


def label_space(classes: Classes, hint: Array, name: LabelSpace) -> Array:
    """Returns which class slots `[b C]` the training loss of each row is over.

    Args:
        classes: Class slots of the stream.
        hint: Modality index of each row.
        name: `task`: those of the task; `modality_seen`: all seen so far in the row's
            modality; `all_seen`: all seen so far.
    """
    rows = (hint.shape[0], classes.seen.shape[0])
    if name == "task":
        return jnp.broadcast_to(classes.of_task, rows)
    if name == "modality_seen":
        return classes.seen & (classes.modality == hint[:, None])
    return jnp.broadcast_to(classes.seen, rows)


def modalities_now(model: Model, classes: Classes) -> Bool[Array, " m"]:
    """Returns the modalities of the stage."""
    return modalities_of(classes.of_task, classes.modality, len(model.modalities))


def scores_from_logits(
    logits: Float[Array, "b C"], classes: Classes, num_modalities: int
) -> Float[Array, "b m"]:
    """Returns the largest logit of a seen class of each modality.

    By these scores a method without a router predicts the modality of a sample.
    """
    of = classes.modality[:, None] == jnp.arange(num_modalities)
    masked = jnp.where(
        of & classes.seen[:, None], logits[:, :, None], jnp.finfo(logits.dtype).min
    )
    return masked.max(axis=1)


def text_logits(
    features: Float[Array, "b d"], classes: Classes, scale: float
) -> Float[Array, "b C"]:
    """Returns scaled cosines of unit features and class texts; masked for no class."""
    logits = scale * features @ classes.text.T
    return (
        logits if classes.named is None else losses.mask_logits(logits, classes.named)
    )


def alignment(
    model: Model,
    features: Float[Array, "b d"],
    context: Context,
    batch: Batch,
    train_label_space: LabelSpace,
) -> tuple[Float[Array, ""], Metrics]:
    """Returns the cross-entropy of scaled cosines `s z · u_c` over the label space."""
    logits = text_logits(features, context.classes, model.logit_scale)
    allowed = label_space(context.classes, batch.hint, train_label_space)
    value = losses.cross_entropy(logits, batch.label, batch.weight, allowed)
    hit = losses.mask_logits(logits, allowed).argmax(-1) == batch.label
    accuracy = losses.weighted_mean(hit, batch.weight)
    return value, {"alignment": value, "accuracy": accuracy}


# `(features, context, batch) -> term of the loss, and metrics`
Penalty = Callable[[Features, Context, Batch], tuple[Float[Array, ""], Metrics]]
Embed = Callable[[Params, Context, Batch, Features], Float[Array, "b d"]]


def first_embedding(
    params: Params, context: Context, batch: Batch, features: Features
) -> Float[Array, "b d"]:
    """Returns the embeddings of the first pass."""
    del params, context, batch
    return features.embeddings[0]


def frozen_query(
    params: Params, context: Context, batch: Batch, features: Features
) -> Float[Array, "b d"]:
    """Returns the cached feature of the frozen tower."""
    del params, context, features
    return batch.query


def aligned(
    model: Model,
    init: Callable[[Key, Capacity], tuple[Params, Memory]],
    train_label_space: LabelSpace,
    inject: Callable[[Params, Context, Batch], tuple[Pass, ...]] = _nothing,
    embed: Embed = first_embedding,
    penalty: Penalty | None = None,
) -> Method:
    """Returns the method that aligns embeddings to the class texts, and no more.

    Args:
        model: The encoder's static facts.
        init: Field `init` of the method.
        train_label_space: Classes that the loss is over, see `label_space`.
        inject: Field `inject` of the method.
        embed: Function from the tower's outputs to unit embeddings of a batch.
        penalty: Term added to the loss; None: there is none.
    """

    def loss(
        params: Params, context: Context, batch: Batch, features: Features, key: Key
    ) -> tuple[Float[Array, ""], Metrics]:
        del key
        z = embed(params, context, batch, features)
        value, metrics = alignment(model, z, context, batch, train_label_space)
        if penalty is None:
            return value, metrics
        added, more = penalty(features, context, batch)
        return value + added, metrics | more

    def predict(
        params: Params, context: Context, batch: Batch, features: Features
    ) -> Prediction:
        z = embed(params, context, batch, features)
        logits = text_logits(z, context.classes, model.logit_scale)
        return Prediction(
            logits, scores_from_logits(logits, context.classes, len(model.modalities))
        )

    return Method(
        init=init,
        loss=loss,
        predict=predict,
        trainable=lambda params, context: jax.tree.map(lambda _: jnp.ones(()), params),
        prepare=lambda params, context, batch, key: context.memory,
        begin_task=lambda params, context, key: (params, context.memory),
        observe=lambda params, context, batch, features, key: context.memory,
        end_task=lambda params, context, key: (params, context.memory),
        inject=inject,
    )
