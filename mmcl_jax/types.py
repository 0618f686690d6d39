"""The arrays that the parts of the package exchange.

There are three kinds: `params` are trained, `memory` is remembered, `frozen` is never
written. Shape letters: `b` batch, `f` frames, `n` tokens, `w` width, `d` embedding,
`l` layers, `p` prompt length, `m` modalities, `C` classes of the stream.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import flax.struct
import jax
from jaxtyping import Array, Bool, Float, Int

PyTree = Any
Params = PyTree
Memory = PyTree
Key = jax.Array
# (key, shape) -> standard normal numbers, as `jax.random.normal` draws them
DrawNormal = Callable[[Key, tuple[int, ...]], Array]
Metrics = dict[str, Float[Array, ""]]
# the step of a task that a method's function is called in
Phase = Literal["prepare", "begin", "train", "observe", "end", "predict"]


class Classes(NamedTuple):
    """The class slots that a state has room for; masks tell which have been seen.

    A slot is one class name in one modality of one data set, so two data sets with an
    equal class name hold two slots.

    Attributes:
        text: Unit-norm embedding of the class name of each slot, zeros where there is
            no class.
        seen: Mask of the slots of this task and of all earlier ones.
        of_task: Mask of the slots of this task.
        modality: Index of each slot's modality in `Model.modalities`.
        tokens: Class names after words that the method tunes, as token ids, see
            `methods.class_context`; None if the method tunes none.
        named: Mask of the slots that have a class; the others are room for later ones.
            In training, classes that have not been met have none. None: all have one.
    """

    text: Float[Array, "C d"]
    seen: Bool[Array, " C"]
    of_task: Bool[Array, " C"]
    modality: Int[Array, " C"]
    tokens: Int[Array, "C n"] | None = None
    named: Bool[Array, " C"] | None = None


class Capacity(NamedTuple):
    """Numbers of slots that a state has room for; those in front are in use.

    Attributes:
        classes: Class slots C.
        stages: Slots t of methods that keep something of each stage.
    """

    classes: int
    stages: int


class Context(NamedTuple):
    """What a method may read in a step; no gradient flows into it.

    Attributes:
        frozen: Pretrained weights, an argument of the compiled program.
        memory: The method's state; its arrays grow with the class slots.
        task: Index of the task, traced, so that a new task does not recompile.
        classes: Class slots of the stream.
        phase: Step of the task that the method is called in, set by the learner alone;
            static.
    """

    frozen: PyTree
    memory: Memory
    task: Int[Array, ""]
    classes: Classes
    phase: Phase

    @property
    def train(self) -> bool:
        """Returns whether the task may be read, which a prediction must not do."""
        return self.phase != "predict"


@flax.struct.dataclass
class Batch:
    """Samples of one modality.

    Attributes:
        inputs: Inputs of the tower: `pixels [b, f, h, w, 3]` or `tokens [b, n]`.
        query: Cached un-prompted unit-norm feature.
        label: Index of the class slot.
        weight: Weight, 0 for padding, else 1; every mean over a batch is weighted.
        id: Sample id, unique in the stream; -1 for padding.
        hint: Modality index for routing; -1 = not given.
        modality: Name of the modality, static; it decides the input pipeline and the
            tower, nothing else.
        layers: Cached layer features of the frozen tower, for methods that have
            `Method.layer_blocks`; None: they are not cached.
    """

    inputs: PyTree
    query: Float[Array, "b d"]
    label: Int[Array, " b"]
    weight: Float[Array, " b"]
    id: Int[Array, " b"]
    hint: Int[Array, " b"]
    modality: str = flax.struct.field(pytree_node=False)
    layers: Float[Array, "b k"] | None = None


class Prediction(NamedTuple):
    """A method's prediction for each sample.

    Attributes:
        logits: Unmasked logits over all class slots of the stream.
        modality: Unmasked scores over modalities.
    """

    logits: Float[Array, "b C"]
    modality: Float[Array, "b m"]
