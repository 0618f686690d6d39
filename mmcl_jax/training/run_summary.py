"""What is written about a stage that has been evaluated, and about a whole run."""

import dataclasses
import pathlib
from typing import Any

import numpy as np

from mmcl_jax.evaluation import cost, label_spaces
from mmcl_jax.evaluation.control_sets import ControlPredictions
from mmcl_jax.models.model import Model
from mmcl_jax.parallel.environment import environment
from mmcl_jax.streams.base import Stream, scored_tasks
from mmcl_jax.streams.description import describe_tasks
from mmcl_jax.training.batches import Feed
from mmcl_jax.training.build import Run
from mmcl_jax.workdir import layout, novelty, predictions, temperatures
from mmcl_jax.workdir.results import Results, plain


def write_scores(
    workdir: pathlib.Path,
    run_id: str,
    run: Run,
    feed: Feed,
    text: np.ndarray,
    results: Results,
    by_task: label_spaces.ByTask,
    controls: ControlPredictions | None,
) -> None:
    """Writes predictions, calibration and some embeddings after a stage.

    Args:
        workdir: Workdir of the run.
        run_id: Id of the run, which the files carry.
        run: The run.
        feed: Holds the cached queries of all test sets.
        text: Unit embeddings of the class names `[C d]`.
        results: Results with the calibration of the stage; `results.stages` does not
            count the stage yet.
        by_task: Predictions for the test sets.
        controls: Predictions for control sets; None: there are none.
    """
    stage = results.stages
    path = layout.predictions(workdir, stage)
    predictions.save_predictions(path, run_id, stage, by_task, controls)
    temperatures.write(workdir, run_id, results.temperatures)
    novelty.write(workdir, run_id, results.novelty)
    seen, _ = scored_tasks(run.stream, stage, "next")
    tests = (row for i in seen for row in run.stream.tasks[i].test)
    rows = predictions.some_of_each_class(tests)
    path = workdir / layout.EMBEDDINGS
    queries = feed.queries(rows)
    predictions.save_embeddings(path, run_id, stage, text, rows, queries)


def mean_accuracies(
    stream: Stream, results: Results, index: int
) -> tuple[float, float, float]:
    """Returns the mean accuracies on test sets after a stage.

    Args:
        stream: The stream that is learned.
        results: Results with the row of the stage.
        index: Index of the stage.

    Returns:
        Three means: over the stage's own tasks, each among its own classes; over all
        tasks seen, among all classes seen, with the modality given; and the same with
        the modality predicted.
    """
    seen, _ = scored_tasks(stream, index, "next")
    row = results.accuracy[:, :, seen[-1]]
    own = row[0, 0, list(stream.stages[index])].mean()
    given, predicted = row[label_spaces.SPACES.index("union")][:, seen].mean(-1)
    return float(own), float(given), float(predicted)


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
    L3: neither, and one tower serves all. If modalities have separate towers, a
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
