"""Sections on prompts of one run: how they are blended, and how far they moved."""

import numpy as np

from mmcl_jax.report import theme
from mmcl_jax.report.blocks import Key, Panels, Section
from mmcl_jax.report.charts import Label, Lines, Matrix, Series, shown
from mmcl_jax.report.run_data import RunData


def relevance(run: RunData) -> Section:
    """Returns the weight of each modality's prompts in a sample's prompt."""
    about = (
        "Mean weight of each modality's prompts in the prompt of a sample, after each "
        "task since the modality of the sample was first learnt; one panel for the "
        "samples of each modality."
    )
    title, found = "Relevance over time", run.history.relevance
    if not found:
        reason = run.history.absent["relevance"]
        return Section("relevance", title, about, absent=reason)
    marks, charts = theme.of_modalities(run.modalities), []
    for m, modality in enumerate(run.modalities):
        stages = [s for s in found if modality in _met(run, s)]
        if not stages:
            continue
        x = tuple(run.rows[stage] + 1 for stage in stages)
        series = [
            Series(other, marks[other], x, tuple(float(found[s][m, n]) for s in stages))
            for n, other in enumerate(run.modalities)
        ]
        charts.append(
            Lines(
                f"relevance-{shown(modality)}",
                f"Samples of {shown(modality)}",
                "mean weight",
                tuple(series),
                (-0.02, 1.02),
            )
        )
    legend = tuple(Key(m, marks[m]) for m in run.modalities)
    return Section("relevance", title, about, (Panels(tuple(charts), legend),))


def drift(run: RunData) -> Section:
    """Returns how far prompts moved between snapshots."""
    about = (
        "Distance between the prompts of consecutive snapshots, in percent of the norm "
        "of the earlier ones, since a modality was first learnt; 0 if they did not "
        "move. Drift of old prompts is one cause of forgetting."
    )
    title, found = "Prompt drift", run.history.drift
    groups = list(dict.fromkeys(name for moved in found.values() for name in moved))
    stages = [stage for stage in found if found[stage]]
    if not groups or not stages:
        return Section("drift", title, about, absent=run.history.absent["drift"])
    marks = theme.of_modalities(run.modalities)
    values = []
    for name in groups:
        modality = name in run.modalities
        values.append(
            tuple(
                found[s].get(name, np.nan)
                if not modality or name in _met(run, s - 1)
                else np.nan
                for s in stages
            )
        )
    largest = np.nanmax([v for row in values for v in row] + [1e-9])
    matrix = Matrix(
        "drift",
        "Prompt drift",
        "prompts, after task",
        tuple(Label(shown(n), marks[n].colour if n in marks else "") for n in groups),
        tuple(Label(f"{run.rows[s] + 1}", "") for s in stages),
        tuple(values),
        tuple(tuple(v / largest for v in row) for row in values),
    )
    return Section("drift", title, about, (matrix,))


def _met(run: RunData, stage: int) -> set[str]:
    """Returns the modalities that were learnt up to a stage."""
    done = run.stream.stages[: stage + 1]
    return {run.tasks[i]["modality"] for tasks in done for i in tasks}
