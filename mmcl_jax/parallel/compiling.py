"""Says when JAX compiles a program, and for how long: that is not done again."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from jax import monitoring

# JAX reports the begin of a phase as a scalar and its end as a duration
_COMPILES = "/jax/core/compile/backend_compile_duration"
_LOWERS = "/jax/core/compile/jaxpr_to_mlir_module_duration"


@contextlib.contextmanager
def watched(
    begun: Callable[[str], None], ended: Callable[[float], None]
) -> Iterator[None]:
    """Calls two functions whenever a program is compiled within the `with` block.

    Args:
        begun: Receives the name of the function.
        ended: Receives seconds that lowering or compiling it took.
    """

    def on_scalar(event: str, value: float | int, **kwargs: Any) -> None:
        del value
        if event in (_LOWERS, _COMPILES):
            name = str(kwargs.get("fun_name", ""))
            begun(name.removeprefix("jit(").removesuffix(")"))

    def on_duration(event: str, duration_secs: float, **kwargs: Any) -> None:
        del kwargs
        if event in (_LOWERS, _COMPILES):
            ended(duration_secs)

    monitoring.register_scalar_listener(on_scalar)
    monitoring.register_event_duration_secs_listener(on_duration)
    try:
        yield
    finally:
        monitoring.unregister_scalar_listener(on_scalar)
        monitoring.unregister_event_duration_listener(on_duration)
