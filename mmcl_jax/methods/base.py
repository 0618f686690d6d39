"""What a method is: a tuple of pure functions, and the defaults they are built from.

In the order of a task: `prepare` passes over its frozen queries, `begin_task` follows,
`loss` trains, `observe` passes over its samples, `end_task` closes it. None of them
does I/O or compiles; the learner does. Wrappers replace fields of the tuple.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mmcl_jax.models import Model
from mmcl_jax.ops import losses
from mmcl_jax.types import (
    Batch,
    Classes,
    Context,
    Key,
    Memory,
    Metrics,
    Params,
    Prediction,
    PyTree,
)


def _unconstrained(updates: PyTree, params: Params, context: Context) -> PyTree:
    del params, context
    return updates


class Method(NamedTuple):
    """A way to learn a stream.

    What `begin_task` or `end_task` had to add to the diagonal of a matrix to solve it
    they leave in the memory, in entries of the name `jitter`, which are reported.

    Attributes:
        init: returns params and memory, of fixed structure for the whole stream.
        loss: the scalar that is minimised, and metrics to log.
        predict: logits over all class slots, and modality scores. What the tower
            answers for test samples is kept for later stages if `predict` hands
            `batch.inputs` and `context.frozen` to `model.embed` and
            `model.layer_features` as they are, reads the inputs nowhere else, and calls
            the tower in no loop, branch or other transformation of JAX. It may call it
            several times, with injections that depend on earlier answers. A `predict`
            that does otherwise is right as well; it is run anew in every stage, and a
            line of the log says why.
        trainable: tree like params of 0/1 arrays that broadcast to them; where it is
            0 a parameter is left bitwise as it is.
        prepare: memory after one more batch of the task's queries; `batch.inputs` is
            empty. Called over the whole task before it is trained.
        begin_task: params and memory with which training starts.
        observe: memory after one more batch of the trained task's samples.
        end_task: params and memory that the task leaves behind.
        constrain: the optimizer's updates (before the step size), as they may be
            applied; what is projected here is what the parameters move along.
        after_step: memory after the parameters have moved; None: as it was.
        uses_hint: whether a prediction depends on the modality hint.
        hint_matters: rows whose prediction the hint may change `[b]`; None: any. Where
            it changes none of a batch, one forward serves both routes.
        needs_inputs: whether `loss`, `observe` or `predict` read more than the cached
            queries; otherwise nothing is decoded twice.
        trains: whether there is anything to minimise.
        observes: whether `observe` does anything.
    """

    init: Callable[[Key, Model], tuple[Params, Memory]]
    loss: Callable[[Params, Context, Batch, Key], tuple[Float[Array, ""], Metrics]]
    predict: Callable[[Params, Context, Batch], Prediction]
    trainable: Callable[[Params, Context], PyTree]
    prepare: Callable[[Params, Context, Batch, Key], Memory]
    begin_task: Callable[[Params, Context, Key], tuple[Params, Memory]]
    observe: Callable[[Params, Context, Batch, Key], Memory]
    end_task: Callable[[Params, Context, Key], tuple[Params, Memory]]
    constrain: Callable[[PyTree, Params, Context], PyTree] = _unconstrained
    after_step: Callable[[Params, Context, Batch], Memory] | None = None
    uses_hint: bool = False
    hint_matters: Callable[[Params, Context, Batch], Bool[Array, " b"]] | None = None
    needs_inputs: bool = True
    trains: bool = True
    observes: bool = False


LabelSpace = Literal["task", "modality_seen", "all_seen"]


def label_space(classes: Classes, hint: Array, name: LabelSpace) -> Array:
    """Returns which class slots `[b C]` the training loss of each row is over.

    Args:
        classes: the class slots.
        hint: modality index of each row.
        name: `task`: those of the task; `modality_seen`: all met so far in the row's
            modality; `all_seen`: all met so far.
    """
    rows = (hint.shape[0], classes.seen.shape[0])
    if name == "task":
        return jnp.broadcast_to(classes.of_task, rows)
    if name == "modality_seen":
        return classes.seen & (classes.modality == hint[:, None])
    return jnp.broadcast_to(classes.seen, rows)


def scores_from_logits(
    logits: Float[Array, "b C"], classes: Classes, num_modalities: int
) -> Float[Array, "b m"]:
    """Returns the largest logit of a seen class of each modality.

    It is how a method without a router says which modality it took a sample for.
    """
    of = classes.modality[:, None] == jnp.arange(num_modalities)
    masked = jnp.where(
        of & classes.seen[:, None], logits[:, :, None], jnp.finfo(logits.dtype).min
    )
    return masked.max(axis=1)


def text_logits(
    features: Float[Array, "b d"], classes: Classes, scale: float
) -> Float[Array, "b C"]:
    """Returns scaled cosines of unit features and class texts."""
    return scale * features @ classes.text.T


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


# `(features, context, batch) -> what is added to the loss, and metrics`
Penalty = Callable[
    [Float[Array, "b d"], Context, Batch], tuple[Float[Array, ""], Metrics]
]


def aligned(
    model: Model,
    init: Callable[[Key, Model], tuple[Params, Memory]],
    embed: Callable[[Params, Context, Batch], Float[Array, "b d"]],
    train_label_space: LabelSpace,
    penalty: Penalty | None = None,
) -> Method:
    """Returns the method that aligns `embed` to the class texts, and no more.

    Args:
        model: the encoder's static facts.
        init: of the method.
        embed: unit features of a batch.
        train_label_space: see `label_space`.
        penalty: is added to the loss; it sees the features, so that they are computed
            once.
    """

    def loss(
        params: Params, context: Context, batch: Batch, key: Key
    ) -> tuple[Float[Array, ""], Metrics]:
        del key
        features = embed(params, context, batch)
        value, metrics = alignment(model, features, context, batch, train_label_space)
        if penalty is None:
            return value, metrics
        added, more = penalty(features, context, batch)
        return value + added, metrics | more

    def predict(params: Params, context: Context, batch: Batch) -> Prediction:
        features = embed(params, context, batch)
        logits = text_logits(features, context.classes, model.logit_scale)
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
        observe=lambda params, context, batch, key: context.memory,
        end_task=lambda params, context, key: (params, context.memory),
    )
