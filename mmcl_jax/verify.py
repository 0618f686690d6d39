"""Writes frozen features for checking closed forms by hand.

A new folder gets `features.npz`, plain arrays, and a `README.md` with a short NumPy
program that derives the results of closed-form methods from them, without this package.

Examples:
  mmcl-verify --config=demo --out=features
  mmcl-verify --config=real:2 --config.stream.root=DATA --out=features
"""

import dataclasses
import pathlib
import sys

from absl import flags, logging
from rich.console import Console

from mmcl_jax import config as configs
from mmcl_jax.cli import command_line
from mmcl_jax.errors import ConfigError, DataError
from mmcl_jax.methods.comm_plus import Options as CommPlus
from mmcl_jax.parallel import compilation_cache
from mmcl_jax.training import build
from mmcl_jax.training.frozen_views import write_views

_CONFIG = command_line.define_config(
    "Config with encoder and stream; its method is not used."
)
_OUT = command_line.define_path("out", None, "New folder for the features.")


def main(argv: list[str]) -> None:
    """Writes the folder; bad input ends with exit code 2."""
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)
    try:
        command_line.refuse_arguments(argv)
        compilation_cache.keep_compiled_programs()
        given = command_line.required(_CONFIG.value, "configs/demo.py")
        if not _OUT.value:
            raise ConfigError("--out: missing; for instance --out=features")
        folder = pathlib.Path(_OUT.value)
        if folder.exists():
            raise ConfigError(f"--out: {folder} exists; give a new folder")
        unused = configs.MethodOptions("zero_shot")
        chosen = dataclasses.replace(configs.resolve(given), method=unused)
        run = build.assemble(chosen, Console(stderr=True))
        write_views(run, CommPlus().blocks, folder)
    except (ConfigError, DataError, ValueError) as error:
        sys.exit(command_line.complain(error))
    print(folder)


def cli() -> None:
    """Runs the program."""
    command_line.run(main, with_config=True)


if __name__ == "__main__":
    cli()
