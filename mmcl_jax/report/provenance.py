"""Sections on the cost, the configuration and the warnings of runs."""

import math
from typing import Any

from mmcl_jax.analysis import statistics
from mmcl_jax.analysis.measures import COSTS
from mmcl_jax.report import tables
from mmcl_jax.report.blocks import Block, Facts, Remarks, Section, Text
from mmcl_jax.report.charts import shown
from mmcl_jax.report.run_data import Groups, RunData, flat
from mmcl_jax.report.tables import Cell, Table

_LINES = 40


def cost(groups: Groups) -> Section:
    """Returns seconds of each part, sizes, and passes through a tower."""
    parts = dict.fromkeys(
        part
        for runs in groups.values()
        for run in runs
        for part in run.results["cost"]["seconds"]
    )
    seconds = [
        _row(
            part,
            [
                [run.results["cost"]["seconds"].get(part, 0.0) for run in runs]
                for runs in groups.values()
            ],
            1,
        )
        for part in parts
    ]
    others = {
        key: _row(
            title,
            [
                [run.results["cost"].get(key, math.nan) for run in runs]
                for runs in groups.values()
            ],
            0,
        )
        for key, title in COSTS.items()
        if key != "seconds"
    }
    mean = ", mean over runs" if max(map(len, groups.values())) > 1 else ""
    head = tuple(map(shown, groups)) if len(groups) > 1 else ("amount",)
    sizes = tuple(row for key, row in others.items() if key.startswith("bytes"))
    counts = tuple(row for key, row in others.items() if not key.startswith("bytes"))
    about = (
        "Wall-clock seconds of each part of the loop; the time of the report is in no "
        "other part. Bytes: size of all that a snapshot holds, and its growth per "
        "class and per task. Forwards: passes through a tower."
    )
    blocks = (
        Table("cost", f"Seconds{mean}", ("part", *head), tuple(seconds)),
        Table("cost-bytes", f"Bytes{mean}", ("", *head), sizes),
        Table("cost-numbers", f"Numbers{mean}", ("", *head), counts),
    )
    return Section("cost", "Cost", about, blocks)


def _row(what: str, values: list[list[float]], digits: int) -> tuple[Cell, ...]:
    """Returns the name of a cost, and its mean over the runs of each method."""
    means = [statistics.summary(of_runs).mean for of_runs in values]
    return tables.word(shown(what)), *(tables.number(mean, digits) for mean in means)


def setup(groups: Groups) -> Section:
    """Returns configuration, seeds, versions and workdirs of the runs."""
    blocks: list[Block] = []
    runs = [(name, run) for name, members in groups.items() for run in members]
    common = set.intersection(
        *(set(map(repr, flat(run.config).items())) for _, run in runs)
    )
    shared = [
        (key, _value(value))
        for key, value in flat(runs[0][1].config).items()
        if repr((key, value)) in common
    ]
    for name, run in runs[:_LINES]:
        own = [
            (key, _value(value))
            for key, value in flat(run.config).items()
            if repr((key, value)) not in common
        ]
        title = f"{shown(name)}: {run.workdir.name}"
        blocks.append(Facts(shown(title, 100), (*_facts(run), *own)))
    blocks.append(Facts("Configuration", tuple(shared), folded=True))
    if len(runs) > _LINES:
        blocks.append(Remarks((f"{len(runs) - _LINES} more runs are not listed.",)))
    about = "Everything needed to run it again."
    return Section("setup", "Configuration", about, tuple(blocks))


def _facts(run: RunData) -> tuple[tuple[str, str], ...]:
    results = run.results
    environment = {str(k): _value(v) for k, v in results["environment"].items()}
    seeds = ", ".join(f"{k} {v}" for k, v in results["seeds"].items())
    return (
        ("workdir", shown(run.workdir, 200)),
        ("method", shown(run.method)),
        ("seeds", shown(seeds)),
        ("stream", _value(run.stored.hash)),
        ("encoder", _value(run.stored.encoder)),
        *environment.items(),
        ("knowledge", shown(results.get("knowledge", "not stated yet"), 400)),
    )


def _value(value: Any) -> str:
    return "not known" if value is None else shown(value, 200)


def remarks(groups: Groups) -> Section:
    """Returns the warnings of all runs."""
    lines = []
    runs = [(name, run) for name, members in groups.items() for run in members]
    for name, run in runs:
        where = f"{shown(name)} ({run.workdir.name}): " if len(runs) > 1 else ""
        lines += [shown(where + line, 300) for line in _remarks(run)]
    if more := len(lines) - _LINES:
        lines = [*lines[:_LINES], f"and {more} more lines"] if more > 0 else lines
    learnt = [{run.stored.hash for run in of} for of in groups.values()]
    if any(hashes != learnt[0] for hashes in learnt):
        lines.insert(
            0, "the methods were not run over the same streams; compare with care"
        )
    about = "Skipped samples, leaks, jitter, refused steps, restarts, unfinished runs."
    block = Remarks(tuple(lines)) if lines else Text("There are no warnings.")
    return Section("warnings", "Warnings", about, (block,))


def _remarks(run: RunData) -> list[str]:
    results, found = run.results, []
    if not run.finished:
        learnt, stages = len(run.rows), len(run.stream.stages)
        found.append(f"unfinished: {learnt} of {stages} stages are learnt")
    if skipped := results["skipped_samples"]:
        found.append(f"{skipped} samples were skipped: they cannot be decoded")
    for stage, most in results["jitter"].items():
        found.append(
            f"up to {most:.1e} was added to the diagonal of a matrix that was close to "
            f"singular, in stage {int(stage) + 1}"
        )
    if refused := results["refused_steps"]:
        found.append(f"{refused} steps were refused: loss or gradient was not finite")
    if differing := results["batch_dependence"]["differing"]:
        found.append(
            f"{differing} predictions depended on the rest of their batch, of "
            f"{results['batch_dependence']['predicted_again']} that were made again"
        )
    if restarts := results["restarts"]:
        found.append(f"it was resumed {restarts} times")
    return [*found, *run.log]
