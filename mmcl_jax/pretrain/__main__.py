"""Trains the built-in encoder and writes it.

Writes `config.json`, `tokenizer.json`, `model.safetensors` and, with the curves,
`training.json`. What teachers said and what the stem computed is kept in a folder
`work` beside them, from which an interrupted training resumes.

Examples:
  mmcl-pretrain --config=pretrain --config.sources.pictures=PICTURES
  mmcl-pretrain --config=pretrain:smoke --out=runs/encoder
"""

import pathlib
import sys

from mmcl_jax.cli import command_line
from mmcl_jax.errors import ConfigError, DataError

_CONFIG = command_line.define_config("Config of the encoder and of its training.")
_OUT = command_line.define_path(
    "out", "runs/encoder", "Folder to which the encoder is written."
)


def main(argv: list[str]) -> None:
    """Trains the encoder; errors in flags and sources end with exit code 2."""
    # imported late, since JAX takes seconds to load, and --help does without it
    from mmcl_jax.pretrain import teachers
    from mmcl_jax.pretrain.towers import train

    try:
        command_line.refuse_arguments(argv)
        config = command_line.required(_CONFIG.value, "configs/pretrain.py")
        train(config, teachers.load(config), pathlib.Path(_OUT.value))
    except (ConfigError, DataError) as error:
        sys.exit(command_line.complain(error))


def cli() -> None:
    """Runs the program."""
    command_line.run(main, with_config=True)


if __name__ == "__main__":
    cli()
