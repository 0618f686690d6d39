"""What `stream.json` says of a run: its classes, tasks and stages, its encoder."""

from typing import Any

from mmcl_jax.modalities import MODALITIES
from mmcl_jax.streams import registry as sources
from mmcl_jax.streams.base import stream_hash
from mmcl_jax.streams.description import describe_contents, describe_slots
from mmcl_jax.training import known_tasks
from mmcl_jax.training.build import Run


def describe(run: Run) -> dict[str, Any]:
    """Returns what `stream.json` holds, but for `contents`: no file is read."""
    # that of a run leaves out samples that are not scored any more
    stream = run.known.stream if run.known else run.stream
    return {
        "hash": stream_hash(stream),
        "encoder": run.encoder.fingerprint,
        **describe_slots(stream),
        "towers": dict(zip(run.model.modalities, run.model.towers, strict=True)),
        "preprocessing": {
            name: MODALITIES[name].version(run.encoder.inputs)
            for name in stream.modalities
        },
    }


def contents(run: Run) -> list[str] | None:
    """Returns a hash of the samples of each task, then of each control set.

    None: files are not verified.

    Where they are not, a run starts without reading all of them.
    """
    config, known = run.config, run.known
    read = config.data.verify or not sources.SOURCES[config.stream.kind].of_files
    if not read:
        return None
    if known is None or known.contents is None:
        return describe_contents(known_tasks.needed(run.stream, known))
    tasks, sets = len(run.stream.tasks), len(run.stream.control_sets)
    # a task that was added just now has none yet
    before = len(known.contents) - sets
    stored = {i: known.contents[i] for i in known.learnt_tasks}
    stored |= {tasks + i: known.contents[before + i] for i in known.lost}
    every = range(tasks + sets)
    found = describe_contents(run.stream, [i for i in every if i not in stored])
    return [stored[i] if i in stored else found.pop(0) for i in every]
