"""`python launch/sweep.py --sweep=FILE.py[:variant] --out=DIR --workers=1`.

Runs what is missing of a sweep, each run in a process of its own, then compares all
that have finished. A run that fails is named at the end and does not stop the others;
the same command goes on where it was stopped.
"""

import concurrent.futures
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

from absl import app, flags
from rich.console import Console

from mmcl_jax import aggregate, runs
from mmcl_jax.config import ConfigError
from mmcl_jax.modalities.base import DataError
from mmcl_jax.preemption import RUN_AGAIN

_SWEEP = flags.DEFINE_string("sweep", None, "Python file with a function get_sweep.")
_OUT = flags.DEFINE_string("out", None, "Where everything is written.")
_WORKERS = flags.DEFINE_integer("workers", 1, "Runs at the same time.", 1)
_CHOOSE = flags.DEFINE_string(
    "choose", None, "JSON file to write the best values of each method to."
)

FAILED, USAGE_ERROR = 1, 2
OUTPUT = "output.txt"


class Pool:
    """Processes of runs, so many at a time; all end with the program."""

    def __init__(self, folder: pathlib.Path, workers: int, console: Console) -> None:
        """Starts nothing."""
        self._folder, self._workers, self._console = folder, workers, console
        self._processes: set[subprocess.Popen] = set()
        self._lock, self._stopped = threading.Lock(), False

    def run(self, todo: list[runs.Run]) -> dict[str, str]:
        """Runs all of them; returns why those failed that did."""
        failures, done = {}, 0
        with concurrent.futures.ThreadPoolExecutor(self._workers) as threads:
            futures = {threads.submit(self._run, run): run for run in todo}
            try:
                for future in concurrent.futures.as_completed(futures):
                    run, (failure, seconds) = futures[future], future.result()
                    done += 1
                    if failure:
                        failures[run.name] = failure
                    what = f"failed: {failure}" if failure else f"{seconds:.0f} s"
                    self._say(f"[{done}/{len(todo)}] {run.name}: {what}")
            except BaseException:
                self._stop()
                raise
        return failures

    def _run(self, run: runs.Run) -> tuple[str, float]:
        """Returns what went wrong, "" if nothing did, and the seconds it took."""
        start, workdir = time.perf_counter(), self._folder / run.name
        command = [sys.executable, "-m", "mmcl_jax.main", f"--workdir={workdir}"]
        code = RUN_AGAIN
        while code == RUN_AGAIN:
            with (workdir / OUTPUT).open("w") as output:
                with self._lock:
                    if self._stopped:
                        return "was not started", 0.0
                    process = subprocess.Popen(command, stdout=output, stderr=output)
                    self._processes.add(process)
                code = process.wait()
            with self._lock:
                self._processes.discard(process)
        seconds = time.perf_counter() - start
        if code == 0 and (workdir / "results.json").is_file():
            return "", seconds
        lines = (workdir / OUTPUT).read_text().strip().splitlines()
        return lines[-1] if lines else f"exit code {code}", seconds

    def _stop(self) -> None:
        with self._lock:
            self._stopped = True
            for process in self._processes:
                process.terminate()

    def _say(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)


def run(
    sweep: runs.Sweep, out: str | pathlib.Path, workers: int, console: Console
) -> dict[str, str]:
    """Runs what is missing of a sweep.

    Args:
        sweep: the runs.
        out: their folders are made in `<out>/runs`.
        workers: runs at the same time.
        console: for a line a run.

    Returns:
        The last line of every run that failed, by its name.
    """
    runs.check(sweep)
    folder, todo, failures = pathlib.Path(out) / "runs", [], {}
    for each in sweep.runs:
        try:
            if runs.prepare(each, folder):
                todo.append(each)
        except (ConfigError, DataError) as error:
            failures[each.name] = str(error)
    total = len(sweep.runs)
    console.print(f"{total} runs, {len(todo)} of them to do", highlight=False)
    return failures | Pool(folder, workers, console).run(todo)


def main(argv: list[str]) -> None:
    """Runs, compares, and ends with exit code 1 if a run has failed."""
    console = Console()
    # so that the processes of the runs end with this one
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        if len(argv) > 1 or not _SWEEP.value or not _OUT.value:
            raise ConfigError(
                "give --sweep and --out and nothing but flags, for instance "
                "--sweep=configs/sweeps/world.py --out=runs/sweep"
            )
        file, _, argument = _SWEEP.value.partition(":")
        sweep = runs.load_function(file, "get_sweep")(argument)
        failures = run(sweep, _OUT.value, _WORKERS.value, console)
        out = pathlib.Path(_OUT.value)
        ended = runs.finished(sweep.runs, out / "runs")
        aggregate.check(ended, out / "runs")
    except (ConfigError, DataError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(USAGE_ERROR)
    if ended:
        report = aggregate.aggregate(ended, sweep.baseline, _SWEEP.value)
        aggregate.write(report, out)
        console.print(f"tables: {out / 'summary.md'}", highlight=False, soft_wrap=True)
    if _CHOOSE.value and not failures:
        aggregate.write_choice(aggregate.choose(ended), pathlib.Path(_CHOOSE.value))
    for name, failure in failures.items():
        print(f"failed: {name}: {failure}", file=sys.stderr)
    if failures:
        sys.exit(FAILED)


def start() -> None:
    """Is what `launch/sweep.py` calls."""
    # what this process imported, the processes of the runs find too
    root = str(pathlib.Path(__file__).parents[1])
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ["PYTHONPATH"] = os.pathsep.join(paths)
    app.run(main)


if __name__ == "__main__":
    start()
