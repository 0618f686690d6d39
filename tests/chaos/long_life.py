"""`python -m tests.chaos.long_life --tasks=200`.

Runs many small tasks in one process and prints, behind each, what the process holds:
resident memory, open files, threads, and the time of the task without its evaluation.
Exit code 1: one of them grows.
"""

import argparse
import json
import pathlib
import statistics
import sys
import tempfile
import time
from typing import NamedTuple

from tests import helpers

MODALITIES = ("image", "text")
# how much more the end may take than the beginning; idle threads come and go
MEMORY, TIME, THREADS = 1.05, 1.10, 1.10


class Held(NamedTuple):
    """What a process holds behind a task: MiB, numbers, and seconds of the task."""

    memory: float
    files: int
    threads: int
    seconds: float


def write_data(root: pathlib.Path, tasks: int) -> None:
    """Writes pictures and sentences of two classes a task, half of the tasks each."""
    (root / "text" / "many").mkdir(parents=True)
    for part, number in (("train", 4), ("test", 1)):
        rows = [
            f"about {part} {c} {k},word {c}"
            for c in range(tasks)
            for k in range(number)
        ]
        path = root / "text" / "many" / f"{part}.csv"
        path.write_text("\n".join(["text,label", *rows]) + "\n")
        for c in range(tasks):
            folder = root / "image" / "many" / part / f"thing {c}"
            for k in range(number):
                helpers.write(folder, "image", 5 * c + k + 4 * (part == "test"))


def watch(encoder: pathlib.Path, workdir: pathlib.Path, tasks: int) -> list[Held]:
    """Runs `tasks` tasks and returns what the process held behind each."""
    root = workdir.with_name("data")
    write_data(root, tasks)
    run = helpers.start_run(
        "--config=configs/folders.py",
        f"--config.stream.root={root}",
        f"--config.encoder.path={encoder}",
        "--config.stream.order=interleaved",
        "--config.stream.classes_per_task=2",
        "--config.train.batch_size=8",
        "--config.train.epochs=4",
        workdir=workdir,
    )
    process = pathlib.Path("/proc") / str(run.process.pid)
    found: list[tuple[float, int, int]] = []
    while run.process.poll() is None:
        done = len(list((workdir / "snapshots").glob("[0-9]*/checksums.json")))
        if done > len(found):
            try:
                status = dict(
                    line.split(":", 1)
                    for line in (process / "status").read_text().splitlines()
                )
                files = len(list((process / "fd").iterdir()))
            except OSError:  # it has just ended
                break
            memory = int(status["VmRSS"].split()[0]) / 1024
            found += [(memory, files, int(status["Threads"]))] * (done - len(found))
        time.sleep(0.02)
    ended = run.finish()
    if ended.code:
        raise RuntimeError(ended.errors)
    return [
        Held(*held, seconds)
        for held, seconds in zip(found, _seconds(workdir, tasks), strict=False)
    ]


def _seconds(workdir: pathlib.Path, tasks: int) -> list[float]:
    """Returns the time of each task without its evaluation."""
    total = [0.0]
    for stage in range(tasks):
        path = workdir / "snapshots" / f"{stage:03d}" / "results" / "metadata"
        seconds = json.loads(path.read_text())["seconds"]
        total.append(sum(seconds[p] for p in ("prepare", "train", "observe")))
    return [after - before for before, after in zip(total, total[1:], strict=False)]


def growth(held: list[Held]) -> dict[str, float]:
    """Returns the end as a multiple of what was held a tenth into the run.

    Medians over a tenth of the tasks, since single tasks are disturbed by others.
    """
    tenth = max(len(held) // 10, 1)
    early, late = held[tenth : 2 * tenth], held[-tenth:]
    return {
        name: statistics.median(getattr(h, name) for h in late)
        / statistics.median(getattr(h, name) for h in early)
        for name in Held._fields
    }


def main() -> None:
    """Prints a line for every tenth of the tasks, and the growth."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=200)
    tasks = parser.parse_args().tasks
    with tempfile.TemporaryDirectory() as name:
        encoder = pathlib.Path(name) / "encoder"
        encoder.mkdir()
        helpers.make_encoder(encoder)
        held = watch(encoder, pathlib.Path(name) / "run", tasks)
        results = json.loads((pathlib.Path(name) / "run/results.json").read_text())
    for i in range(len(held) // 10 - 1, len(held), max(len(held) // 10, 1)):
        print(
            f"task {i + 1}: {held[i].memory:.0f} MiB, {held[i].files} files, "
            f"{held[i].threads} threads, {held[i].seconds:.2f} s"
        )
    grown = growth(held)
    compiled = results["cost"]["compilations"]
    print(
        {k: round(v, 3) for k, v in grown.items()}, f"{compiled} train steps compiled"
    )
    grows = grown["memory"] > MEMORY or grown["seconds"] > TIME
    grows |= max(grown["files"], grown["threads"]) > THREADS or compiled > len(
        MODALITIES
    )
    sys.exit(1 if grows else 0)


if __name__ == "__main__":
    main()
