"""Code of the user's own: a file outside the package with methods or modalities.

A file runs if the user names it: by a flag, in a config file, or in the environment
variable `MMCL_JAX_MODULES`. What a run stores of it is `name.py#sha256=HASH`, which
runs nothing: whoever goes on with a workdir, or reads one, names the file again.
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
from mmcl_jax.files import raised_in
from mmcl_jax.modalities import MODALITIES
from mmcl_jax.modalities.base import Modality

VARIABLE = "MMCL_JAX_MODULES"
_HASH = "#sha256="
_MAX_BYTES = 16 * 2**20
_NAME = re.compile("[a-z][a-z0-9_]{0,63}")
# what has run in this process, by the hash of its content
_modules: dict[str, types.ModuleType] = {}
# that have given modalities
_added: list[str] = []


def run(path: str) -> str:
    """Runs a file that the user has named, once a process.

    Processes that this one starts may run it, too.

    Returns:
        Its name and the hash of its content, by which `recall` finds it.

    Raises:
        CodeError: it cannot be read, or fails.
    """
    file = pathlib.Path(path).absolute()
    if os.pathsep in str(file):
        raise CodeError(
            f"{file}: {os.pathsep!r} stands between the paths of {VARIABLE}, by which "
            "other processes find the file; rename what has it in its name"
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
            del sys.modules[module.__name__]
            where = raised_in(file, error)
            raise CodeError(where or f"{file}: {error!r}") from error
        _modules[digest] = module
    named = _named()
    if str(file) not in named:
        os.environ[VARIABLE] = os.pathsep.join([*named, str(file)])
    return f"{file.name}{_HASH}{digest}"


def recall(reference: str) -> types.ModuleType:
    """Returns what `run` has run, or what the user has named in `MMCL_JAX_MODULES`.

    Raises:
        CodeError: no file that the user has named has this content.
    """
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
        f"this is code of your own, {name} with the SHA-256 {digest}. A stored config "
        f"runs nothing by itself: name the file, {VARIABLE}=/path/to/{name}"
    )


def find(name: str, stored: bool) -> str:
    """Returns the reference of what a config names, and has run it.

    Args:
        name: A path, or a reference.
        stored: Whether the config was stored by a run, so that a path in it is not the
            user's word.

    Raises:
        CodeError: it cannot be run.
    """
    if _HASH in name:
        recall(name)
        return name
    if stored:
        raise CodeError(f"{name!r} without a hash; expected {name}{_HASH}...")
    return run(name)


def add_modalities(reference: str) -> None:
    """Adds what a module has in its `MODALITIES` to those of this process.

    The hash of the code becomes part of their versions.

    Raises:
        CodeError: it has none, or one is not as `Modality` says, or is there already.
    """
    if reference in _added:
        return
    name, _, digest = reference.rpartition(_HASH)
    found: dict[str, Modality] = {}
    for key, kind in _table(reference, "MODALITIES").items():
        if not isinstance(kind, Modality) or kind.name != key:
            raise CodeError(f"{name}: MODALITIES[{key!r}] is no Modality of this name")
        if not _NAME.fullmatch(key) or key in MODALITIES:
            raise CodeError(
                f"{name}: modality {key!r}: the name is taken, or has more than 64 "
                "letters, or others than a-z, 0-9 and _"
            )
        if kind.tower not in ("visual", "text"):
            raise CodeError(f"{name}: {key!r} is read by no tower {kind.tower!r}")
        styles = {
            style: how._replace(version=f"{how.version} of {name} {digest[:16]}")
            for style, how in kind.styles.items()
        }
        found[key] = kind._replace(styles=styles)
    MODALITIES.update(found)  # all of them or none
    _added.append(reference)


def added() -> tuple[str, ...]:
    """Returns the modules whose modalities have been added, in order."""
    return tuple(_added)


def methods(reference: str) -> dict[str, Any]:
    """Returns what a module has in its `METHODS`.

    Raises:
        CodeError: it has none, or one that is no function.
    """
    found = _table(reference, "METHODS")
    for name, make in found.items():
        if not callable(make):
            raise CodeError(f"{reference}: METHODS[{name!r}] is no function: {make!r}")
    return found


def options(reference: str) -> type | None:
    """Returns the class `Options` of a module; None: it has none.

    Raises:
        CodeError: it is no frozen dataclass with a default for each field.
    """
    kind = getattr(recall(reference), "Options", None)
    if kind is None:
        return None
    parameters = getattr(kind, "__dataclass_params__", None)
    if not isinstance(kind, type) or not (parameters and parameters.frozen):
        raise CodeError(f"{reference}: Options is no frozen dataclass")
    try:
        kind()
    except TypeError as error:
        raise CodeError(f"{reference}: an option without default ({error})") from error
    return kind


def _table(reference: str, name: str) -> dict[str, Any]:
    table = getattr(recall(reference), name, None)
    if not isinstance(table, dict) or not table:
        raise CodeError(f"{reference}: no dict {name} in it")
    for key in table:
        if not isinstance(key, str):
            raise CodeError(f"{reference}: {name}[{key!r}]: its names are to be texts")
    return table


def exported() -> str:
    """Returns the value of `MMCL_JAX_MODULES` by which a job elsewhere finds the files.

    Paths are absolute, since a job may start in another folder.
    """
    return os.pathsep.join(os.path.abspath(path) for path in _named())


def _named() -> list[str]:
    return [path for path in os.environ.get(VARIABLE, "").split(os.pathsep) if path]


def _read(path: pathlib.Path) -> bytes:
    try:
        check_bytes(path, _MAX_BYTES)
        return path.read_bytes()
    except (OSError, ValueError) as error:
        raise CodeError(f"{path}: cannot be read ({error})") from error


def resolve(tree: dict, stored: bool) -> tuple[dict, Any]:
    """Runs the code that a config names.

    Args:
        tree: Of the whole config, unchecked.
        stored: Whether a run has stored it, so that it may run no code.

    Returns:
        The config, in which hashes stand behind the names of files, and the type of
        `method.options`. Values of wrong types are left for `fields.build`.

    Raises:
        ConfigError: the code cannot be run, or an option is not `field=value`.
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
