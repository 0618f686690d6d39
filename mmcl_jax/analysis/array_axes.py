"""What the axes of a method's arrays stand for, from shapes alone."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax

from mmcl_jax.methods.base import Method
from mmcl_jax.models.model import Model
from mmcl_jax.models.specs import with_trunks
from mmcl_jax.ops import rngs
from mmcl_jax.types import Capacity
from mmcl_jax.workdir.states import by_path

Shape = tuple[int, ...]


class Axis(NamedTuple):
    """An axis of an array that consists of named parts.

    Attributes:
        kind: `modality`, `layer` (a block of the tower, counted from 0 among those that
            the array is for) or `stage` (counted from 1).
        index: Index of the axis.
        names: Names of the parts, which are contiguous and equally long.
    """

    kind: str
    index: int
    names: tuple[str, ...]


def find(
    make_method: Callable[[Model], Method], model: Model, room: Capacity
) -> dict[str, tuple[Axis, ...]]:
    """Returns the axes of a method's params and memory that have such parts.

    The shapes of the method's arrays are computed for a model with one more modality or
    stage, or with a single block: an axis whose size changes is one of modalities,
    stages or blocks. So this works for every method, future ones included.

    Args:
        make_method: Builds the method around a model.
        model: Knows the modalities that the encoder reads.
        room: Number of classes, and of stages, that the arrays have slots for.

    Returns:
        For each array, by its path as in `states.by_path`, the axes that exactly one of
        the three changes.
    """

    def shapes(model: Model, room: Capacity = room) -> dict[str, Shape]:
        init = make_method(model).init
        made = jax.eval_shape(lambda: init(rngs.key(0, "init"), room))
        tree = dict(zip(("params", "memory"), made, strict=True))
        return {path: leaf.shape for path, leaf in by_path(tree).items()}

    towers = dict.fromkeys(model.towers)
    wider = {tower: shapes(_with_modality(model, tower)) for tower in towers}
    staged = shapes(model, room._replace(stages=room.stages + 1))
    shallow = {tower: shapes(_with_one_block(model, tower)) for tower in towers}
    members = {
        tower: tuple(model.modalities[i] for i in model.members(tower))
        for tower in towers
    }
    found = {}
    for path, shape in shapes(model).items():
        axes = []
        for index, size in enumerate(shape):

            def differs(other: dict[str, Shape], path=path, index=index, size=size):
                return other[path][index] != size

            groups = [tower for tower in towers if differs(wider[tower])]
            blocks = [tower for tower in towers if differs(shallow[tower])]
            parts: dict[str, tuple[str, ...]] = {}
            if groups:
                alone = len(groups) == 1
                parts["modality"] = members[groups[0]] if alone else model.modalities
            # concatenated features of several blocks are not an axis of blocks
            if any(size <= model.spec.tower(tower).layers for tower in blocks):
                parts["layer"] = tuple(map(str, range(size)))
            if differs(staged):
                parts["stage"] = tuple(map(str, range(1, room.stages + 1)))
            if len(parts) == 1:
                ((kind, names),) = parts.items()
                if size % len(names) == 0:
                    axes.append(Axis(kind, index, names))
        found[path] = tuple(axes)
    return found


def _with_modality(model: Model, tower: str) -> Model:
    like = model.towers.index(tower)
    readers = (*model.spec.readers, ("another", tower))
    return model._replace(
        spec=dataclasses.replace(model.spec, readers=readers),
        modalities=(*model.modalities, "another"),
        input_shapes=(*model.input_shapes, model.input_shapes[like]),
    )


def _with_one_block(model: Model, tower: str) -> Model:
    return model._replace(spec=with_trunks(model.spec, [tower], layers=1))
