"""`python launch/sweep.py --sweep=FILE.py[:variant] --out=DIR --workers=1`.

Runs what is missing of a sweep, each run in a process of its own, then compares all
that have finished. A run that fails is named at the end and does not stop the others;
the same command goes on where it was stopped. With `--engine=slurm` or
`--engine=jobset` it writes what a cluster is to run instead, and `--gather` compares
what has ended there.
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
from mmcl_jax.sweeps import aggregate, jobset, local, runs, slurm

_SWEEP = flags.DEFINE_string("sweep", None, "Python file with a function get_sweep.")
_OUT = flags.DEFINE_string("out", None, "Where everything is written.")
_WORKERS = flags.DEFINE_integer(
    "workers", None, "Runs at the same time; 1 here, all of them with SLURM.", 1
)
_CHOOSE = flags.DEFINE_string(
    "choose", None, "JSON file to write the best values of each method to."
)
_ENGINE = flags.DEFINE_enum(
    "engine", "local", ["local", "slurm", "jobset"], "What starts the runs."
)
_SUBMIT = flags.DEFINE_bool("submit", False, "Hand what is written to the cluster.")
_GATHER = flags.DEFINE_bool("gather", False, "Start nothing, compare what has ended.")
_MANIFEST = flags.DEFINE_string(
    "manifest", str(jobset.MANIFEST), "Job set that says what a run may use."
)
_PODS_OUT = flags.DEFINE_string(
    "pods_out", None, "Path of --out in the pods, if another."
)
_SLURM = {
    name: flags.DEFINE_string(name, None, "The flag of sbatch, for --engine=slurm.")
    for name in slurm.OPTIONS
}

FAILED = 1


def prepare(
    sweep: runs.Sweep, folder: pathlib.Path, console: Console
) -> tuple[list[runs.Run], dict[str, str]]:
    """Writes the configs of the runs that are left.

    Args:
        sweep: the runs.
        folder: of all runs.
        console: for a line.

    Returns:
        The runs that are left, and why those cannot be run that cannot, by their name.
    """
    runs.check(sweep)
    todo, failures = [], {}
    for each in sweep.runs:
        try:
            if runs.prepare(each, folder):
                todo.append(each)
        except (ConfigError, DataError) as error:
            failures[each.name] = str(error)
    total = len(sweep.runs)
    console.print(f"{total} runs, {len(todo)} of them to do", highlight=False)
    return todo, failures


def run(
    sweep: runs.Sweep, out: str | pathlib.Path, workers: int, console: Console
) -> dict[str, str]:
    """Runs what is missing of a sweep on this machine.

    Args:
        sweep: the runs.
        out: their folders are made in `<out>/runs`.
        workers: runs at the same time.
        console: for a line a run.

    Returns:
        The last line of every run that failed, by its name.
    """
    folder = pathlib.Path(out) / "runs"
    todo, failures = prepare(sweep, folder, console)
    return failures | local.Pool(folder, workers, console).run(todo)


def hand_over(sweep: runs.Sweep, out: pathlib.Path, console: Console) -> dict[str, str]:
    """Writes what the cluster of `--engine` is to run, and submits it with `--submit`.

    Returns:
        Why those runs failed that did not come so far, by their name.

    Raises:
        ConfigError: what was written cannot be submitted.
    """
    todo, failures = prepare(sweep, out / "runs", console)
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
    """Names the runs that have not ended, with the last line that each has said."""
    names = {each.name for each, _ in ended}
    console.print(f"{len(sweep.runs)} runs, {len(names)} of them ended")
    for each in sweep.runs:
        if each.name not in names:
            last = runs.last_line(out / "runs" / each.name) or "has said nothing"
            console.print(f"{each.name}: {last}", markup=False, highlight=False)


def main(argv: list[str]) -> None:
    """Runs, compares, and ends with exit code 1 if a run has failed."""
    console = Console()
    # so that the processes of the runs end with this one
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
        print(f"failed: {run_name}: {failure}", file=sys.stderr)
    if failures:
        sys.exit(FAILED)


def _check_flags(argv: list[str]) -> tuple[str, pathlib.Path]:
    """Returns the sweep and its folder."""
    if len(argv) > 1 or not _SWEEP.value or not _OUT.value:
        raise ConfigError(
            "give --sweep and --out and nothing but flags, for instance "
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
    """Is what `launch/sweep.py` calls."""
    # what this process imported, the processes of the runs find too
    root = str(pathlib.Path(__file__).parents[1])
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ["PYTHONPATH"] = os.pathsep.join(paths)
    app.run(main, flags_parser=command_line.parse_flags)


if __name__ == "__main__":
    start()
