"""The class slots of a stream as a method sees them, on the devices."""

from typing import Any

import numpy as np
from jax.sharding import Mesh
from jax.typing import DTypeLike

from mmcl_jax.config import Config
from mmcl_jax.errors import ConfigError, DataError
from mmcl_jax.modalities import MODALITIES
from mmcl_jax.modalities.base import InputSpec
from mmcl_jax.modalities.text import preprocess_name
from mmcl_jax.modalities.tokenization import load_tokenizer
from mmcl_jax.models.specs import TextSpec
from mmcl_jax.parallel import sharding
from mmcl_jax.streams.base import Stream
from mmcl_jax.types import Classes

# token lengths of class names are multiples of it
_LENGTHS = 8


def make_classes(
    text: Any,
    modality: Any,
    seen: Any,
    of_task: Any,
    mesh: Mesh,
    tokens: Any = None,
    room: int | None = None,
) -> Classes:
    """Returns the class slots on every device of the mesh.

    Args:
        text: Unit text embeddings `[n d]`.
        modality: Modality index of each slot `[n]`.
        seen: Slots seen so far.
        of_task: Slots of the current task.
        mesh: Devices to put them on.
        tokens: Tokens of the class names `[n length]`; None if the method does not
            learn context words.
        room: Number of slots C, at least n; those that are left have no class. None: n.
    """
    named = len(text)
    left = (room or named) - named

    def padded(values: Any, dtype: DTypeLike) -> np.ndarray:
        values = np.asarray(values, dtype)
        return np.pad(values, [(0, left), *[(0, 0)] * (values.ndim - 1)])

    # in NumPy: on the device, the growing number of seen slots would be a new shape,
    # and a new compilation, in each task
    rows = np.arange(named + left)
    columns: dict[str, Any] = {
        "text": padded(text, np.float32),
        "named": rows < named,
        "seen": np.isin(rows, seen),
        "of_task": np.isin(rows, of_task),
        "modality": padded(modality, np.int32),
        "tokens": None if tokens is None else padded(tokens, np.int32),
    }
    return sharding.put(Classes(**columns), mesh)


def class_tokens(config: Config, fed: InputSpec, stream: Stream) -> np.ndarray | None:
    """Returns the tokens of class names after the context words that a method learns.

    These start from the first template, of the config or else of the slot's modality,
    that has words in front of the name.

    Returns:
        `int32 [n length]`, whole; None if the method learns no context words.

    Raises:
        ConfigError: There is no such template, or no room for so many words.
    """
    context = config.method.adapter.context
    if context is None:
        return None
    rows = []
    for slot in stream.classes:
        templates = config.encoder.templates or MODALITIES[slot.modality].templates
        has_words = (t for t in templates if not t.startswith("{}"))
        template = next(has_words, templates[0])
        try:
            rows.append(preprocess_name(slot.name, template, context, fed))
        except DataError as error:
            raise ConfigError(f"config.method.adapter.context: {error}") from error
    return np.stack(rows)


def cut(tokens: np.ndarray, text: TextSpec, fed: InputSpec) -> np.ndarray:
    """Returns the tokens of class names up to the end of the longest, if they may be.

    What comes after the end reaches no feature, unless the tower reads its padding. The
    length is rounded up, since each new one is compiled anew.
    """
    if text.pool == "last":
        return tokens
    end = (tokens == load_tokenizer(fed.tokenizer).end).argmax(1).max() + 1
    return tokens[:, : -(-end // _LENGTHS) * _LENGTHS]
