"""What a method stores, and how that grows with the stream, from shapes alone."""

from collections.abc import Callable

import jax

from mmcl_jax.methods.base import Method
from mmcl_jax.models.model import Model
from mmcl_jax.ops import rngs
from mmcl_jax.ops.trees import nbytes
from mmcl_jax.types import Capacity, PyTree


def sizes(
    make_method: Callable[[Model], Method], model: Model, room: Capacity
) -> dict[str, int]:
    """Returns the size of what a method stores, and its growth per class and task.

    Args:
        make_method: Builds the method around a model.
        model: The encoder's static facts, with the modalities that count.
        room: Numbers of classes and stages.

    Returns:
        `parameters_trained`: number of parameters that training may change.
        `bytes_remembered`: size of these and of the memory, all that a snapshot holds.
        `bytes_per_class`, `bytes_per_task`: its growth with another class slot or
        stage.
    """
    init = make_method(model).init

    def state(room: Capacity) -> PyTree:
        return jax.eval_shape(lambda: init(rngs.key(0, "init"), room))

    params, memory = state(room)
    remembered = nbytes((params, memory))
    more = {
        "bytes_per_class": room._replace(classes=room.classes + 1),
        "bytes_per_task": room._replace(stages=room.stages + 1),
    }
    return {
        "parameters_trained": sum(leaf.size for leaf in jax.tree.leaves(params)),
        "bytes_remembered": remembered,
    } | {name: nbytes(state(other)) - remembered for name, other in more.items()}
