"""Contestants take turns, so that what disturbs a machine disturbs all of them."""

import argparse
import json
import os
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from tests.bench import table


class Timing(NamedTuple):
    """How long a contestant took, in seconds.

    Attributes:
        median: of the time on the clock.
        low: first quartile.
        high: third quartile.
        cpu: median of the time of all processors together, which other programs on the
            machine change little.
    """

    median: float
    low: float
    high: float
    cpu: float


def take_turns(
    contestants: dict[str, Callable[[], Any]], rounds: int
) -> dict[str, Timing]:
    """Times each contestant in turn, after a turn of each that is not counted."""
    clock = {name: [] for name in contestants}
    cpu = {name: [] for name in contestants}
    for turn in range(rounds + 1):
        for name, run in contestants.items():
            start = time.perf_counter(), time.process_time()
            jax.block_until_ready(run())
            if turn:
                clock[name].append(time.perf_counter() - start[0])
                cpu[name].append(time.process_time() - start[1])
    return {
        name: Timing(
            *(float(q) for q in np.quantile(clock[name], (0.5, 0.25, 0.75))),
            float(np.median(cpu[name])),
        )
        for name in contestants
    }


def rows(timings: dict[str, Timing], against: str) -> list[dict[str, Any]]:
    """Returns a row for each contestant, with its speed relative to one of them."""
    reference = timings[against]
    return [
        {
            "contestant": name,
            "ms": round(1e3 * timing.median, 2),
            "quartiles": f"{1e3 * timing.low:.2f} - {1e3 * timing.high:.2f}",
            "CPU ms": round(1e3 * timing.cpu, 2),
            f"times as fast as {against}": round(reference.median / timing.median, 2),
            "by CPU time": round(reference.cpu / timing.cpu, 2),
        }
        for name, timing in timings.items()
    ]


def arguments(description: str | None, sizes: Sequence[str]) -> argparse.Namespace:
    """Returns the flags that all benches share."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--size", choices=sizes, default=sizes[0])
    parser.add_argument("--rounds", type=int, default=15, help="turns of each")
    parser.add_argument("--out", type=pathlib.Path, help="where JSON is written")
    given = parser.parse_args()
    if given.size == "tiny":
        given.rounds = 2
    return given


def report(
    tables: dict[str, list[dict[str, Any]]], given: argparse.Namespace, **facts: Any
) -> None:
    """Prints Markdown tables, and writes them with the machine they are of as JSON."""
    for title, records in tables.items():
        print(f"\n{title}\n")
        if records:
            head = list(records[0])
            values = (record.values() for record in records)
            for line in (head, ["---"] * len(head), *values):
                print(f"| {' | '.join(map(str, line))} |")
    machine = table.machine() | {"load": os.getloadavg()[0]}
    if given.out:
        content = {"size": given.size, "rounds": given.rounds, "machine": machine}
        given.out.write_text(json.dumps(content | facts | {"tables": tables}, indent=2))
