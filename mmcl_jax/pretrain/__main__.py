"""Trains the built-in encoder and writes it.

`python -m mmcl_jax.pretrain --config=configs/pretrain.py --output=DIR` writes
`config.json`, `tokenizer.json`, `model.safetensors` and, with the curves,
`training.json`. What teachers said and what the stem computed is kept in `DIR/work`,
from which an interrupted training resumes.
"""

import pathlib
import sys

from absl import app

from mmcl_jax.cli import command_line
from mmcl_jax.errors import ConfigError, DataError
from mmcl_jax.pretrain import teachers
from mmcl_jax.pretrain.towers import train

_CONFIG = command_line.define_config("Config of the encoder and of its training.")
_OUTPUT = command_line.define_path(
    "output", "runs/encoder", "Folder to which the encoder is written."
)


def main(argv: list[str]) -> None:
    """Trains the encoder; errors in flags and sources end with exit code 2."""
    try:
        command_line.refuse_arguments(argv)
        config = command_line.required(_CONFIG.value, "configs/pretrain.py")
        train(config, teachers.load(config), pathlib.Path(_OUTPUT.value))
    except (ConfigError, DataError) as error:
        sys.exit(command_line.complain(error))


def cli() -> None:
    """Runs the program."""
    app.run(main, flags_parser=command_line.parse_with_config)


if __name__ == "__main__":
    cli()
