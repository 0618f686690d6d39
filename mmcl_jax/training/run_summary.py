"""What `results.json` says of a run."""

import dataclasses
from typing import Any

from mmcl_jax.evaluation import cost
from mmcl_jax.models.model import Model
from mmcl_jax.parallel.environment import environment
from mmcl_jax.streams.description import describe_tasks
from mmcl_jax.training.build import Run
from mmcl_jax.workdir.results import Results, plain


def whole_report(run: Run, results: Results) -> dict[str, Any]:
    """Returns what `results.json` holds."""
    return plain(
        {
            "schema": 1,
            "method": run.config.method.name,
            "seeds": dataclasses.asdict(run.config.seeds),
            "environment": environment(run.mesh),
            "knowledge": level_of_knowledge(run.model),
            "modalities": run.stream.modalities,
            "tasks": describe_tasks(run.stream),
            "skipped_samples": run.skipped_samples,
            **results.report(),
            "cost": {
                "seconds": {k: round(v, 3) for k, v in results.seconds.items()},
                "compilations": sum(results.compilations.values()),
                "forwards_per_step": results.forwards.get("train_step", 0),
                "forwards_per_prediction": results.forwards.get("predict", 0),
                **cost.sizes(run.make_method, run.model),
            },
        }
    )


def level_of_knowledge(model: Model) -> str:
    """Says what a prediction may know, from most to least.

    L0: modality and task. L1: the modality. L2: neither, but towers differ by modality.
    L3: neither, and one tower serves all. Where modalities have towers of their own, a
    prediction is L3 at best among those that share one.
    """
    groups = [
        ", ".join(model.modalities[i] for i in model.members(tower))
        for tower in dict.fromkeys(model.towers)
    ]
    agnostic = "L3"
    if len(groups) > 1:
        shared = [f"L3 among {group}; " for group in groups if "," in group]
        agnostic = f"{''.join(shared)}L2 between {' | '.join(groups)}"
    return (
        "level of knowledge: task labels and given modality L0, modality labels and "
        f"given modality L1, union labels and predicted modality {agnostic}"
    )
