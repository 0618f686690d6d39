"""A sweep of methods over one config, as flags name them."""

from collections.abc import Sequence
from typing import Any

from mmcl_jax import plugins
from mmcl_jax.config import Config
from mmcl_jax.errors import CodeError, ConfigError
from mmcl_jax.files import split_argument
from mmcl_jax.sweeps.runs import Sweep, SweepRun, make_config, raising_by_line

# chosen by other flags of a sweep
_TAKEN = {"method.name": "--methods", "seeds": "--seeds"}


def of_config(
    name: str, methods: Sequence[str], seeds: Sequence[int], values: dict[str, Any]
) -> Sweep:
    """Returns a run of every method under every seed; the first one is the baseline.

    Args:
        name: Config as `FILE.py:ARGUMENT`.
        methods: Names of methods, or Python files, each of which stands for all methods
            that it defines.
        seeds: Seeds; each sets the seeds of order, initial values and data.
        values: Fields of all runs by path, such as `train.epochs`.

    Raises:
        ConfigError: A method is unknown, or a config cannot be run.
    """
    for path, flag in _TAKEN.items():
        if wrong := [key for key in values if f"{key}.".startswith(f"{path}.")]:
            raise ConfigError(f"--config.{wrong[0]}: given by {flag}")
    file, argument = split_argument(name)
    variants = {own: more for each in methods for own, more in _variants(each).items()}
    # all methods of a seed first: even a sweep that is cut short has complete pairs
    runs = []
    for seed in seeds:
        for method, module in variants.items():
            config = _config(str(file), argument, method, seed, values | module)
            order = config.stream.order
            runs.append(SweepRun(method, order, seed, config, module))
    return Sweep(tuple(runs), baseline=next(iter(variants), ""))


def _variants(given: str) -> dict[str, dict[str, Any]]:
    """Returns the methods that a name or a file stands for, and the fields of each."""
    if not given.endswith(".py"):
        return {given: {}}
    try:
        own = plugins.methods(plugins.run(given))
    except CodeError as error:
        raise ConfigError(f"--methods: {error}") from error
    return {name: {"method.module": given} for name in own}


def _config(
    file: str, argument: str, method: str, seed: int, values: dict[str, Any]
) -> Config:
    """Returns the config of a run.

    A file that takes `method=` may give each method the values tuned for it; of one
    that does not, and may say so by any error, the fields are set.
    """
    short = ",".join(filter(None, [argument, f"method={method}", f"seed={seed}"]))
    try:
        return make_config(file, short, values)
    except Exception:
        names = ("order", "init", "data")
        fields = {"method.name": method} | {f"seeds.{name}": seed for name in names}
        with raising_by_line(file):
            return make_config(file, argument, values | fields)


def numbers(text: str) -> list[int]:
    """Returns the whole numbers of a list with ranges.

    Raises:
        ConfigError: It is no such list.

    >>> numbers("0-2,7")
    [0, 1, 2, 7]
    """
    found = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or dash and not last.isdecimal():
            raise ConfigError(f"--seeds: {text!r} is no list such as 0-4 or 0,2,5")
        found += range(int(first), int(last or first) + 1)
    return found
