"""Runs of a sweep as processes on this machine."""

import concurrent.futures
import os
import pathlib
import subprocess
import sys
import threading

from rich.console import Console

from mmcl_jax.errors import RUN_AGAIN
from mmcl_jax.plain_text import printable
from mmcl_jax.sweeps import runs
from mmcl_jax.sweeps.standing import Standing
from mmcl_jax.training import remote_names
from mmcl_jax.training.preemption import PARENT
from mmcl_jax.workdir import layout
from mmcl_jax.workdir.lock import Lock


def run(
    sweep: runs.Sweep, out: str | pathlib.Path, workers: int, console: Console
) -> dict[str, str]:
    """Starts the missing runs of a sweep, and waits for their end.

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
        todo, failures = runs.prepare(sweep, folder, console)
        return failures | Pool(folder, workers, console).run(todo)
    finally:
        lock.release()


class Pool:
    """Processes of runs, `workers` at a time; all end with the program."""

    def __init__(self, folder: pathlib.Path, workers: int, console: Console) -> None:
        """Starts nothing."""
        self._folder, self._workers, self._console = folder, workers, console
        self._processes: set[subprocess.Popen] = set()
        self._lock, self._stopped = threading.Lock(), False

    def run(self, todo: list[runs.SweepRun]) -> dict[str, str]:
        """Runs all of them; returns the reason of each failure, by the run's name."""
        failures = {}
        with (
            Standing(self._console, len(todo), self._workers) as standing,
            concurrent.futures.ThreadPoolExecutor(self._workers) as threads,
        ):
            futures = {threads.submit(self._run, run, standing): run for run in todo}
            try:
                for future in concurrent.futures.as_completed(futures):
                    run, (failure, seconds) = futures[future], future.result()
                    if failure:
                        failures[run.name] = failure
                    what = f"failed: {failure}" if failure else f"{seconds:.0f} s"
                    self._say(f"{run.name}: {what}; {standing.line()}")
            except BaseException:
                self._stop()
                raise
        return failures

    def _run(self, run: runs.SweepRun, standing: Standing) -> tuple[str, float]:
        """Returns what went wrong ("" if nothing), and the seconds it took."""
        workdir = self._folder / run.name
        standing.begun(workdir)
        main = [sys.executable, "-m", "mmcl_jax.main", f"--workdir={workdir}"]
        command = [*main, *remote_names.flags(run.config)]
        variables = os.environ | {PARENT: str(os.getpid())}
        code = RUN_AGAIN
        while code == RUN_AGAIN:
            with (workdir / layout.OUTPUT).open("w") as output:
                # under the lock, so that no process starts once `_stop` has run
                with self._lock:
                    if self._stopped:
                        return "was not started", 0.0
                    process = subprocess.Popen(
                        command, stdout=output, stderr=output, env=variables
                    )
                    self._processes.add(process)
                code = process.wait()
            with self._lock:
                self._processes.discard(process)
        seconds = standing.ended(workdir)
        if code == 0 and layout.is_finished(workdir):
            return "", seconds
        return runs.last_line(workdir) or f"exit code {code}", seconds

    def _stop(self) -> None:
        with self._lock:
            self._stopped = True
            for process in self._processes:
                process.terminate()

    def _say(self, line: str) -> None:
        self._console.print(
            printable(line), markup=False, highlight=False, soft_wrap=True
        )
