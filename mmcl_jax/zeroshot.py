"""`python -m mmcl_jax.zeroshot --config=FILE.py[:variant,key=value]`.

How well a frozen encoder does on a stream before anything is learnt: what shows whether
its weights were read right.
"""

import json
import sys
from typing import Any

import numpy as np
from absl import app, flags, logging
from ml_collections import config_flags
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mmcl_jax import assemble, command_line, learner
from mmcl_jax import config as configs
from mmcl_jax.config import ConfigError
from mmcl_jax.feed import Feed
from mmcl_jax.modalities.base import DataError
from mmcl_jax.results import plain

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Names encoder and stream; the method is left alone."
)
_JSON = flags.DEFINE_bool("json", False, "Prints JSON instead of a table.")


def zero_shot(run: assemble.Run) -> dict[str, Any]:
    """Returns the accuracy of nearest class texts on the test samples of each task.

    The text of a class is the mean over the templates of its modality, see
    `Feed.embed_class_names`.

    Returns:
        For each task its `name`, `modality`, number of `classes` and of `samples`, and
        accuracies: `own` among the task's classes, `modality_classes` among those of
        its modality in the whole stream, `all` among all; `mean` of the three over
        tasks; the lines of the encoder's `summary`.

    References:
        Radford et al., Learning Transferable Visual Models From Natural Language
        Supervision, 2021, section 3.1.4 (ensembles of templates).
    """
    stream = run.stream
    feed = Feed(run, run.encoder.frozen)
    text = feed.embed_class_names()
    canonical = np.array([slot.canonical for slot in stream.classes])
    modalities = np.array([slot.modality for slot in stream.classes])
    spaces = ("own", "modality_classes", "all")
    rows = []
    for i, task in enumerate(stream.tasks):
        feed.embed_queries([i], "test")
        cosines = feed.queries(task.test) @ text.T
        label = np.array([row.label for row in task.test])
        allowed = {
            "own": np.isin(np.arange(len(canonical)), task.classes),
            "modality_classes": modalities == task.modality,
            "all": np.ones(len(canonical), bool),
        }
        row = {
            "name": task.name,
            "modality": task.modality,
            "classes": len(task.classes),
            "samples": len(label),
        }
        for space in spaces:
            best = np.where(allowed[space], cosines, -np.inf).argmax(1)
            # equal names of two modalities are one class where both are allowed
            row[space] = float((canonical[best] == canonical[label]).mean())
        rows.append(row)
    mean = {space: float(np.mean([row[space] for row in rows])) for space in spaces}
    return {"tasks": rows, "mean": mean, "encoder": list(run.encoder.summary)}


def _table(found: dict[str, Any]) -> Table:
    table = Table(title="frozen encoder: accuracy in percent")
    for title in ("task", "modality"):
        table.add_column(title)
    for title in ("classes", "samples", "own", "its modality's", "all classes"):
        table.add_column(title, justify="right")
    for row in found["tasks"]:
        # the name of a folder is not to be taken for markup
        table.add_row(
            Text(row["name"]),
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
        if len(argv) > 1:
            raise ConfigError(f"unexpected argument {argv[1]!r}")
        if not _CONFIG.value:
            raise ConfigError(
                "--config: missing; for instance --config=configs/demo.py"
            )
        learner.keep_compiled_programs()
        console = Console(stderr=True)
        run = assemble.assemble(configs.resolve(_CONFIG.value), console)
        found = plain(zero_shot(run))
    except (ConfigError, DataError, ValueError) as error:
        sys.exit(command_line.complain(error))
    if _JSON.value:
        print(json.dumps(found, allow_nan=False))
        return
    for line in found["encoder"]:
        console.print(Text(line))
    Console().print(_table(found))


def cli() -> None:
    """Runs the program."""
    app.run(main, flags_parser=command_line.parse)


if __name__ == "__main__":
    cli()
