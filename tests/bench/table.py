"""What benches share: a clock, medians with quartiles, tables and JSON."""

import json
import os
import pathlib
import platform
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from rich.console import Console
from rich.table import Table


class Spread(NamedTuple):
    """Median and quartiles of a few measurements."""

    low: float
    median: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.3g} ({self.low:.3g}-{self.high:.3g})"


def spread(values: Sequence[float]) -> Spread:
    """Returns the median of some measurements between their quartiles."""
    return Spread(*(float(x) for x in np.quantile(values, [0.25, 0.5, 0.75])))


def seconds(call: Callable[[], Any]) -> float:
    """Returns what a call takes until its result is there.

    On a CPU, that is processor time, which what else the machine does hardly changes;
    on another device, time.
    """
    clock = time.process_time
    if jax.default_backend() != "cpu":
        clock = time.perf_counter
    start = clock()
    jax.block_until_ready(call())
    return clock() - start


def rounds(calls: dict[Any, Callable[[], Any]], times: int) -> dict[Any, list[float]]:
    """Measures calls in turns, so that what disturbs one disturbs them all.

    Each is called once before that, to compile what it needs.
    """
    for call in calls.values():
        jax.block_until_ready(call())
    measured: dict[Any, list[float]] = {key: [] for key in calls}
    for _ in range(times):
        for key, call in calls.items():
            measured[key].append(seconds(call))
    return measured


def show(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Prints a table."""
    table = Table(title=title)
    for i, name in enumerate(columns):
        table.add_column(name, justify="right" if i else "left")
    for row in rows:
        table.add_row(*(f"{x:.3g}" if type(x) is float else str(x) for x in row))
    Console().print(table)


def machine() -> dict[str, Any]:
    """Returns what the numbers were measured with."""
    device = jax.devices()[0]
    return {
        "platform": platform.platform(),
        "python": platform.python_version(),
        "cpus": os.cpu_count(),
        "device": device.device_kind,
        "devices": jax.device_count(),
        "jax": jax.__version__,
        "clock": "cpu seconds" if jax.default_backend() == "cpu" else "seconds",
    }


def write(path: str | None, results: dict[str, Any]) -> None:
    """Writes what was measured, and where, as JSON."""
    if path:
        content = {"machine": machine()} | results
        pathlib.Path(path).write_text(json.dumps(content, indent=2) + "\n")
