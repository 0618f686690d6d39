"""The programs of this package, by the command that starts each."""

import ast
import importlib.metadata
import importlib.util
import inspect
import pathlib
import platform

import mmcl_jax

PROGRAMS = {
    "mmcl-train": "mmcl_jax.main",
    "mmcl-predict": "mmcl_jax.predict",
    "mmcl-extend": "mmcl_jax.extend",
    "mmcl-compare": "mmcl_jax.compare",
    "mmcl-sweep": "mmcl_jax.sweep",
    "mmcl-report": "mmcl_jax.report",
    "mmcl-export": "mmcl_jax.export",
    "mmcl-prepare": "mmcl_jax.prepare",
    "mmcl-zeroshot": "mmcl_jax.zeroshot",
    "mmcl-verify": "mmcl_jax.verify",
    "mmcl-config": "mmcl_jax.cli.config",
    "mmcl-plan": "mmcl_jax.plan",
    "mmcl-manifest": "mmcl_jax.manifest",
    "mmcl-reproduce": "mmcl_jax.reproduce",
    "mmcl-pretrain": "mmcl_jax.pretrain",
}


def command_of(module: str) -> str:
    """Returns the command that starts a module, which may be a package's `__main__`."""
    name = module.removesuffix(".__main__")
    return next(command for command, own in PROGRAMS.items() if own == name)


def listed() -> str:
    """Returns a line for each program, with the first sentence of its docstring."""
    width = max(map(len, PROGRAMS)) + 2
    return "\n".join(
        f"  {command:<{width}}{summary(module)}" for command, module in PROGRAMS.items()
    )


def summary(module: str) -> str:
    """Returns the first line of a program's docstring, without importing it.

    >>> summary("mmcl_jax.predict")
    'Labels ordinary files or sentences with the classes of a run.'
    """
    spec = importlib.util.find_spec(module)
    assert spec is not None and spec.origin is not None, module
    path = pathlib.Path(spec.origin)
    if path.name == "__init__.py":
        path = path.with_name("__main__.py")
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return inspect.cleandoc(ast.get_docstring(tree) or "").partition("\n")[0]


def version() -> str:
    """Returns the versions that a report of a problem should name."""
    jax = importlib.metadata.version("jax")
    python = platform.python_version()
    return f"mmcl_jax {mmcl_jax.__version__}, jax {jax}, Python {python}"
