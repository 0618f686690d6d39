"""Evaluates a frozen encoder before anything is learnt.

Zero-shot accuracies show whether the weights of an encoder were read correctly. Of each
data set it is said whether they are better than guessing. With --expect, the accuracy
is compared with a published figure; the exit code is 1 if it does not confirm that.

Examples:
  mmcl-zeroshot --config=demo
  mmcl-zeroshot --config=folders --config.stream.root=ESC --expect=imagebind-esc50
"""

import dataclasses
import json
import sys
from typing import Any

from absl import flags, logging
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mmcl_jax import config as configs
from mmcl_jax.cli import command_line
from mmcl_jax.errors import ConfigError, DataError
from mmcl_jax.evaluation import published
from mmcl_jax.evaluation.guessing import NO_BETTER, WORSE
from mmcl_jax.parallel import compilation_cache
from mmcl_jax.plain_text import printable
from mmcl_jax.training import build
from mmcl_jax.training.frozen_accuracy import frozen_accuracy
from mmcl_jax.workdir.console_tables import console_table, name_cell
from mmcl_jax.workdir.results import plain

_CONFIG = command_line.define_config(
    "Config with encoder and stream; its method is not used."
)
_JSON = flags.DEFINE_bool("json", False, "Print JSON instead of tables.")
_EXPECT = flags.DEFINE_string(
    "expect",
    None,
    "Published figure that the accuracy is compared with, for instance "
    "imagebind-esc50; the others stand in docs/encoders.md.",
)
_ADVICE = (
    "There its embeddings do not fit the names of the classes. Check the files with "
    "`python -m mmcl_jax.prepare`; give classes names that say what is in them, or "
    "sentences by config.encoder.templates; or choose another encoder by "
    "config.encoder.path. Methods that learn from samples alone, such as ridge, do not "
    "need the names: if they are near chance too, the encoder does not see what tells "
    "these classes apart."
)


def _data_sets(found: dict[str, Any]) -> Table:
    table = console_table(
        "frozen encoder: accuracy in percent, among a data set's classes",
        ("data set",),
        ("classes", "samples", "accuracy (95 % interval)", "chance", "than guessing"),
    )
    for row in found["data_sets"]:
        accuracy, low, high, chance = (
            f"{100 * row[name]:.1f}" for name in ("accuracy", "low", "high", "chance")
        )
        table.add_row(
            name_cell(row["name"]),
            str(row["classes"]),
            str(row["samples"]),
            f"{accuracy} ({low} to {high})",
            chance,
            row["verdict"].removesuffix(" than guessing"),
        )
    return table


def _advice(found: dict[str, Any]) -> str | None:
    """Returns what to do about data sets on which the encoder only guesses."""
    rows = [r for r in found["data_sets"] if r["verdict"] in (NO_BETTER, WORSE)]
    guessed = ", ".join(printable(row["name"]) for row in rows)
    head = f"The frozen encoder is {NO_BETTER} on {guessed}."
    return f"{head} {_ADVICE}" if guessed else None


def _tasks(found: dict[str, Any]) -> Table:
    table = console_table(
        "the same by task, among the classes of",
        ("task", "modality"),
        ("classes", "samples", "the task", "its modality", "all"),
    )
    for row in found["tasks"]:
        table.add_row(
            name_cell(row["name"]),
            row["modality"],
            str(row["classes"]),
            str(row["samples"]),
            *(f"{100 * row[s]:.1f}" for s in found["mean"]),
        )
    table.add_section()
    means = (f"{100 * value:.1f}" for value in found["mean"].values())
    table.add_row("mean", "", "", "", *means)
    return table


def _with_templates(chosen: configs.Config, figure: published.Figure) -> configs.Config:
    """Returns the config with the sentences of a figure."""
    given = chosen.encoder.templates
    if not figure.templates or given == figure.templates:
        return chosen
    if given:
        raise ConfigError(
            "config.encoder.templates: the figure of --expect has sentences of its "
            f"own, {', '.join(figure.templates)}; leave these out"
        )
    encoder = dataclasses.replace(chosen.encoder, templates=figure.templates)
    return dataclasses.replace(chosen, encoder=encoder)


def _of_figure(name: str, found: dict[str, Any]) -> str:
    """Returns what a comparison with a published figure says, and a row of a table."""
    figure, told = published.FIGURES[name], found["expected"]
    verdict = "confirmed" if told["confirmed"] else "not confirmed"
    lines = [
        f"{name}: {verdict}. Published {told['published']:.1f} %, measured "
        f"{told['measured']:.1f} % on {told['samples']} samples of "
        f"{printable(told['data_set'])}; {told['allowed']:.1f} points are allowed.",
        f"Of {figure.encoder} on {figure.data_set}; {figure.source}.",
        f"Names of the classes: {figure.names}.",
    ]
    lines += [f"Note: {figure.note}."] if figure.note else []
    lines.append(f"For docs/encoders.md, with your name and the date:\n{told['row']}")
    return "\n".join(lines)


def main(argv: list[str]) -> None:
    """Prints the tables; bad input ends with exit code 2."""
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)
    try:
        command_line.refuse_arguments(argv)
        compilation_cache.keep_compiled_programs()
        given = command_line.required(_CONFIG.value, "configs/demo.py")
        console = Console(stderr=True)
        # the encoder may be one that the method of the config cannot train in
        unused = configs.MethodOptions("zero_shot")
        chosen = dataclasses.replace(configs.resolve(given), method=unused)
        name = _EXPECT.value
        if name is not None:
            chosen = _with_templates(chosen, published.figure(name))
        run = build.assemble(chosen, console)
        found = plain(frozen_accuracy(run))
        found["advice"] = _advice(found)
        if name is not None:
            found["expected"] = published.compared(name, found["data_sets"])
    except (ConfigError, DataError, ValueError) as error:
        sys.exit(command_line.complain(error))
    confirmed = name is None or found["expected"]["confirmed"]
    if _JSON.value:
        print(json.dumps(found, allow_nan=False))
        sys.exit(0 if confirmed else 1)
    for line in found["encoder"]:
        console.print(Text(printable(line)))
    out = Console()
    out.print(_data_sets(found))
    if found["advice"]:
        out.print(Text(found["advice"]))
    out.print(_tasks(found))
    if name is not None:
        # a row is copied as it is
        out.print(Text(_of_figure(name, found)), soft_wrap=True)
    sys.exit(0 if confirmed else 1)


def cli() -> None:
    """Runs the program."""
    command_line.run(main, with_config=True)


if __name__ == "__main__":
    cli()
