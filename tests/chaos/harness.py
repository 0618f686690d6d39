"""Starts the real command, disturbs it, and compares what it ends with."""

import math
import pathlib
import random
import signal
import subprocess
import sys
import time
from typing import Any, NamedTuple

import numpy as np

from tests import helpers

TASKS = 6
RUN_AGAIN = 75
_PATIENCE = 600.0  # seconds


def flags(encoder: pathlib.Path, every: int, tasks: int = TASKS) -> tuple[str, ...]:
    """Returns the flags of a run of a few small tasks in two modalities.

    COMM has all that can be lost: an optimizer, statistics of two passes, a snapshot to
    be held to.
    """
    return (
        "--config=configs/demo.py:smoke",
        f"--config.encoder.path={encoder}",
        "--config.stream.modalities=image,depth",
        f"--config.stream.tasks={tasks}",
        "--config.stream.classes_per_task=2",
        "--config.train.epochs=4",
        "--config.train.batch_size=4",
        f"--config.checkpoint.every_steps={every}",
    )


class Run:
    """One start after the other of the same command on one workdir."""

    def __init__(
        self, encoder: pathlib.Path, workdir: pathlib.Path, every: int = 7
    ) -> None:
        """Starts nothing yet; a checkpoint is made after `every` moves."""
        self.workdir, self._flags = workdir, flags(encoder, every)
        self.output = workdir.with_suffix(".txt")
        self.starts = 0

    def start(self) -> subprocess.Popen:
        """Starts the command."""
        self.starts += 1
        with self.output.open("a") as output:
            return subprocess.Popen(
                self._command(),
                cwd=helpers.REPOSITORY,
                env=helpers.environment(),
                stdout=output,
                stderr=output,
            )

    def finish(self) -> int:
        """Starts the command and returns its exit code."""
        with self.start() as process:
            return process.wait(_PATIENCE)

    def starve(self, file_size: int) -> int:
        """Starts the command, which can write so many KiB of a file, as on a full disk.

        Returns:
            The exit code.
        """
        limit = ["bash", "-c", f'ulimit -f {file_size}; exec "$@"', "bash"]
        # by a pipe, since the limit is one for what it prints, too
        done = subprocess.run(
            [*limit, *self._command()],
            cwd=helpers.REPOSITORY,
            env=helpers.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_PATIENCE,
        )
        with self.output.open("a") as output:
            output.write(done.stdout)
        return done.returncode

    def _command(self) -> list[str]:
        main = [sys.executable, "-m", "mmcl_jax.main", f"--workdir={self.workdir}"]
        return [*main, *self._flags]

    def disturb(self, number: signal.Signals, moment: "Moment") -> int | None:
        """Sends a signal at a moment; None if the run had ended by then.

        Returns:
            The exit code.
        """
        with self.start() as process:
            before = self.moves()
            while process.poll() is None and self.moves() < before + moment.moves:
                time.sleep(0.02)
            try:
                process.wait(moment.seconds)
                return None
            except subprocess.TimeoutExpired:
                process.send_signal(number)
                return process.wait(_PATIENCE)

    def moves(self) -> int:
        """Returns the number of the newest checkpoint."""
        return moves_of(self.workdir)


def moves_of(workdir: pathlib.Path) -> int:
    """Returns the number of the newest checkpoint, 0 where there is none."""
    names = [path.name for path in (workdir / "checkpoints").glob("*")]
    return max((int(name) for name in names if name.isdigit()), default=0)


class Moment(NamedTuple):
    """When a start is disturbed: so many seconds after so many moves."""

    moves: int
    seconds: float


def undisturbed(encoder: pathlib.Path, workdir: pathlib.Path, every: int = 7) -> int:
    """Makes the run that others are compared to, and returns its moves."""
    run = Run(encoder, workdir, every)
    if code := run.finish():
        raise RuntimeError(f"exit code {code}: {run.output.read_text()}")
    return run.moves()


def moments(moves: int, number: int, seed: int) -> list[Moment]:
    """Returns when to disturb each start, so that all together get on a bit.

    A quarter of them come while the program starts.

    Args:
        moves: of the whole run.
        number: of disturbances.
        seed: of the draws.
    """
    draw = random.Random(seed)
    early = [draw.random() < 0.25 for _ in range(number)]
    gain = moves / number
    return [
        Moment(0, draw.uniform(0, 8))
        if before
        else Moment(math.ceil(draw.uniform(0, gain)), draw.uniform(0, 0.2))
        for before in early
    ]


def differences(
    one: pathlib.Path, other: pathlib.Path, tasks: int = TASKS
) -> list[str]:
    """Returns in what two workdirs differ, bitwise, but for times and restarts."""
    found = []
    for stage in range(tasks):
        for what in (helpers.snapshot, helpers.predictions):
            left, right = what(one, stage), what(other, stage)
            if left.keys() != right.keys():
                found.append(f"{what.__name__} {stage}: other arrays")
                continue
            found += [
                f"{what.__name__} {stage}: {name}"
                for name in left
                if left[name].tobytes() != right[name].tobytes()
            ]
    left, right = _results(one), _results(other)
    found += [f"results.json: {name}" for name in left if left[name] != right.get(name)]
    for name in ("calibration.json", "novelty.json", "embeddings.npz"):
        if (one / name).read_bytes() != (other / name).read_bytes():
            found.append(name)
    logged = [_scalars(workdir) for workdir in (one, other)]
    if logged[0] != logged[1]:
        found.append("metrics.jsonl")
    return found


def _results(workdir: pathlib.Path) -> dict[str, Any]:
    results = helpers.results(workdir)
    del results["restarts"], results["cost"]["seconds"]
    return results


def _scalars(workdir: pathlib.Path) -> list[str]:
    return (workdir / "metrics.jsonl").read_text().splitlines()


def flip_bits(folder: pathlib.Path, seed: int) -> pathlib.Path:
    """Flips a bit in the largest file of a folder and returns its path."""
    path = max(folder.rglob("*"), key=lambda p: p.stat().st_size if p.is_file() else -1)
    data = bytearray(path.read_bytes())
    position = np.random.default_rng(seed).integers(len(data))
    data[position] ^= 1 << int(position % 8)
    path.write_bytes(data)
    return path
