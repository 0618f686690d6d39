"""Answers that the authors' own functions gave, and what it takes to ask ours.

`fixtures/published` has inputs of each method (`inputs_*`), parameters before the call
(`weights_*`), constants and answers (`expected_*`), all of them random numbers or what
became of them. Heads are stored by rows, `y = x W^T`.
"""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from mmcl_jax.methods.base import Common, Features, Method
from mmcl_jax.models import adapters
from mmcl_jax.models.model import Model
from mmcl_jax.models.specs import TowerSpec, clip
from mmcl_jax.types import Batch, Classes, Context

KEY = jax.random.key(0)
TOWER = TowerSpec(16, 2, 2, 32, "gelu", 1e-5)
COMMON = Common(adapters.shallow_prompts(2), "shared", "task")
MODEL = Model(
    spec=clip(TOWER, TOWER, 16, 16, 8, 99, 9, 98),
    modalities=("image",),
    logit_scale=100.0,
    input_shapes=({},),
    embed=lambda frozen, modality, inputs, injection: inputs["features"],
    embed_layers=lambda frozen, modality, inputs, *rest: (None, inputs["features"]),
)


def published(name: str) -> dict[str, np.ndarray]:
    """Returns the arrays of a method."""
    path = pathlib.Path(__file__).parent / "fixtures" / "published" / f"{name}.npz"
    with np.load(path) as arrays:
        return dict(arrays)


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def rows_of(query, label=None) -> Batch:
    number = len(query)
    label = np.zeros(number) if label is None else label
    return Batch(
        inputs={},
        query=jnp.asarray(query, jnp.float32),
        label=jnp.asarray(label, jnp.int32),
        weight=jnp.ones(number),
        id=jnp.arange(number),
        hint=jnp.zeros(number, jnp.int32),
        modality="image",
    )


def context(memory, seen: int, text, phase: str = "prepare") -> Context:
    slots = jnp.arange(len(text))
    classes = Classes(
        jnp.asarray(text, jnp.float32), slots < seen, slots < seen, 0 * slots
    )
    return Context(None, memory, jnp.asarray(0), classes, phase)


def taught(method: Method, memory, seen: int, text, query, label, size: int):
    """Returns the memory after a task of batches of some size, in order."""

    @jax.jit
    def prepare(memory, rows: Batch):
        return method.prepare({}, context(memory, seen, text), rows, KEY)

    for start in range(0, len(query), size):
        part = slice(start, start + size)
        memory = prepare(memory, rows_of(query[part], label[part]))
    at = functools.partial(context, seen=seen, text=text, phase="end")
    return jax.jit(lambda memory: method.end_task({}, at(memory), KEY)[1])(memory)


def answers(method: Method, memory, seen: int, text, query) -> np.ndarray:
    at = functools.partial(context, seen=seen, text=text, phase="predict")

    @jax.jit
    def logits(memory, rows: Batch):
        return method.predict({}, at(memory), rows, Features()).logits

    return np.asarray(logits(memory, rows_of(query)))
