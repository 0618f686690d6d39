"""Every method by its name."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from mmcl_jax.methods.base import Method
from mmcl_jax.methods.comm import comm
from mmcl_jax.methods.ridge import ridge
from mmcl_jax.methods.sequential import sequential
from mmcl_jax.methods.zero_shot import zero_shot
from mmcl_jax.models import Model
from mmcl_jax.models.adapters import ADAPTERS, Adapter

if TYPE_CHECKING:
    from mmcl_jax.config import AdapterOptions, Config


def make_adapter(options: "AdapterOptions") -> Adapter:
    """Returns the adapter that the options name."""
    length, layers = options.length, options.layers
    arguments = {
        "deep_prompts": (length, layers),
        "shallow_prompts": (length,),
        "prefix": (length, layers),
        "residual_prefix": (length, layers),
        "low_rank": (options.rank,),
    }
    return ADAPTERS[options.kind](*arguments[options.kind])


def _sequential(model: Model, config: "Config") -> Method:
    adapter = make_adapter(config.method.adapter)
    method = config.method
    return sequential(model, adapter, method.sharing, config.train.label_space)


def _comm(model: Model, config: "Config") -> Method:
    adapter = make_adapter(config.method.adapter)
    return comm(model, adapter, config.method.comm, config.train.label_space)


METHODS: dict[str, Callable[[Model, "Config"], Method]] = {
    "comm": _comm,
    "zero_shot": lambda model, config: zero_shot(model),
    "sequential": _sequential,
    "ridge": lambda model, config: ridge(model, config.method.ridge),
    "joint": _sequential,
}

# methods that learn all tasks at once: sugar for another method on the joined stream
ON_JOINED_STREAM = ("joint",)
