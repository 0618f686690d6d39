"""Compares runs over one stream, or two snapshots of one run.

Examples:
  mmcl-compare --workdirs=runs/ncm,runs/ridge
  mmcl-compare --workdirs=runs/own --snapshots=1,5
"""

import json
import sys
from typing import Any

from absl import flags, logging
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mmcl_jax.analysis.measures import EMBEDDED, ROUTE, SPACE
from mmcl_jax.cli import command_line
from mmcl_jax.errors import ComparisonError
from mmcl_jax.plain_text import printable
from mmcl_jax.workdir.console_tables import console_table, name_cell

_WORKDIRS = command_line.define_paths(
    "workdirs",
    "Folders of runs over one stream, separated by commas: all are compared with the "
    "first. If the flag is repeated, each list is a repetition, for instance with "
    "another seed, and intervals are over the differences of the repetitions.",
)
_ENCODER = command_line.define_encoder()
_SNAPSHOTS = flags.DEFINE_list(
    "snapshots",
    [],
    "Snapshots to compare, counted from 1: I,J of one run, or I of several runs.",
)
_JSON = flags.DEFINE_bool("json", False, "Print everything as one JSON object.")
_EMBEDDINGS = flags.DEFINE_bool(
    "embeddings", True, "Compare embeddings of samples, too, which needs the data."
)
_SAMPLES = flags.DEFINE_integer(
    "samples", EMBEDDED, "Maximum number of samples of each modality to embed.", 4
)

# Samples in the tables; JSON has all.
_SHOWN = 10


def main(argv: list[str]) -> None:
    """Prints a comparison; bad input ends with exit code 2."""
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)
    try:
        command_line.refuse_arguments(argv)
        found = compare(_WORKDIRS.value, _stages(_SNAPSHOTS.value))
    except (ValueError, OSError) as error:  # our errors name the culprit
        sys.exit(command_line.complain(error))
    if _JSON.value:
        print(json.dumps(found, indent=1, allow_nan=False))
    else:
        show(found, Console())


def compare(groups: list[list[str]], stages: list[int]) -> dict[str, Any]:
    """Returns the comparison that the flags ask for.

    Args:
        groups: Workdirs, a list for each `--workdirs`.
        stages: Stages of `--snapshots`.

    Raises:
        ComparisonError: The flags contradict each other.
        ValueError: A workdir cannot be read.
    """
    # imported late, since JAX takes seconds to load, and --help does without it
    from mmcl_jax.analysis.run_comparison import compare_pairs, compare_runs
    from mmcl_jax.analysis.snapshot_comparison import compare_snapshots

    sizes = {len(group) for group in groups}
    if sizes == {1} and len(groups) == 1:
        if len(stages) != 2:
            raise ComparisonError(
                "--snapshots: one run is compared with itself; give two, for instance "
                "--snapshots=1,5"
            )
        with_embeddings = _EMBEDDINGS.value
        return compare_snapshots(
            groups[0][0],
            *stages,
            with_embeddings=with_embeddings,
            samples=_SAMPLES.value,
            encoder=_ENCODER.value,
        )
    if len(stages) > 1:
        raise ComparisonError("--snapshots: several runs are compared at one stage")
    if len(sizes) != 1 or sizes <= {0, 1}:
        raise ComparisonError(
            "--workdirs: give one run, or two or more separated by commas, and equally "
            f"many each time; given were {', '.join(map(str, groups)) or 'none'}"
        )
    stage = stages[0] if stages else None
    (size,) = sizes
    found = [
        compare_pairs([(group[0], group[k]) for group in groups], stage)
        if len(groups) > 1
        else compare_runs(groups[0][0], groups[0][k], stage)
        for k in range(1, size)
    ]
    return found[0] if len(found) == 1 else {"kind": "several", "comparisons": found}


def _stages(values: list[str]) -> list[int]:
    if not all(value.isdecimal() for value in values):
        raise ComparisonError(f"--snapshots: {','.join(values)!r} are not numbers")
    return [int(value) for value in values]


def show(found: dict[str, Any], console: Console) -> None:
    """Prints a comparison as tables."""
    if found["kind"] == "several":
        for each in found["comparisons"]:
            show(each, console)
    elif found["kind"] == "pairs":
        for pair in found["pairs"]:
            console.print(_runs_table(pair))
        console.print(_pairs_table(found))
    elif found["kind"] == "runs":
        console.print(_runs_table(found))
    else:
        _show_snapshots(found, console)


def _runs_table(found: dict[str, Any]) -> Table:
    first, second = found["first"], found["second"]
    table = console_table(
        f"{_name(second)} minus {_name(first)}: accuracy in percent among the "
        "classes seen of the predicted modality",
        ("task",),
        ("n", "first", "second", "difference", "p", "alike", "kappa"),
        f"differences in points, [95 % interval] {found['intervals']}; p: McNemar, "
        "exact; alike: samples with the same predicted class; kappa: agreement beyond "
        "chance",
    )
    cells = found["spaces"][SPACE][ROUTE]
    for row in cells["tasks"]:
        table.add_row(name_cell(row["name"]), *_runs_cells(row))
    table.add_section()
    table.add_row("all", *_runs_cells(cells["all"]))
    return table


def _runs_cells(row: dict[str, Any]) -> list[Any]:
    return [
        str(row["samples"]),
        _percent(row["first"]),
        _percent(row["second"]),
        _interval(row, row["difference"]),
        f"{row['mcnemar']['p_value']:.2g}",
        _percent(row["predicted_alike"]),
        _short(row["kappa"]),
    ]


def _pairs_table(found: dict[str, Any]) -> Table:
    pair = found["pairs"][0]
    table = console_table(
        f"{pair['second']['method']} minus {pair['first']['method']}: mean "
        "accuracy over tasks, in points",
        ("label space", "modality"),
        ("difference",),
        f"[95 % interval] {found['intervals']}; they differ in "
        f"{', '.join(found['over'])}",
    )
    for space, routes in found["differences"].items():
        for route, row in routes.items():
            table.add_row(space, route, _interval(row, row["mean"]))
    return table


def _show_snapshots(found: dict[str, Any], console: Console) -> None:
    i, j = found["snapshots"]
    title = f"{_name(found['run'])}: snapshot {i} to {j}"
    for kind in ("params", "memory"):
        if found[kind]:
            parts = ("modality", "layer", "stage") if kind == "params" else ()
            console.print(_drift_table(found[kind], f"{title}, {kind}", parts))
    if found["embeddings"] is not None:
        table = console_table(
            f"{title}, embeddings of test samples seen by {i}",
            ("modality",),
            ("n", "CKA", "cosine"),
        )
        for modality, row in found["embeddings"].items():
            cells = (_short(row["cka"]), _short(row["cosine"]))
            table.add_row(modality, str(row["samples"]), *cells)
        console.print(table)
    kinds = ("forgotten", "recovered", "right", "wrong")
    table = console_table(
        f"{title}, samples among classes of the predicted modality", ("task",), kinds
    )
    for row in found["counts"][SPACE][ROUTE]:
        table.add_row(name_cell(row["name"]), *(str(row[kind]) for kind in kinds))
    console.print(table)
    for kind in ("forgotten", "recovered"):
        for row in found[kind][:_SHOWN]:
            before, after = (
                f"{row[at]['class']} ({row[at]['modality']})"
                for at in ("before", "after")
            )
            line = f"{kind}: {row['sample'] or row['id']}: {row['class']}, taken for "
            console.print(
                Text(printable(f"{line}{before}, then for {after}")), soft_wrap=True
            )
        if (more := len(found[kind]) - _SHOWN) > 0:
            console.print(f"and {more} more {kind}")
    for note in found["notes"]:
        console.print(Text(printable(note)), soft_wrap=True)


def _drift_table(arrays: dict[str, Any], title: str, kinds: tuple[str, ...]) -> Table:
    numbers = ("norm", "change", "relative", "cosine")
    table = console_table(title, ("array", "part" if kinds else ""), numbers)
    for path, entry in arrays.items():
        table.add_row(name_cell(path), "", *_drift_cells(entry))
        for kind in kinds:
            parts = entry.get(kind, {})
            for of, part in parts.items() if len(parts) > 1 else ():
                table.add_row("", name_cell(f"{kind} {of}"), *_drift_cells(part))
    return table


def _drift_cells(entry: dict[str, Any]) -> list[str]:
    return [
        *(f"{entry[name]:.3g}" for name in ("norm", "change")),
        *(_short(entry[name]) for name in ("relative", "cosine")),
    ]


def _name(run: dict[str, Any]) -> str:
    # Brackets in the name of a folder must not be read as markup.
    return f"{run['method']} ({run['workdir']})".replace("[", "\\[")


def _interval(row: dict[str, Any], value: float | None) -> Text:
    ends = f"{_percent(row['low'], '+')}, {_percent(row['high'], '+')}"
    return Text(f"{_percent(value, '+')} [{ends}]")


def _percent(value: float | None, sign: str = "") -> str:
    return "-" if value is None else f"{100 * value:{sign}.1f}"


def _short(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def cli() -> None:
    """Runs the program."""
    command_line.run(main)


if __name__ == "__main__":
    cli()
