"""Changes of a config by name: short arguments of config files, and tuned values."""

import dataclasses
import pathlib
from collections.abc import Iterable
from typing import Any

from mmcl_jax.config import Config, Seeds, check_name
from mmcl_jax.errors import ConfigError
from mmcl_jax.files import read_json

SHORT_KEYS = {
    "method": "method.name",
    "stream": "stream.order",
    "order": "stream.order",
    "adapter": "method.adapter.kind",
    "sharing": "method.sharing",
}


def parse_argument(
    argument: str, variants: Iterable[str] = ("smoke",)
) -> tuple[str, dict[str, str]]:
    """Splits the argument after the colon of `--config=FILE.py:variant,key=value`.

    Returns:
        The variant, "" if there is none, and the pairs.

    Raises:
        ConfigError: The variant is unknown, or a key is given twice.

    >>> parse_argument("smoke,method=ridge")
    ('smoke', {'method': 'ridge'})
    """
    variant, pairs = "", {}
    for part in filter(None, (p.strip() for p in argument.split(","))):
        key, equals, value = part.partition("=")
        if not equals:
            check_name("config variant", part, list(variants))
            variant = part
        elif key in pairs:
            raise ConfigError(f"config argument {key!r} is given twice")
        else:
            pairs[key] = value
    return variant, pairs


def with_arguments(config: Config, pairs: dict[str, str]) -> Config:
    """Returns `config` with the values of `method=`, `stream=`, `adapter=` and so on.

    The keys are those of `SHORT_KEYS`, of which `stream=` and `order=` mean the same,
    and `seed=`, which sets all three seeds.

    Raises:
        ConfigError: A key is unknown, two keys mean the same, or the seed is not a
            number.
    """
    if {"stream", "order"} <= pairs.keys():
        raise ConfigError("config arguments stream= and order= are the same; give one")
    for key, value in pairs.items():
        if key == "seed":
            if not value.isdecimal():
                raise ConfigError(f"config argument seed={value!r} is not a number")
            config = dataclasses.replace(config, seeds=Seeds(*[int(value)] * 3))
            continue
        check_name("config argument", key, [*SHORT_KEYS, "seed"])
        config = replace_at(config, SHORT_KEYS[key], value)
    return config


def with_tuned(config: Config, path: pathlib.Path) -> Config:
    """Returns `config` with the values that were chosen for its method.

    Args:
        config: Config of an experiment, which names the method.
        path: File that `launch/sweep.py --choose` has written; its entry "chosen" maps
            a method to values by path, such as `train.optimizer.learning_rate`. A
            method that is not in it keeps its defaults.

    Raises:
        ConfigError: A path is not a field of the config.
        DataError: The file cannot be read.
    """
    chosen = read_json(path, "values that a sweep has chosen").get("chosen", {})
    for field, value in chosen.get(config.method.name, {}).items():
        config = replace_at(config, field, value)
    return config


def replace_at(config: Any, path: str, value: Any) -> Any:
    """Returns a config with one field changed; `resolve` checks the value.

    Args:
        config: A dataclass of dataclasses.
        path: Names of fields, separated by dots.
        value: Value of the last field.

    Raises:
        ConfigError: There is no such field; the message names the nearest one.

    >>> replace_at(Config(), "train.epochs", 3).train.epochs
    3
    """
    name, _, rest = path.partition(".")
    check_name(
        "field of the config", name, [f.name for f in dataclasses.fields(config)]
    )
    if rest:
        section = getattr(config, name)
        if not dataclasses.is_dataclass(section):
            raise ConfigError(f"field of the config: {name!r} has no field {rest!r}")
        value = replace_at(section, rest, value)
    return dataclasses.replace(config, **{name: value})
