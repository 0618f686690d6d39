"""The fields of a config that name code of the user's own, and what it decides."""

import ast
import dataclasses
from typing import Any

from mmcl_jax import own_code
from mmcl_jax.fields import ConfigError, checked


def resolve(tree: dict, stored: bool) -> tuple[dict, Any]:
    """Runs the code that a config names.

    Args:
        tree: of the whole config, unchecked.
        stored: whether a run has stored it, so that it may run no code.

    Returns:
        The config, in which hashes stand behind the names of files, and the type of
        `method.options`. Values of wrong types are left for `fields.build`.

    Raises:
        ConfigError: the code cannot be run, or an option is not `field=value`.
    """
    method, data, kind = tree.get("method"), tree.get("data"), tuple[str, ...]

    def find(name: str) -> str:
        return own_code.find(name, stored)

    path = "config.data.modality_modules"
    try:
        if isinstance(data, dict) and "modality_modules" in data:
            names = checked(data["modality_modules"], tuple[str, ...], path)
            found = tuple(find(name) for name in names)
            for name in found:
                own_code.add_modalities(name)
            tree = tree | {"data": data | {"modality_modules": found}}
        path = "config.method.module"
        if isinstance(method, dict) and isinstance(method.get("module"), str):
            if method["module"]:
                method = method | {"module": find(method["module"])}
                own = own_code.options(method["module"])
                if own is not None and "options" in method:
                    method, kind = method | {"options": _options(own, method)}, own
            tree = tree | {"method": method}
    except own_code.CodeError as error:
        raise ConfigError(f"{path}: {error}") from error
    return tree, kind


def _options(kind: Any, method: dict) -> Any:
    """Returns the options of an own method by name, the defaults among them."""
    path, given = "config.method.options", method["options"]
    if isinstance(given, dict):
        return given
    values = dataclasses.asdict(kind())
    for pair in checked(given, tuple[str, ...], path):
        name, equals, text = pair.partition("=")
        if not equals:
            raise ConfigError(f"{path}: {pair!r} is not of the form field=value")
        try:
            values[name] = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            values[name] = text
    return values
