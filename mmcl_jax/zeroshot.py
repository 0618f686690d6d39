"""Evaluates a frozen encoder on a stream before anything is learnt.

`python -m mmcl_jax.zeroshot --config=FILE.py[:variant,key=value]` prints zero-shot
accuracies, which show whether the weights of an encoder were read correctly.
"""

import json
import sys
from typing import Any

from absl import app, flags, logging
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mmcl_jax import config as configs
from mmcl_jax.cli import command_line
from mmcl_jax.errors import ConfigError, DataError
from mmcl_jax.parallel import compilation_cache
from mmcl_jax.plain_text import printable
from mmcl_jax.training import build
from mmcl_jax.training.frozen_accuracy import frozen_accuracy
from mmcl_jax.workdir.results import plain

_CONFIG = command_line.define_config(
    "Config with encoder and stream; its method is not used."
)
_JSON = flags.DEFINE_bool("json", False, "Print JSON instead of a table.")


def _table(found: dict[str, Any]) -> Table:
    table = Table(title="frozen encoder: accuracy in percent")
    for title in ("task", "modality"):
        table.add_column(title)
    for title in ("classes", "samples", "own", "its modality's", "all classes"):
        table.add_column(title, justify="right")
    for row in found["tasks"]:
        # The name of a folder must not be read as markup.
        table.add_row(
            Text(printable(row["name"])),
            row["modality"],
            str(row["classes"]),
            str(row["samples"]),
            *(f"{100 * row[s]:.1f}" for s in found["mean"]),
        )
    table.add_section()
    means = (f"{100 * value:.1f}" for value in found["mean"].values())
    table.add_row("mean", "", "", "", *means)
    return table


def main(argv: list[str]) -> None:
    """Prints the table; bad input ends with exit code 2."""
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)
    try:
        command_line.refuse_arguments(argv)
        compilation_cache.keep_compiled_programs()
        given = command_line.required(_CONFIG.value, "configs/demo.py")
        console = Console(stderr=True)
        run = build.assemble(configs.resolve(given), console)
        found = plain(frozen_accuracy(run))
    except (ConfigError, DataError, ValueError) as error:
        sys.exit(command_line.complain(error))
    if _JSON.value:
        print(json.dumps(found, allow_nan=False))
        return
    for line in found["encoder"]:
        console.print(Text(printable(line)))
    Console().print(_table(found))


def cli() -> None:
    """Runs the program."""
    app.run(main, flags_parser=command_line.parse_with_config)


if __name__ == "__main__":
    cli()
