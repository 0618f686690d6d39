"""The batches of a run, on its devices, with cached features of the frozen tower."""

import collections
import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import jax
import numpy as np

from mmcl_jax.modalities import MODALITIES
from mmcl_jax.modalities.base import Inputs
from mmcl_jax.ops import rngs
from mmcl_jax.parallel import distributed, sharding
from mmcl_jax.streams import loader
from mmcl_jax.streams.base import Record
from mmcl_jax.training import feature_cache
from mmcl_jax.training.build import Run, view_width
from mmcl_jax.types import Batch, PyTree

Records = dict[str, list[Record]]
T = TypeVar("T")


def ahead(items: Iterable[T]) -> Iterator[T]:
    """Yields each item once the next one has been made.

    The next batch is then on its way to the devices while they compute; or the next
    computation is under way while the host reads the result of this one.
    """
    waiting = collections.deque()
    for item in items:
        waiting.append(item)
        if len(waiting) > 1:
            yield waiting.popleft()
    yield from waiting


class Feed:
    """Batches of one modality each, and a cache of the frozen tower's views.

    The views of a sample are its query and, for a method with `layer_blocks`, its layer
    features, side by side in one row.
    """

    def __init__(self, run: Run, frozen: PyTree) -> None:
        """Starts with an empty cache; `frozen` are the weights on the devices."""
        self._run = run
        self._frozen = frozen
        self._views: dict[int, np.ndarray] = {}
        self._folder = feature_cache.default_folder()
        self._producer = feature_cache.producer(
            run.encoder, run.mesh, run.config.train.batch_size
        )

    def records(self, tasks: Sequence[int], part: str) -> Records:
        """Returns samples of some tasks by modality; `part` is "train" or "test"."""
        records: Records = {}
        for i in tasks:
            task = self._run.stream.tasks[i]
            records.setdefault(task.modality, []).extend(getattr(task, part))
        return {modality: rows for modality, rows in records.items() if rows}

    def num_batches(self, records: Records) -> int:
        """Returns the number of batches in one pass."""
        size = self._run.config.train.batch_size
        return sum(loader.num_batches(len(rows), size) for rows in records.values())

    def embed_queries(
        self,
        tasks: Sequence[int],
        part: str,
        between: Callable[[], None] = lambda: None,
    ) -> None:
        """Fills the cache, from disk where it can, else by the frozen tower.

        A part of a task is embedded by itself, so that its features do not depend on
        the tasks that it is learnt or evaluated together with.

        Args:
            tasks: Indices of tasks in the stream.
            part: Either "train" or "test".
            between: Callback after each batch that is embedded.
        """
        for i in tasks:
            for modality, rows in self.records([i], part).items():
                if rows[0].id not in self._views:
                    embedded = self._embed_part(modality, rows, between)
                    ids = [row.id for row in rows]
                    self._views.update(zip(ids, embedded, strict=True))

    def recall(self, rows: Sequence[Record], features: np.ndarray) -> None:
        """Fills the cache with views of samples that were kept."""
        self._views.update(zip((row.id for row in rows), features, strict=True))

    def forget(self, tasks: Sequence[int], part: str) -> None:
        """Drops the cached features of some tasks."""
        for rows in self.records(tasks, part).values():
            for row in rows:
                self._views.pop(row.id, None)

    def _embed_part(
        self, modality: str, rows: Sequence[Record], between: Callable[[], None]
    ) -> np.ndarray:
        run, wanted = self._run, None
        if run.config.data.feature_cache:
            wanted = self._entry(modality, rows)
            stored = feature_cache.read(self._folder, wanted)
            # embedding is a collective computation: if one process lacks the file, all
            # of them have to take part
            if distributed.everywhere(stored is not None) and stored is not None:
                return stored
        batches = self._epoch(modality, rows, seed=None, queries=None)
        started = (
            run.learner.query(self._frozen, sharding.put_batch(batch, run.mesh))
            for batch in batches
        )
        parts = []
        for embedded in ahead(started):
            parts.append(jax.device_get(embedded))
            between()
        # the last batch is padded to its full size
        embedded = np.concatenate(parts)[: len(rows)]
        # a file that was replaced meanwhile may have been decoded before or after
        if wanted and wanted == self._entry(modality, rows):
            feature_cache.write(self._folder, wanted, embedded)
        return embedded

    def _entry(self, modality: str, rows: Sequence[Record]) -> feature_cache.Entry:
        encoder = self._run.encoder
        version = MODALITIES[modality].version(encoder.inputs)
        width = view_width(encoder.spec, self._run.method, modality)
        return feature_cache.entry(self._producer, modality, version, rows, width)

    def views(self, rows: Sequence[Record]) -> np.ndarray:
        """Returns cached views `[n d_k]` of samples of one modality, at least one."""
        return np.stack([self._views[row.id] for row in rows])

    def queries(self, rows: Sequence[Record]) -> np.ndarray:
        """Returns cached unit features `[n d]`."""
        width = self._run.encoder.spec.embedding
        cut = [self._views[row.id][:width] for row in rows]
        return np.reshape(cut, (len(rows), width))

    def layers(self, rows: Sequence[Record]) -> np.ndarray | None:
        """Returns cached layer features `[n k]` of samples of one modality.

        None: there are no samples, or the method has no layer features.
        """
        return self.cut_views(self.views(rows)).get("layers") if rows else None

    def cut_views(self, views: np.ndarray) -> dict[str, np.ndarray]:
        """Returns views as fields of a batch: `query`, and `layers` if there are."""
        width = self._run.encoder.spec.embedding
        fields = {"query": views[:, :width]}
        has_layers = self._run.method.layer_blocks > 0
        return fields | {"layers": views[:, width:]} if has_layers else fields

    def batches(
        self,
        records: Records,
        seed: int | None = None,
        decoded: bool = True,
        start: int = 0,
    ) -> Iterator[Batch]:
        """Yields one pass, in order or shuffled; several modalities take random turns.

        The samples' queries must have been embedded.

        Args:
            records: Samples by modality.
            seed: Seed of the order; None keeps the given one.
            decoded: Whether inputs are read; if not, batches hold queries alone.
            start: Number of batches to skip, without reading them.
        """
        turns = [
            modality
            for modality, rows in records.items()
            for _ in range(self.num_batches({modality: rows}))
        ]
        if seed is not None:
            turns = np.random.default_rng(seed).permutation(turns).tolist()
        feeds = {}
        for modality, rows in records.items():
            own = None if seed is None else rngs.host_seed(seed, modality)
            # exact resume: each modality continues where its own turns had come to
            skipped = turns[:start].count(modality)
            if decoded:
                # those of another tower may have another width
                views = {
                    row.id: self._views[row.id] for row in rows if row.id in self._views
                }
                feed = self._epoch(
                    modality, rows, seed=own, queries=views, start=skipped
                )
                feeds[modality] = (sharding.put_batch(b, self._run.mesh) for b in feed)
            else:
                feed = self._query_batches(modality, rows, own)
                feeds[modality] = itertools.islice(feed, skipped, None)
        yield from ahead(next(feeds[modality]) for modality in turns[start:])

    def _query_batches(
        self, modality: str, rows: Sequence[Record], seed: int | None
    ) -> Iterator[Batch]:
        if seed is not None:
            order = np.random.default_rng(seed).permutation(len(rows))
            rows = [rows[i] for i in order]
        columns = self.cut_views(self.views(rows)) | {
            "label": np.array([row.label for row in rows], np.int32),
            "id": np.array([row.id for row in rows], np.int32),
        }
        yield from self.cut({}, columns, len(rows), modality)

    def embed_class_names(self) -> np.ndarray:
        """Returns unit text embeddings `[C d]` of all class slots.

        Each is the normalized mean of the unit vectors of all templates: those of the
        config, or else those of the slot's modality.
        """
        run, text = self._run, MODALITIES["text"]
        own = run.config.encoder.templates
        sentences = [
            (c, template.format(slot.name))
            for c, slot in enumerate(run.stream.classes)
            for template in own or MODALITIES[slot.modality].templates
        ]
        owner = np.array([c for c, _ in sentences])
        tokens = np.stack(
            [text.preprocess(s, run.encoder.inputs)["tokens"] for _, s in sentences]
        )
        views = self.embed({"tokens": tokens}, len(tokens), "text")
        embedded = self.cut_views(views)["query"]
        sums = np.zeros((len(run.stream.classes), embedded.shape[1]), np.float32)
        np.add.at(sums, owner, embedded)
        return sums / np.linalg.norm(sums, axis=1, keepdims=True)

    def embed(self, inputs: Inputs, total: int, modality: str) -> np.ndarray:
        """Returns the views `[n d_k]` by the frozen tower, see `cut_views`.

        Args:
            inputs: Inputs `[n ...]` of all samples, by name; see `Batch.inputs`.
            total: Number of samples n.
            modality: Modality of the samples.
        """
        batches = self.cut(inputs, {}, total, modality)
        started = (self._run.learner.query(self._frozen, batch) for batch in batches)
        return np.concatenate([jax.device_get(x) for x in ahead(started)])[:total]

    def cut(
        self,
        inputs: Inputs,
        columns: dict[str, np.ndarray],
        total: int,
        modality: str,
    ) -> Iterator[Batch]:
        """Yields samples held in memory as padded batches on the devices.

        Args:
            inputs: Inputs `[n ...]` by name; empty if the method does not read them.
            columns: `query`, `layers`, `label` and `id` `[n ...]`; others than `layers`
                are zero where they are absent.
            total: Number of samples n, at least 1.
            modality: Modality of the samples. Its index in the model is the hint, -1
                if the stream does not have it.
        """
        size, (index, count) = self._run.config.train.batch_size, distributed.shard()
        for start in range(0, total, size):
            rows = np.arange(start, start + size)
            # each process makes its own rows of the global batch
            rows = rows[index * size // count : (index + 1) * size // count]
            real = rows < total
            # every batch has the same shape, or it would be compiled again: padding
            # repeats the last row with weight 0
            rows = np.minimum(rows, total - 1)
            part = {name: values[rows] for name, values in columns.items()}
            zeros = np.zeros(len(rows), np.int32)
            fields: dict[str, Any] = {
                "inputs": {name: values[rows] for name, values in inputs.items()},
                "query": part.get("query", np.zeros((len(rows), 0), np.float32)),
                "label": part.get("label", zeros) * real,
                "weight": real.astype(np.float32),
                "id": np.where(real, part.get("id", zeros), -1).astype(np.int32),
                "hint": np.full(len(rows), self._hint(modality), np.int32),
                "layers": part.get("layers"),
            }
            batch = Batch(**fields, modality=modality)
            yield sharding.put_batch(batch, self._run.mesh)

    def _hint(self, modality: str) -> int:
        known = modality in self._run.stream.modalities
        return self._run.model.modalities.index(modality) if known else -1

    def _epoch(
        self,
        modality: str,
        rows: Sequence[Record],
        seed: int | None,
        queries: dict[int, np.ndarray] | None,
        start: int = 0,
    ) -> Iterator[Batch]:
        config = self._run.config
        batches = loader.epoch(
            rows,
            modality,
            self._run.decoder,
            config.train.batch_size,
            seed=seed,
            queries=queries,
            hint=self._hint(modality),
            threads=config.data.threads,
            worker_processes=config.data.worker_processes,
            shard=distributed.shard(),
            start_step=start,
        )
        if queries is None:
            return batches
        return (
            dataclasses.replace(b, **self.cut_views(np.asarray(b.query)))
            for b in batches
        )
