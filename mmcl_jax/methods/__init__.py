"""Every method by its name."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from mmcl_jax import plugins
from mmcl_jax.errors import CodeError
from mmcl_jax.methods.base import Method
from mmcl_jax.methods.class_context import with_class_context
from mmcl_jax.methods.cmcl import cmcl
from mmcl_jax.methods.coda_prompt import coda_prompt
from mmcl_jax.methods.comm.method import comm
from mmcl_jax.methods.comm_plus import comm_plus
from mmcl_jax.methods.derpp import derpp
from mmcl_jax.methods.diki import diki
from mmcl_jax.methods.dualprompt import dualprompt
from mmcl_jax.methods.er import er
from mmcl_jax.methods.ewc import ewc
from mmcl_jax.methods.l2p import l2p
from mmcl_jax.methods.linear_probe import linear_probe
from mmcl_jax.methods.lwf import lwf
from mmcl_jax.methods.ncm import ncm
from mmcl_jax.methods.rail import rail
from mmcl_jax.methods.ranpac import ranpac
from mmcl_jax.methods.ridge import ridge
from mmcl_jax.methods.s_prompts import s_prompts
from mmcl_jax.methods.sequential import sequential
from mmcl_jax.methods.slca import slca
from mmcl_jax.methods.zero_shot import zero_shot
from mmcl_jax.methods.zscl import zscl
from mmcl_jax.models import Model
from mmcl_jax.models.adapters import ADAPTERS, Adapter

if TYPE_CHECKING:
    from mmcl_jax.config import AdapterOptions, Config

Make = Callable[[Model, "Config"], Method]


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
    options, sharing = config.method.adapter, config.method.sharing
    adapter, label_space = make_adapter(options), config.train.label_space
    method = sequential(model, adapter, sharing, label_space)
    if options.context is None:
        return method
    return with_class_context(method, model, options.context, sharing)


def _comm(model: Model, config: "Config") -> Method:
    options, label_space = config.method.adapter, config.train.label_space
    adapter, own = make_adapter(options), config.method.comm
    return comm(model, adapter, own, label_space, options.context)


def _without_adapter(make: Callable[..., Method], section: str) -> Make:
    """Returns how a method with no use for an adapter is made from a config."""

    def from_config(model: Model, config: "Config") -> Method:
        options = getattr(config.method, section)
        return make(model, options, config.method.sharing, config.train.label_space)

    return from_config


def _with_adapter(make: Callable[..., Method], section: str) -> Make:
    """Returns how a method around the chosen adapter is made from a config."""
    return lambda model, config: make(
        model,
        make_adapter(config.method.adapter),
        getattr(config.method, section),
        config.method.sharing,
        config.train.label_space,
    )


def _head(make: Callable[..., Method], section: str) -> Make:
    """Returns how a closed-form head is made from a config."""
    return lambda model, config: make(
        model, getattr(config.method, section), config.method.sharing
    )


def _linear_probe(model: Model, config: "Config") -> Method:
    return linear_probe(model, config.method.sharing, config.train.label_space)


METHODS: dict[str, Make] = {
    "comm": _comm,
    "comm_plus": lambda model, config: comm_plus(model, config.method.comm_plus),
    "zero_shot": lambda model, config: zero_shot(model),
    "sequential": _sequential,
    "ridge": _head(ridge, "ridge"),
    "l2p": _without_adapter(l2p, "l2p"),
    "dualprompt": _without_adapter(dualprompt, "dualprompt"),
    "coda_prompt": _without_adapter(coda_prompt, "coda_prompt"),
    "s_prompts": _with_adapter(s_prompts, "s_prompts"),
    "diki": _without_adapter(diki, "diki"),
    "lwf": _with_adapter(lwf, "lwf"),
    "zscl": _with_adapter(zscl, "zscl"),
    "ewc": _with_adapter(ewc, "ewc"),
    "er": _with_adapter(er, "er"),
    "derpp": _with_adapter(derpp, "derpp"),
    "slca": _with_adapter(slca, "slca"),
    "cmcl": _without_adapter(cmcl, "cmcl"),
    "linear_probe": _linear_probe,
    "ncm": lambda model, config: ncm(model, config.method.sharing),
    "ranpac": _head(ranpac, "ranpac"),
    "rail": _head(rail, "rail"),
    "joint": _sequential,
}

# methods that learn all tasks at once: sugar for another method on the joined stream
ON_JOINED_STREAM = ("joint",)

# methods that can learn words in front of class names
LEARN_CLASS_CONTEXT = ("comm", "sequential", "joint")


def available(module: str) -> dict[str, Make]:
    """Returns the methods that there are, and those of a module of the user's own.

    Args:
        module: `config.method.module`.

    Raises:
        CodeError: the module has no methods, or one whose name is taken.
    """
    own = plugins.methods(module) if module else {}
    if taken := own.keys() & METHODS.keys():
        raise CodeError(f"{module}: the name {min(taken)!r} is taken")
    return METHODS | own


def find(config: "Config") -> Make:
    """Returns how the method that a config names is made."""
    return available(config.method.module)[config.method.name]
