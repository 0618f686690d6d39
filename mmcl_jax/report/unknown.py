"""Sections on telling the unknown apart, and on classes that are never learnt."""

import math
from typing import Any

import numpy as np

from mmcl_jax.evaluation.novelty import RATE
from mmcl_jax.report import tables
from mmcl_jax.report.blocks import Section
from mmcl_jax.report.charts import shown
from mmcl_jax.report.run_data import RunData
from mmcl_jax.report.tables import Cell, Table

UNKNOWN = "None of these"
CONTROLS = "Control sets"
_KINDS = {"upcoming": "tasks to come", "reserved": "control sets"}
_MEASURES = {
    "auroc": "AUROC",
    "fpr95": "FPR95",
    "rejected": f"rejected at {100 * RATE:.0f} %",
}


def unknown(run: RunData) -> Section:
    """Returns how well samples of classes that were not learnt are told apart."""
    about = (
        "Test samples of tasks to come, and of control sets, against those of learnt "
        "classes of the same modality, by their novelty; mean over the stages at which "
        "there were any. AUROC: how often the unknown one of a pair looks more novel. "
        "FPR95: the share of unknown samples that pass where 95 % of known ones do. "
        f"Rejected: the share that predict --reject={RATE} calls unknown, while it "
        "does so with the share of known samples in the column of false alarms."
    )
    stages = list(run.results.get("novelty", {}).values())
    if not stages:
        reason = "the run was made by a version that did not measure it"
        return Section("unknown", UNKNOWN, about, absent=reason)
    body = []
    for modality in run.modalities:
        alarms = _mean([s["false_alarms"].get(modality) for s in stages])
        for kind, title in _KINDS.items():
            told = [s[kind][modality] for s in stages if modality in s.get(kind, {})]
            if not told:
                continue
            numbers = [_mean([each[name] for each in told]) for name in _MEASURES]
            words = tables.word(shown(modality)), tables.word(title)
            body.append((*words, *map(tables.percent, [*numbers, alarms])))
    if not body:
        reason = (
            "no unknown sample was of a modality that had been learnt; wait for more "
            "tasks, or reserve classes by --config.stream.reserve"
        )
        return Section("unknown", UNKNOWN, about, absent=reason)
    head = ("modality", "unknown", *_MEASURES.values(), "false alarms")
    title = "Novelty of classes that were not learnt, in percent"
    return Section(
        "unknown", UNKNOWN, about, (Table("unknown", title, head, tuple(body), 2),)
    )


def controls(run: RunData) -> Section:
    """Returns the accuracy on classes that are never learnt, before and after."""
    about = (
        "Classes that are never learnt, among those of their modality: the nearest "
        "class text, by the frozen encoder (before) and by the embedding that the "
        "method's predictions are made from (after a stage). Methods that leave the "
        "tower as it is change nothing, and files that are gone are not scored."
    )
    sets = run.results.get("reserved", [])
    if not sets:
        reason = "no classes are reserved; --config.stream.reserve reserves some"
        return Section("controls", CONTROLS, about, absent=reason)
    body = []
    for told in sets:
        accuracy = [_float(value) for value in told["accuracy"]]
        there = [value for value in accuracy if not math.isnan(value)]
        before, last = _float(told["zero_shot"]), accuracy[-1] if accuracy else math.nan
        row: list[Cell] = [
            tables.word(shown(told["modality"])),
            tables.number(told["classes"]),
            tables.number(told["samples"]),
            tables.percent(before),
            tables.percent(min(there, default=math.nan)),
            tables.percent(last),
            tables.percent(last - before, signed=True),
        ]
        body.append(tuple(row))
    columns = ("classes", "samples", "before", "lowest", "now", "change")
    title = "Accuracy on classes that are never learnt, in percent"
    table = Table("controls", title, ("modality", *columns), tuple(body))
    return Section("controls", CONTROLS, about, (table,))


def _float(value: Any) -> float:
    return math.nan if value is None else float(value)


def _mean(values: list[float | None]) -> float:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else math.nan
