"""What is written about a stage that has been evaluated, and about a whole run."""

import dataclasses
import os
import pathlib
import shlex
import shutil
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from mmcl_jax import plugins
from mmcl_jax.cli import programs
from mmcl_jax.evaluation import cost, cross_modal, label_spaces, returning
from mmcl_jax.evaluation.control_sets import ControlPredictions
from mmcl_jax.models.model import Model
from mmcl_jax.parallel.environment import environment
from mmcl_jax.plain_text import printable
from mmcl_jax.streams.base import Stream, scored_tasks
from mmcl_jax.streams.description import describe_tasks
from mmcl_jax.training import capacity
from mmcl_jax.training.batches import Feed
from mmcl_jax.training.build import Run
from mmcl_jax.types import Capacity
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
    scored = [i for i in seen if i not in run.unscored]
    tests = (row for i in scored for row in run.stream.tasks[i].test)
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
        Three means: over the tasks of the stage's classes, each among its own classes;
        over all tasks seen and scored, among the classes seen of the modality that is
        given; and of the one that is predicted.
    """
    seen, _ = scored_tasks(stream, index, "next")
    row = results.accuracy[:, :, seen[-1]]
    # some test sets may be gone, and classes that return have theirs in an earlier task
    scored = [i for i in seen if not np.isnan(row[..., i]).all()]
    rows = returning.course(stream).trains[list(stream.stages[index])]
    trains = np.any(rows, axis=0)
    own = row[0, 0, [i for i in scored if trains[i]]].mean()
    given, predicted = row[label_spaces.SPACES.index("routed")][:, scored].mean(-1)
    return float(own), float(given), float(predicted)


def said(stream: Stream, index: int, own: float, predicted: float) -> str:
    """Returns two mean accuracies after a stage for people, each beside chance.

    Args:
        stream: The stream that is learned.
        index: Index of the stage.
        own: Of the stage's tasks, each among its own classes.
        predicted: Of all tasks seen, among the classes seen of the predicted modality.
    """
    sizes = [len(stream.tasks[i].classes) for i in stream.stages[index]]
    learnt = [i for stage in stream.stages[: index + 1] for i in stage]
    slots = {c for i in learnt for c in stream.tasks[i].classes}
    names = {stream.classes[c].canonical for c in slots}
    chance = float(np.mean([1 / size for size in sizes]))
    return (
        f"{100 * own:.1f} % among its own classes (chance {100 * chance:.1f} %); all "
        f"seen {100 * predicted:.1f} % with the modality predicted (chance "
        f"{100 / len(names):.1f} %)"
    )


def whole_report(run: Run, results: Results) -> dict[str, Any]:
    """Returns what `results.json` holds."""
    return plain(
        {
            "schema": 1,
            "method": run.config.method.name,
            "seeds": dataclasses.asdict(run.config.seeds),
            "environment": environment(run.mesh),
            "knowledge": level_of_knowledge(run.model, run.stream.modalities),
            "modalities": run.stream.modalities,
            "tasks": describe_tasks(run.stream),
            "skipped_samples": run.skipped_samples,
            "unscored": [run.stream.tasks[i].name for i in sorted(run.unscored)],
            **_report(run.stream, results),
            "cost": {
                "seconds": {k: round(v, 3) for k, v in results.seconds.items()},
                "compilations": sum(results.compilations.values()),
                "forwards_per_step": results.forwards.get("train_step", 0),
                "forwards_per_prediction": results.forwards.get("predict", 0),
                **sizes(run),
            },
        }
    )


def _report(stream: Stream, results: Results) -> dict[str, Any]:
    """Returns accuracies and metrics; further ones where classes return."""
    report, known = results.report(), returning.course(stream)
    space = label_spaces.SPACES.index("task")
    accuracy, zero_shot = results.accuracy[space], results.zero_shot[space]
    report["across_modalities"] = cross_modal.transfers(stream, accuracy, zero_shot)
    if known.returns:
        for space, routes in report["metrics"].items():
            for route, found in routes.items():
                accuracy = report["accuracy"][space][route]
                found |= returning.of_course(accuracy, known)
    return report


def sizes(run: Run) -> dict[str, int]:
    """Returns what the method stores of this stream, see `cost.sizes`.

    Also `bytes_allocated`: with the slots that are not in use yet, those of modalities
    that the encoder reads among them.
    """
    stream, model = run.stream, run.model
    own = [model.modalities.index(name) for name in stream.modalities]
    met = model._replace(
        modalities=stream.modalities,
        input_shapes=tuple(model.input_shapes[i] for i in own),
    )
    exact = Capacity(len(stream.classes), len(stream.stages))
    used = cost.sizes(run.make_method, met, exact)
    whole = cost.sizes(run.make_method, model, capacity.of_stream(stream))
    return used | {"bytes_allocated": whole["bytes_remembered"]}


def opening(run: Run) -> list[str]:
    """Returns the lines with which a run begins: what is learnt, by what, and how."""
    stream, config = run.stream, run.config
    name = config.encoder.path
    devices = run.mesh.devices
    kind = devices.flat[0].device_kind.upper()
    return [
        f"{_number(len(stream.tasks), 'task')}, "
        f"{_number(len(stream.classes), 'class', 'classes')}, "
        f"{_number(len(stream.modalities), 'modality', 'modalities')}: "
        f"{', '.join(stream.modalities)}",
        f"method: {config.method.name}; encoder: "
        f"{'built-in' if name == 'builtin' else name}; on "
        f"{_number(devices.size, f'{kind} device')}",
        level_of_knowledge(run.model, stream.modalities),
        "programs are compiled once for each modality, when it is met first",
    ]


def _number(count: int, one: str, several: str = "") -> str:
    return f"{count} {one if count == 1 else several or f'{one}s'}"


def next_steps(workdir: str | os.PathLike[str]) -> str:
    """Returns what to do with a finished run: its page, and commands to paste."""
    folder = pathlib.Path(workdir)
    named = shlex.quote(str(folder))
    steps = {
        "label files": ("mmcl-predict", f"--workdir={named} FILES"),
        "learn more": ("mmcl-extend", f"--workdir={named} --data=FOLDER"),
        "compare": ("mmcl-compare", f"--workdirs={named},OTHER_RUN"),
    }
    files = plugins.exported()  # of the user's code, which a workdir does not name
    code = f"{plugins.VARIABLE}={shlex.quote(files)} " if files else ""
    lines = [
        f"{what}: {code}{_start(name)} {flags}" for what, (name, flags) in steps.items()
    ]
    if (page := folder / layout.REPORT).exists():
        lines.insert(0, f"see: {page}")
    return "\n".join(map(printable, lines))


def _start(command: str) -> str:
    """Returns how a program is started from this shell."""
    if shutil.which(command):
        return command
    return f"{shlex.quote(sys.executable)} -m {programs.PROGRAMS[command]}"


def share_of_programs(stream: Stream, index: int) -> float:
    """Returns which part of all programs is compiled once a stage is done.

    They are compiled for each modality when it is met.
    """
    met = {
        stream.tasks[i].modality for stage in stream.stages[: index + 1] for i in stage
    }
    return len(met) / len(stream.modalities)


def level_of_knowledge(model: Model, modalities: Sequence[str]) -> str:
    """Says what a prediction may know in each kind of accuracy, from most to least.

    L0: modality and task. L1: the modality. L2: neither, but towers differ by modality.
    L3: neither, and one tower serves all. If modalities have separate towers, a
    prediction is L3 at best among those that share one.
    """
    towers = [model.tower_of(name) for name in modalities]
    groups = [
        ", ".join(n for n, own in zip(modalities, towers, strict=True) if own == tower)
        for tower in dict.fromkeys(towers)
    ]
    agnostic = "L3"
    if len(groups) > 1:
        shared = [f"L3 among {group}; " for group in groups if "," in group]
        agnostic = f"{''.join(shared)}L2 between the towers of {' | '.join(groups)}"
    return (
        "accuracies are with task and modality given (L0), with the modality given "
        f"(L1) and with neither: {agnostic}"
    )
