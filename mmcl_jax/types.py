"""The arrays that travel between the rooms of the house.

Three kinds of arrays exist: `params` are trained, `memory` is remembered, `frozen` is
never written. Shape letters: `b` batch, `f` frames, `n` tokens, `w` width, `d`
embedding, `l` layers, `p` prompt length, `m` modalities, `C` classes of the stream.
"""

from typing import Any, Literal, NamedTuple

import flax.struct
import jax
from jaxtyping import Array, Bool, Float, Int

PyTree = Any
Params = PyTree
Memory = PyTree
Key = jax.Array
Metrics = dict[str, Float[Array, ""]]
# what a method's function is called for
Phase = Literal["prepare", "begin", "train", "observe", "end", "predict"]


class Classes(NamedTuple):
    """Every class slot of the stream; masks say what has been met.

    A slot is one class name in one modality of one data set, so two data sets with an
    equal class name hold two slots.

    Attributes:
        text: unit-norm embedding of the class name, one row a slot.
        seen: slots of this task and of all earlier ones.
        of_task: slots of this task.
        modality: index of the slot's modality in `Model.modalities`.
        tokens: the class name behind words that a method replaces by what it learns,
            see `methods.class_context`; None: none does.
    """

    text: Float[Array, "C d"]
    seen: Bool[Array, " C"]
    of_task: Bool[Array, " C"]
    modality: Int[Array, " C"]
    tokens: Int[Array, "C n"] | None = None


class Context(NamedTuple):
    """What a method may read in a step; no gradient flows into it.

    Attributes:
        frozen: pretrained weights, an argument of the compiled program.
        memory: the method's own state, of fixed structure for the whole stream.
        task: index of the task, traced.
        classes: the class slots.
        phase: what the method is asked for, set by the learner alone; static.
    """

    frozen: PyTree
    memory: Memory
    task: Int[Array, ""]
    classes: Classes
    phase: Phase

    @property
    def train(self) -> bool:
        """Returns whether the task may be known: it must not be in a prediction."""
        return self.phase != "predict"


@flax.struct.dataclass
class Batch:
    """Samples of one modality.

    Attributes:
        inputs: what the tower takes: `pixels [b, f, h, w, 3]` or `tokens [b, n]`.
        query: cached un-prompted unit-norm feature.
        label: class slot.
        weight: 0 for padding, else 1; every mean is the weighted one.
        id: sample id, unique in the stream; -1 for padding.
        hint: modality index for routing; -1 = not given.
        modality: static; decides the input pipeline and the tower, nothing else.
    """

    inputs: PyTree
    query: Float[Array, "b d"]
    label: Int[Array, " b"]
    weight: Float[Array, " b"]
    id: Int[Array, " b"]
    hint: Int[Array, " b"]
    modality: str = flax.struct.field(pytree_node=False)


class Prediction(NamedTuple):
    """What a method says of each sample.

    Attributes:
        logits: over all class slots of the stream, unmasked.
        modality: scores over modalities, unmasked.
    """

    logits: Float[Array, "b C"]
    modality: Float[Array, "b m"]
