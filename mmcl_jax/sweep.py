"""Runs a sweep: many runs of methods, orders and seeds, and tables that compare them.

`python launch/sweep.py --sweep=FILE.py[:variant] --out=DIR --workers=1` starts the runs
that are missing, each in its own process, then compares all that have finished. A
run that fails is named at the end and does not stop the others; the same command
resumes a sweep that was stopped. With `--engine=slurm` or `--engine=jobset` the jobs of
a cluster are written instead, and `--gather` compares runs that have finished there.
"""

import os
import pathlib
import shlex
import signal
import subprocess
import sys

from absl import app, flags
from rich.console import Console

from mmcl_jax.cli import command_line
from mmcl_jax.errors import ConfigError, DataError, WorkdirError
from mmcl_jax.plain_text import printable
from mmcl_jax.sweeps import aggregate, jobset, local, runs, slurm
from mmcl_jax.workdir.lock import Lock

_SWEEP = flags.DEFINE_string("sweep", None, "Python file with a function get_sweep.")
_OUT = command_line.define_path("out", None, "Folder of all runs and of the tables.")
_WORKERS = flags.DEFINE_integer(
    "workers",
    None,
    "Number of simultaneous runs; by default 1 on this machine and all with SLURM.",
    1,
)
_CHOOSE = command_line.define_path(
    "choose", None, "JSON file to which the best values of each method are written."
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
    str(jobset.MANIFEST),
    "YAML file of a JobSet with the resources of a run, for --engine=jobset.",
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
    for name in slurm.OPTIONS
}

FAILED = 1


def prepare_runs(
    sweep: runs.Sweep, folder: pathlib.Path, console: Console
) -> tuple[list[runs.SweepRun], dict[str, str]]:
    """Writes the configs of the runs that are not finished.

    Args:
        sweep: The runs.
        folder: Folder of all runs.
        console: Console for one line.

    Returns:
        The runs to start, and the errors of runs that cannot be started, by name.
    """
    runs.check(sweep)
    todo, failures = [], {}
    for each in sweep.runs:
        try:
            if runs.prepare_workdir(each, folder):
                todo.append(each)
        except (ConfigError, DataError) as error:
            failures[each.name] = str(error)
    total = len(sweep.runs)
    console.print(f"{total} runs, {len(todo)} of them to do", highlight=False)
    return todo, failures


def run(
    sweep: runs.Sweep, out: str | pathlib.Path, workers: int, console: Console
) -> dict[str, str]:
    """Starts the missing runs of a sweep on this machine.

    Args:
        sweep: The runs.
        out: Folder of the sweep; the runs are in `<out>/runs`.
        workers: Number of simultaneous runs.
        console: Console for one line a run.

    Returns:
        The last line of every run that failed, by name.

    Raises:
        WorkdirError: Another sweep is writing into the folder.
    """
    folder = pathlib.Path(out) / "runs"
    folder.mkdir(parents=True, exist_ok=True)
    lock = Lock(folder.parent, "--out")
    try:
        todo, failures = prepare_runs(sweep, folder, console)
        return failures | local.Pool(folder, workers, console).run(todo)
    finally:
        lock.release()


def hand_over(sweep: runs.Sweep, out: pathlib.Path, console: Console) -> dict[str, str]:
    """Writes the jobs for the cluster of `--engine`, and submits them with `--submit`.

    Returns:
        The errors of runs whose jobs cannot be written, by name.

    Raises:
        ConfigError: The jobs cannot be submitted.
    """
    todo, failures = prepare_runs(sweep, out / "runs", console)
    if not todo:
        return failures
    if _ENGINE.value == "slurm":
        given = {name: flag.value for name, flag in _SLURM.items() if flag.value}
        file, command = slurm.write(todo, out, given, _WORKERS.value), slurm.SUBMIT
    else:
        file = jobset.write(todo, out, _MANIFEST.value, _PODS_OUT.value)
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


def left(ended: list, sweep: runs.Sweep, out: pathlib.Path, console: Console) -> None:
    """Prints the runs that have not finished, with the last line of each one's log."""
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
    console = Console()
    # So that the processes of the runs end with this one.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    failures: dict[str, str] = {}
    try:
        name, out = _check_flags(argv)
        sweep = runs.load_sweep(name)
        if _GATHER.value:
            runs.check(sweep)
        elif _ENGINE.value == "local":
            failures = run(sweep, out, _WORKERS.value or 1, console)
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
        console.print(f"tables: {out / 'summary.md'}", highlight=False, soft_wrap=True)
    if _CHOOSE.value and not failures and len(ended) == len(sweep.runs):
        aggregate.write_choice(aggregate.choose(ended), pathlib.Path(_CHOOSE.value))
    for run_name, failure in failures.items():
        print(printable(f"failed: {run_name}: {failure}"), file=sys.stderr)
    if failures:
        sys.exit(FAILED)


def _check_flags(argv: list[str]) -> tuple[str, pathlib.Path]:
    """Returns the sweep and its folder."""
    if len(argv) > 1 or not _SWEEP.value or not _OUT.value:
        raise ConfigError(
            "give --sweep and --out and no arguments but flags, for instance "
            "--sweep=configs/sweeps/world.py --out=runs/sweep"
        )
    engines = {name: "slurm" for name in slurm.OPTIONS}
    engines |= {"manifest": "jobset", "pods_out": "jobset"}
    for flag, engine in engines.items():
        if flags.FLAGS[flag].present and _ENGINE.value != engine:
            raise ConfigError(f"--{flag}: only with --engine={engine}")
    if _SUBMIT.value and (_ENGINE.value == "local" or _GATHER.value):
        raise ConfigError("--submit: only with --engine=slurm or jobset, to start runs")
    return _SWEEP.value, pathlib.Path(_OUT.value)


def start() -> None:
    """Runs the program; the entry point of `launch/sweep.py`."""
    # The processes of the runs must import the same package as this one.
    root = str(pathlib.Path(__file__).parents[1])
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ["PYTHONPATH"] = os.pathsep.join(paths)
    app.run(main, flags_parser=command_line.parse_flags)


if __name__ == "__main__":
    start()
