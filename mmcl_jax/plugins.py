"""User-defined code: a file outside the package with methods or modalities.

A file runs if the user names it: by a flag, in a config file, or in the environment
variable `MMCL_JAX_MODULES`. A run stores only a reference, `name.py#sha256=HASH`, which
runs nothing: to resume or read its workdir, the user names the file again.
"""

import ast
import dataclasses
import hashlib
import os
import pathlib
import re
import sys
import types
from typing import Any

from mmcl_jax.errors import CodeError, ConfigError, check_bytes
from mmcl_jax.fields import checked
from mmcl_jax.files import expanded, raised_in
from mmcl_jax.modalities import MODALITIES
from mmcl_jax.modalities.base import Modality

VARIABLE = "MMCL_JAX_MODULES"
_HASH = "#sha256="
_MAX_BYTES = 16 * 2**20
_NAME = re.compile("[a-z][a-z0-9_]{0,63}")
# modules that have run in this process, by the hash of their content
_modules: dict[str, types.ModuleType] = {}
# references of modules whose modalities have been added
_added: list[str] = []


def run(path: str) -> str:
    """Runs a file that the user has named, once per process.

    Processes that this one starts may run it, too.

    Returns:
        A reference with its name and the hash of its content, for `recall`.

    Raises:
        CodeError: The file cannot be read, or fails.
    """
    file = pathlib.Path(expanded(path)).absolute()
    if os.pathsep in str(file):
        raise CodeError(
            f"{file}: {os.pathsep!r} separates the paths of {VARIABLE}, by which other "
            "processes find the file; rename the file or folder that contains it"
        )
    content = _read(file)
    digest = hashlib.sha256(content).hexdigest()
    if digest not in _modules:
        module = types.ModuleType(f"mmcl_jax_own_{digest[:16]}")
        module.__file__ = str(file)
        sys.modules[module.__name__] = module  # dataclasses look for it there
        try:
            exec(compile(content, str(file), "exec"), module.__dict__)
        except Exception as error:
            # a failed file leaves no half-made module, so that it can run once mended
            del sys.modules[module.__name__]
            where = raised_in(file, error)
            raise CodeError(where or f"{file}: {error!r}") from error
        _modules[digest] = module
    named = _named()
    if str(file) not in named:
        os.environ[VARIABLE] = os.pathsep.join([*named, str(file)])
    return f"{file.name}{_HASH}{digest}"


def recall(reference: str) -> types.ModuleType:
    """Returns the module of a reference: from this process, or `MMCL_JAX_MODULES`.

    Raises:
        CodeError: No file that the user has named has this content.
    """
    # The reference may come from an untrusted workdir: it selects among the files that
    # the user has named, by their content, and never says what to run.
    name, _, digest = reference.rpartition(_HASH)
    unread: dict[str, str] = {}
    if digest not in _modules:
        for path in _named():
            try:
                content = _read(pathlib.Path(path))
            except CodeError as error:
                unread[path] = str(error)
                continue
            if hashlib.sha256(content).hexdigest() == digest:
                run(path)
                break
    if digest in _modules:
        return _modules[digest]
    read = [path for path in _named() if path not in unread]
    changed = [path for path in read if os.path.basename(path) == name]
    if changed:
        raise CodeError(
            f"{changed[0]} has changed: its SHA-256 is not {digest}; restore it, or "
            "start a new run"
        )
    if unread:
        raise CodeError(f"{VARIABLE}: {'; '.join(unread.values())}")
    raise CodeError(
        f"{name} with the SHA-256 {digest} is user-defined code. A stored config runs "
        f"nothing by itself: name the file, {VARIABLE}=/path/to/{name}"
    )


def find(name: str, stored: bool) -> str:
    """Runs the code that a config names, and returns its reference.

    Args:
        name: A path, or a reference.
        stored: Whether the config was stored by a run, so that a path in it was not
            given by the user.

    Raises:
        CodeError: The code cannot be run.
    """
    if _HASH in name:
        recall(name)
        return name
    if stored:
        raise CodeError(f"{name!r} without a hash; expected {name}{_HASH}...")
    return run(name)


def add_modalities(reference: str) -> None:
    """Adds the `MODALITIES` of a module to those of this process.

    The hash of the code becomes part of their versions.

    Raises:
        CodeError: The module has none, or one is invalid, or its name is taken.
    """
    if reference in _added:
        return
    name, _, digest = reference.rpartition(_HASH)
    found: dict[str, Modality] = {}
    for key, kind in _table(reference, "MODALITIES").items():
        if not isinstance(kind, Modality) or kind.name != key:
            raise CodeError(
                f"{name}: MODALITIES[{key!r}] is no Modality of this name; expected a "
                "Modality whose name is its key"
            )
        if not _NAME.fullmatch(key) or key in MODALITIES:
            raise CodeError(
                f"{name}: modality {key!r}: the name is taken, or not a letter a-z and "
                "up to 63 of a-z, 0-9 and _ after it; rename it"
            )
        if kind.tower not in ("visual", "text"):
            raise CodeError(
                f"{name}: modality {key!r} names the tower {kind.tower!r}; expected "
                "'visual' or 'text'"
            )
        styles = {
            style: how._replace(version=f"{how.version} of {name} {digest[:16]}")
            for style, how in kind.styles.items()
        }
        found[key] = kind._replace(styles=styles)
    MODALITIES.update(found)  # only now, so that an error adds none of them
    _added.append(reference)


def added() -> tuple[str, ...]:
    """Returns references of the modules whose modalities were added, in order."""
    return tuple(_added)


def methods(reference: str) -> dict[str, Any]:
    """Returns the `METHODS` of a module.

    Raises:
        CodeError: The module has none, or one is not a function.
    """
    found = _table(reference, "METHODS")
    for name, make in found.items():
        if not callable(make):
            raise CodeError(
                f"{reference}: METHODS[{name!r}] is {make!r}; expected a function "
                "make(model, options, common)"
            )
    return found


def options(reference: str) -> type | None:
    """Returns the class `Options` of a module; None if it has none.

    Raises:
        CodeError: `Options` is not a frozen dataclass with a default for each field.
    """
    kind = getattr(recall(reference), "Options", None)
    if kind is None:
        return None
    parameters = getattr(kind, "__dataclass_params__", None)
    if not isinstance(kind, type) or not (parameters and parameters.frozen):
        raise CodeError(
            f"{reference}: Options is no frozen dataclass; decorate it with "
            "@dataclasses.dataclass(frozen=True)"
        )
    try:
        kind()
    except TypeError as error:
        raise CodeError(f"{reference}: an option has no default ({error})") from error
    return kind


def _table(reference: str, name: str) -> dict[str, Any]:
    table = getattr(recall(reference), name, None)
    if not isinstance(table, dict) or not table:
        raise CodeError(f"{reference}: no dict {name} in it, or an empty one")
    for key in table:
        if not isinstance(key, str):
            raise CodeError(f"{reference}: {name}[{key!r}]: its keys must be strings")
    return table


def exported() -> str:
    """Returns the value of `MMCL_JAX_MODULES` with which another job finds the files.

    Paths are absolute, since a job may start in another folder.
    """
    return os.pathsep.join(os.path.abspath(path) for path in _named())


def _named() -> list[str]:
    named = os.environ.get(VARIABLE, "").split(os.pathsep)
    return [expanded(path) for path in named if path]


def _read(path: pathlib.Path) -> bytes:
    try:
        check_bytes(path, _MAX_BYTES)
        return path.read_bytes()
    except (OSError, ValueError) as error:
        raise CodeError(f"{path}: cannot be read ({error})") from error


def resolve(tree: dict, stored: bool) -> tuple[dict, Any]:
    """Runs the code that a config names.

    Args:
        tree: The whole config, unchecked.
        stored: Whether a run has stored it, so that it may run no code.

    Returns:
        The config, with references in place of paths, and the type of `method.options`.
        Values of wrong types are left for `fields.build` to reject.

    Raises:
        ConfigError: The code cannot be run, or an option is not `field=value`.
    """
    method, data, kind = tree.get("method"), tree.get("data"), tuple[str, ...]

    path = "config.data.modality_modules"
    try:
        if isinstance(data, dict) and "modality_modules" in data:
            names = checked(data["modality_modules"], tuple[str, ...], path)
            found = tuple(find(name, stored) for name in names)
            for name in found:
                add_modalities(name)
            tree = tree | {"data": data | {"modality_modules": found}}
        path = "config.method.module"
        if isinstance(method, dict) and isinstance(method.get("module"), str):
            if method["module"]:
                method = method | {"module": find(method["module"], stored)}
                own = options(method["module"])
                if own is not None and "options" in method:
                    method, kind = method | {"options": _options(own, method)}, own
            tree = tree | {"method": method}
    except CodeError as error:
        raise ConfigError(f"{path}: {error}") from error
    return tree, kind


def _options(kind: Any, method: dict) -> Any:
    """Returns all options of a user-defined method by name, with its defaults."""
    path, given = "config.method.options", method["options"]
    if isinstance(given, dict):
        return given
    values = dataclasses.asdict(kind())
    for pair in checked(given, tuple[str, ...], path):
        name, equals, text = pair.partition("=")
        if not equals:
            raise ConfigError(f"{path}: {pair!r} is not of the form field=value")
        # a literal or else a text: an option is data, and never evaluated as code
        try:
            values[name] = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            values[name] = text
    return values
