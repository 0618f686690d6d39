"""Every method by its name: the literal table, and what the file of a method defines.

A method is a module or a package in this folder that has

- `make(model, options, common) -> Method`,
- `Options`, a frozen dataclass with a default for each field, if it has any,
- `ON_JOINED_STREAM = True` if it learns all tasks at once,
- `LEARNS_CLASS_CONTEXT = True` if it can learn words in front of class names.
"""

import importlib
from collections.abc import Callable
from typing import Any, NamedTuple

from mmcl_jax import plugins
from mmcl_jax.errors import CodeError
from mmcl_jax.methods.base import Common, Method
from mmcl_jax.models.model import Model

NAMES = (
    "comm",
    "comm_plus",
    "zero_shot",
    "sequential",
    "ridge",
    "l2p",
    "dualprompt",
    "coda_prompt",
    "s_prompts",
    "diki",
    "lwf",
    "zscl",
    "wise_ft",
    "ewc",
    "er",
    "derpp",
    "slca",
    "rapf",
    "cmcl",
    "linear_probe",
    "ncm",
    "aper",
    "ease",
    "sd_lora",
    "slda",
    "fecam",
    "klda",
    "ranpac",
    "layup",
    "rail",
    "joint",
)


class Entry(NamedTuple):
    """A method as its file describes it.

    Attributes:
        make: Function `(model, options, common) -> Method`.
        options: The dataclass of its options; None: it has none.
        on_joined_stream: Whether it learns all tasks at once.
        learns_class_context: Whether it can learn words in front of class names.
    """

    make: Callable[[Model, Any, Common], Method]
    options: type | None = None
    on_joined_stream: bool = False
    learns_class_context: bool = False


def _read(name: str) -> Entry:
    module = importlib.import_module(f"mmcl_jax.methods.{name}")
    return Entry(
        module.make,
        getattr(module, "Options", None),
        getattr(module, "ON_JOINED_STREAM", False),
        getattr(module, "LEARNS_CLASS_CONTEXT", False),
    )


METHODS: dict[str, Entry] = {name: _read(name) for name in NAMES}


def available(module: str) -> dict[str, Entry]:
    """Returns the methods of the package, and those of a user-defined module.

    Args:
        module: Reference in `config.method.module`; empty: there is none.

    Raises:
        CodeError: The module has no methods, or one whose name is taken.
    """
    if not module:
        return METHODS
    options = plugins.options(module)
    own = {name: Entry(make, options) for name, make in plugins.methods(module).items()}
    if taken := own.keys() & METHODS.keys():
        raise CodeError(
            f"{module}: the name {min(taken)!r} is taken by a method of the package; "
            "rename it"
        )
    return METHODS | own
