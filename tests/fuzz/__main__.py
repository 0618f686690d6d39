"""`python -m tests.fuzz --decoder=NAME --inputs=N --seed=S`: a table of what happened.

Exit code 1 if an input killed the process that read it, raised anything but `DataError`
and `ConfigError`, took too long or too much memory, or was refused without its name.
"""

import argparse
import collections
import json
import signal
import subprocess
import sys
from typing import NamedTuple

from tests.fuzz import DECODERS, Work

OUTCOMES = ("accepted", "rejected", "unnamed", "crashes", "hangs", "memory")
FINE = ("accepted", "rejected")
_LISTED = 20


class Report(NamedTuple):
    """What happened to the inputs of a decoder.

    Attributes:
        counts: inputs by outcome.
        peak_mib: most memory on top of the imported program.
        failures: a line for each input with an outcome that it should not have.
    """

    counts: collections.Counter[str]
    peak_mib: int
    failures: list[str]


def fuzz(work: Work) -> Report:
    """Reads all inputs in child processes; one that dies is replaced by a new one."""
    counts, peak, failures = collections.Counter(), 0, []
    while work.start < work.stop:
        command = [sys.executable, "-m", "tests.fuzz.child", json.dumps(work._asdict())]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as child:
            assert child.stdout
            lines = [json.loads(line) for line in child.stdout]
        if not lines and child.returncode > 0:
            raise RuntimeError(f"{command}: ended with {child.returncode}")
        if work.start + len(lines) < work.stop:
            hung = -child.returncode in (signal.SIGPROF, signal.SIGALRM)
            lines.append(
                {
                    "index": work.start + len(lines),
                    "outcome": "hangs" if hung else "crashes",
                    "message": f"ended with exit code {child.returncode}",
                    "mib": 0,
                }
            )
        for line in lines:
            counts[line["outcome"]] += 1
            peak = max(peak, line["mib"])
            if line["outcome"] not in FINE:
                failures.append(
                    f"{work.decoder} {line['index']} {line['outcome']}: "
                    f"{line['message']}"
                )
        work = work._replace(start=work.start + len(lines))
    return Report(counts, peak, failures)


def main() -> None:
    """Fuzzes, prints the table, and what went wrong below it."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--decoder", default="all", choices=["all", *DECODERS])
    parser.add_argument("--inputs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--start", type=int, default=0, help="number of the first input"
    )
    parser.add_argument("--memory_mib", type=int, default=2048)
    parser.add_argument("--seconds", type=float, default=20.0, help="for one input")
    flags = parser.parse_args()
    row = "{:<9}" + "{:>10}" * (2 + len(OUTCOMES))
    print(row.format("decoder", "inputs", *OUTCOMES, "peak MiB"))
    failures = []
    for decoder in DECODERS if flags.decoder == "all" else [flags.decoder]:
        stop = flags.start + flags.inputs
        work = Work(
            decoder, flags.seed, flags.start, stop, flags.memory_mib, flags.seconds
        )
        report = fuzz(work)
        counts = [report.counts[outcome] for outcome in OUTCOMES]
        print(row.format(decoder, flags.inputs, *counts, report.peak_mib), flush=True)
        failures += report.failures
    for failure in failures[:_LISTED]:
        print(failure)
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
