r"""Compares methods by many runs, with one report of all.

With `--config` and `--methods`, every method learns the same stream under every seed; a
Python file in place of a method stands for the methods in it. `--sweep` names a file
that lists any other runs. Missing runs are started, each in its own process: the same
command completes a sweep that was stopped. A run that fails is named at the end.

Examples:
  mmcl-sweep --config=folders --methods=comm,ncm,mine.py --seeds=0-4 \
      --config.stream.root=DATA --out=runs/compared
  mmcl-sweep --sweep=configs/sweeps/world.py:methods=ridge+ncm --out=runs/world
"""

import os
import pathlib
import shlex
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

from absl import flags
from ml_collections.config_flags import config_flags
from rich.console import Console

from mmcl_jax.cli import command_line
from mmcl_jax.errors import ConfigError, DataError, WorkdirError
from mmcl_jax.plain_text import printable
from mmcl_jax.workdir import layout

# `mmcl_jax.sweeps` is imported late, since JAX takes seconds to load, and --help does
# without it
if TYPE_CHECKING:
    from mmcl_jax.sweeps.runs import Sweep

_CONFIG = command_line.define_config("Config that all methods are run with.")
_METHODS = flags.DEFINE_list(
    "methods",
    [],
    "Methods, or Python files with methods; all are compared with the first one.",
)
_SEEDS = flags.DEFINE_string("seeds", "0", "Seeds, such as 0-4 or 0,2,5.")
_SWEEP = flags.DEFINE_string(
    "sweep", None, "Python file with a function get_sweep, in place of a config."
)
_OUT = command_line.define_path("out", None, "Folder of all runs, tables and report.")
_WORKERS = flags.DEFINE_integer(
    "workers",
    None,
    "Number of simultaneous runs; by default 1 on this machine and all with SLURM.",
    1,
)
_CHOOSE = command_line.define_path(
    "choose", None, "JSON file to which the best values of a method are written."
)
_ENGINE = flags.DEFINE_enum(
    "engine",
    "local",
    ["local", "slurm", "jobset"],
    "What starts the runs: this machine, SLURM or a Kubernetes JobSet.",
)
_SUBMIT = flags.DEFINE_bool("submit", False, "Submit the written jobs to the cluster.")
_GATHER = flags.DEFINE_bool(
    "gather", False, "Start no runs; only compare those that have finished."
)
_MANIFEST = command_line.define_path(
    "manifest",
    None,
    "YAML file of a JobSet with the resources of a run, for --engine=jobset; by "
    "default launch/gke_jobset.yaml.",
)
_PODS_OUT = flags.DEFINE_string(
    "pods_out",
    None,
    "Path of --out inside the pods, if it differs, for --engine=jobset.",
)
_SLURM = {
    name: flags.DEFINE_string(
        name, None, "Passed to sbatch as the flag of this name, for --engine=slurm."
    )
    for name in (
        *("partition", "account", "time", "nodes", "ntasks_per_node"),
        *("gpus_per_node", "cpus_per_task", "mem"),
    )
}

FAILED = 1


def hand_over(sweep: "Sweep", out: pathlib.Path, console: Console) -> dict[str, str]:
    """Writes the jobs for the cluster of `--engine`, and submits them with `--submit`.

    Returns:
        The errors of runs whose jobs cannot be written, by name.

    Raises:
        ConfigError: The jobs cannot be submitted.
    """
    from mmcl_jax.sweeps import jobset, runs, slurm

    todo, failures = runs.prepare(sweep, out / "runs", console)
    if not todo:
        return failures
    if _ENGINE.value == "slurm":
        given = {name: flag.value for name, flag in _SLURM.items() if flag.value}
        file, command = slurm.write(todo, out, given, _WORKERS.value), slurm.SUBMIT
    else:
        manifest = _MANIFEST.value or str(jobset.MANIFEST)
        file = jobset.write(todo, out, manifest, _PODS_OUT.value)
        command = jobset.SUBMIT
    words = [*command.split(), str(file)]
    if not _SUBMIT.value:
        console.print(
            f"to submit: {shlex.join(words)}", highlight=False, soft_wrap=True
        )
        return failures
    try:
        subprocess.run(words, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise ConfigError(f"--submit: {shlex.join(words)}: {error}") from error
    return failures


def left(ended: list, sweep: "Sweep", out: pathlib.Path, console: Console) -> None:
    """Prints the runs that have not finished, with the last line of each one's log."""
    from mmcl_jax.sweeps import runs

    names = {each.name for each, _ in ended}
    console.print(f"{len(sweep.runs)} runs, {len(names)} of them finished")
    for each in sweep.runs:
        if each.name not in names:
            last = runs.last_line(out / "runs" / each.name) or "no output yet"
            console.print(
                printable(f"{each.name}: {last}"), markup=False, highlight=False
            )


def main(argv: list[str]) -> None:
    """Runs, compares, and ends with exit code 1 if a run has failed."""
    from mmcl_jax.sweeps import aggregate, local, runs, transfer

    console = Console()
    # So that the processes of the runs end with this one.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    failures: dict[str, str] = {}
    try:
        out = _check_flags(argv)
        name, sweep = _sweep()
        if _GATHER.value:
            runs.check(sweep)
        elif _ENGINE.value == "local":
            failures = local.run(sweep, out, _WORKERS.value or 1, console)
        else:
            failures = hand_over(sweep, out, console)
        ended = runs.finished(sweep.runs, out / "runs")
    except (ConfigError, DataError, WorkdirError, OSError) as error:
        sys.exit(command_line.complain(error))
    if _GATHER.value:
        left(ended, sweep, out, console)
    if ended:
        report = aggregate.aggregate(ended, sweep.baseline, name)
        aggregate.write(report, out)
        _tell(console, f"tables: {out / 'summary.md'}")
        if any(run.beside for run, _ in ended):
            transfer.write(transfer.compare(ended, name), out)
            _tell(console, f"transfer across modalities: {out / 'transfer.md'}")
        _tell(console, f"report: {_write_page(ended, out)}")
    if _CHOOSE.value and not failures and len(ended) == len(sweep.runs):
        aggregate.write_choice(aggregate.choose(ended), pathlib.Path(_CHOOSE.value))
    for run_name, failure in failures.items():
        print(printable(f"failed: {run_name}: {failure}"), file=sys.stderr)
    if failures:
        sys.exit(FAILED)


def _write_page(ended: list, out: pathlib.Path) -> pathlib.Path:
    """Writes the page of all finished runs and returns its path."""
    from mmcl_jax.report import page, run_loader  # late: plotting takes seconds to load

    folders = [out / "runs" / run.name for run, _ in ended]
    read = [run_loader.load(folder, inside=len(folders) == 1) for folder in folders]
    (path,) = page.write(read, out / layout.REPORT)
    return path


def _tell(console: Console, line: str) -> None:
    console.print(printable(line), markup=False, highlight=False, soft_wrap=True)


def _sweep() -> "tuple[str, Sweep]":
    """Returns the name of what is run, and the runs, as flags give them."""
    from mmcl_jax.sweeps import methods, runs

    if _SWEEP.value:
        return _SWEEP.value, runs.load_sweep(_SWEEP.value)
    name = config_flags.get_config_filename(flags.FLAGS["config"])
    values = config_flags.get_override_values(flags.FLAGS["config"])
    seeds = methods.numbers(_SEEDS.value)
    return name, methods.of_config(name, _METHODS.value, seeds, values)


def _check_flags(argv: list[str]) -> pathlib.Path:
    """Returns the folder of the sweep."""
    command_line.refuse_arguments(argv)
    compared = bool(_CONFIG.value and _METHODS.value)
    if not _OUT.value or compared == bool(_SWEEP.value):
        raise ConfigError(
            "give --out, and --config and --methods or else --sweep, for instance "
            "--config=demo --methods=comm,ncm --out=runs/compared"
        )
    engines = {name: "slurm" for name in _SLURM}
    engines |= {"manifest": "jobset", "pods_out": "jobset"}
    for flag, engine in engines.items():
        if flags.FLAGS[flag].present and _ENGINE.value != engine:
            raise ConfigError(f"--{flag}: only with --engine={engine}")
    if _SUBMIT.value and (_ENGINE.value == "local" or _GATHER.value):
        raise ConfigError("--submit: only with --engine=slurm or jobset, to start runs")
    return pathlib.Path(_OUT.value)


def cli() -> None:
    """Runs the program."""
    # The processes of the runs must import the same package as this one.
    root = str(pathlib.Path(__file__).parents[1])
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ["PYTHONPATH"] = os.pathsep.join(paths)
    command_line.run(main, with_config=True)


if __name__ == "__main__":
    cli()
