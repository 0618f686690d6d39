"""All that heads on a frozen encoder are made of, as plain arrays."""

from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float, Int

from mmcl_jax.models.specs import layer_width
from mmcl_jax.streams.base import Record
from mmcl_jax.training.batches import Feed, ahead
from mmcl_jax.training.build import Run


class FrozenViews(NamedTuple):
    """Features of all samples of a stream, and its classes.

    Attributes:
        query: Unit embeddings by the frozen encoder, which the router reads.
        layers: Layer features, padded with zeros where a tower is narrower.
        label: Class slot of each sample.
        task: Task of each sample.
        is_test: Whether it is a test sample.
        text: Unit text embeddings of the class slots.
        class_names: Their names.
        class_modality: Modality of each slot, its place in `modalities`.
        modalities: Names of the modalities that the encoder reads.
        layer_widths: Width of the layer features of each.
        task_names: Names of the tasks.
        logit_scale: Factor of cosines in logits.
    """

    query: Float[np.ndarray, "n d"]
    layers: Float[np.ndarray, "n w"]
    label: Int[np.ndarray, " n"]
    task: Int[np.ndarray, " n"]
    is_test: Bool[np.ndarray, " n"]
    text: Float[np.ndarray, "C d"]
    class_names: np.ndarray
    class_modality: Int[np.ndarray, " C"]
    modalities: np.ndarray
    layer_widths: Int[np.ndarray, " m"]
    task_names: np.ndarray
    logit_scale: Float[np.ndarray, ""]


def frozen_views(run: Run, blocks: int) -> FrozenViews:
    """Embeds all training and test samples of a stream with the frozen encoder.

    Args:
        run: The run, whose method is not used.
        blocks: Number of blocks that the layer features are of.
    """
    stream, model = run.stream, run.model
    frozen = jax.device_put(run.encoder.frozen)
    feed = Feed(run, frozen)
    towers = [model.spec.tower(name) for name in model.towers]
    widths = np.array([layer_width(tower, blocks) for tower in towers])
    layers_of = jax.jit(
        lambda frozen, batch: model.embed_layers(
            frozen, batch.modality, batch.inputs, None, blocks
        )[1]
    )
    columns: dict[str, list[np.ndarray]] = {name: [] for name in _COLUMNS}
    for i, task in enumerate(stream.tasks):
        for part in ("train", "test"):
            rows: list[Record] = list(getattr(task, part))
            if not rows:
                continue
            feed.embed_queries([i], part)
            batches = feed.batches({task.modality: rows})
            found = [
                jax.device_get(x) for x in ahead(layers_of(frozen, b) for b in batches)
            ]
            layers = np.concatenate(found)[: len(rows)]
            missing = widths.max() - layers.shape[1]
            columns["query"].append(feed.queries(rows))
            columns["layers"].append(np.pad(layers, ((0, 0), (0, missing))))
            columns["label"].append(np.array([row.label for row in rows]))
            columns["task"].append(np.full(len(rows), i))
            columns["is_test"].append(np.full(len(rows), part == "test"))
    joined = {name: np.concatenate(parts) for name, parts in columns.items()}
    places = [model.modalities.index(slot.modality) for slot in stream.classes]
    return FrozenViews(
        **joined,
        text=feed.embed_class_names(),
        class_names=np.array([slot.name for slot in stream.classes]),
        class_modality=np.array(places),
        modalities=np.array(model.modalities),
        layer_widths=widths,
        task_names=np.array([task.name for task in stream.tasks]),
        logit_scale=np.array(model.logit_scale),
    )


_COLUMNS = ("query", "layers", "label", "task", "is_test")
