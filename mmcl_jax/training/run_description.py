"""What `stream.json` says of a run: its classes, tasks and stages, its encoder."""

import dataclasses
from typing import Any

from mmcl_jax.modalities import MODALITIES
from mmcl_jax.streams import registry as sources
from mmcl_jax.streams.base import stream_hash
from mmcl_jax.streams.description import describe_contents, describe_tasks
from mmcl_jax.training import known_tasks
from mmcl_jax.training.build import Run


def describe(run: Run) -> dict[str, Any]:
    """Returns what `stream.json` holds, but for `contents`: no file is read."""
    stream = run.stream
    return {
        "hash": stream_hash(stream),
        "encoder": run.encoder.fingerprint,
        "modalities": list(stream.modalities),
        "towers": dict(zip(run.model.modalities, run.model.towers, strict=True)),
        "preprocessing": {
            name: MODALITIES[name].version(run.encoder.inputs)
            for name in stream.modalities
        },
        "stages": [list(stage) for stage in stream.stages],
        "classes": [dataclasses.asdict(slot) for slot in stream.classes],
        "tasks": describe_tasks(stream),
    }


def contents(run: Run) -> list[str] | None:
    """Returns a hash of the samples of each task; None: files are not verified.

    Where they are not, a run starts without reading all of them.
    """
    config, known = run.config, run.known
    read = config.data.verify or not sources.SOURCES[config.stream.kind].of_files
    if not read:
        return None
    if known is None or known.contents is None:
        return describe_contents(known_tasks.needed(run.stream, known))
    learnt, tasks = known.learnt_tasks, range(len(run.stream.tasks))
    # a task that was added just now has none yet
    stored = dict(enumerate(known.contents))
    found = describe_contents(run.stream, [i for i in tasks if i not in learnt])
    return [stored[i] if i in learnt else found.pop(0) for i in tasks]
