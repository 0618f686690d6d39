"""The files of a run that say what it is and what it learns."""

import json
import pathlib

from mmcl_jax import config as configs
from mmcl_jax.files import write_json, write_text
from mmcl_jax.streams import kept
from mmcl_jax.training import known_tasks
from mmcl_jax.training.batches import Feed
from mmcl_jax.training.build import Run, producer
from mmcl_jax.training.run_description import contents, describe
from mmcl_jax.workdir import identity, layout, resuming, sample_lists
from mmcl_jax.workdir.logs import is_writer


def fill(workdir: pathlib.Path, config: configs.Config, run: Run) -> list[str]:
    """Writes what is known before the first stage; returns lines on what has moved."""
    resuming.check(workdir, config)  # another run may have come before the lock
    stream = describe(run) | {"contents": contents(run)}
    (workdir / layout.PREDICTIONS).mkdir(exist_ok=True)
    path = workdir / layout.STREAM
    if source := config.resume.removeprefix(resuming.BRANCH):
        resuming.branch(workdir, pathlib.Path(source), config, stream)
    resuming.check_stream(workdir, stream)
    moved = resuming.moved(workdir, config)
    resuming.write_config(workdir, config)
    if not run.known:
        root = known_tasks.place_of(config.stream)
        sample_lists.write(workdir, enumerate(run.stream.tasks), root)
        sample_lists.write_controls(workdir, run.stream.control_sets, root)
    write_json(path, stream | resuming.origin(workdir))
    write_text(workdir / layout.ENCODER, "\n".join(run.encoder.summary) + "\n")
    return moved


def owner(workdir: pathlib.Path, run: Run) -> identity.Owner:
    """Returns the run that the files of the workdir must be of."""
    settings = json.loads(configs.to_json(run.config))
    stream = json.loads(json.dumps(describe(run) | resuming.origin(workdir)))
    return identity.owner(workdir, settings, stream)


def keep(run: Run, feed: Feed, workdir: pathlib.Path, stage: int) -> None:
    """Keeps what the config says of the test samples of a stage."""
    what = run.config.evaluation.keep
    if what == "references" or not is_writer():
        return
    for i in run.stream.stages[stage]:
        task, inputs = run.stream.tasks[i], None
        if what == "inputs":
            inputs = [run.decoder(row, task.modality) for row in task.test]
        path, views = layout.kept(workdir, i), feed.views(task.test)
        kept.write(path, task.test, views, inputs, producer(run.encoder, task))


def recall(run: Run, feed: Feed) -> None:
    """Fills a feed with features of test samples whose files are gone."""
    if run.known is None:
        return
    for i in run.known.featured:
        rows = run.known.stream.tasks[i].test
        feed.recall(rows, kept.features(run.known.kept[i], len(rows)))
