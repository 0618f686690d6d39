"""The batches of a run, on its devices, with the cached features of frozen queries."""

import collections
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
from mmcl_jax.training.build import Run
from mmcl_jax.types import Batch, PyTree

Records = dict[str, list[Record]]
T = TypeVar("T")


def ahead(items: Iterable[T]) -> Iterator[T]:
    """Yields each item when the next one has been made.

    Of batches, the next one is on its way to the devices while they compute; of what
    devices compute, the next one is under way while the host reads this one.
    """
    waiting = collections.deque()
    for item in items:
        waiting.append(item)
        if len(waiting) > 1:
            yield waiting.popleft()
    yield from waiting


class Feed:
    """Batches of one modality each, and a cache of what the frozen tower gives."""

    def __init__(self, run: Run, frozen: PyTree) -> None:
        """Starts with an empty cache; `frozen` are the weights on the devices."""
        self._run = run
        self._frozen = frozen
        self._queries: dict[int, np.ndarray] = {}
        self._folder = feature_cache.default_folder()
        self._producer = feature_cache.producer(
            run.encoder, run.mesh, run.config.train.batch_size
        )

    def records(self, tasks: Sequence[int], part: str) -> Records:
        """Returns the samples of some tasks by modality; `part`: "train" or "test"."""
        records: Records = {}
        for i in tasks:
            task = self._run.stream.tasks[i]
            records.setdefault(task.modality, []).extend(getattr(task, part))
        return {modality: rows for modality, rows in records.items() if rows}

    def num_batches(self, records: Records) -> int:
        """Returns the batches of one pass."""
        size = self._run.config.train.batch_size
        return sum(loader.num_batches(len(rows), size) for rows in records.values())

    def embed_queries(
        self,
        tasks: Sequence[int],
        part: str,
        between: Callable[[], None] = lambda: None,
    ) -> None:
        """Fills the cache with what the disk holds, else by the frozen tower.

        A part of a task is embedded by itself, so that its features do not depend on
        the tasks that it is learnt or scored together with.

        Args:
            tasks: of the stream.
            part: "train" or "test".
            between: called behind each batch that is embedded.
        """
        for i in tasks:
            for modality, rows in self.records([i], part).items():
                if rows[0].id not in self._queries:
                    embedded = self._embed_part(modality, rows, between)
                    ids = [row.id for row in rows]
                    self._queries.update(zip(ids, embedded, strict=True))

    def forget(self, tasks: Sequence[int], part: str) -> None:
        """Empties the cache of what is not needed any more."""
        for rows in self.records(tasks, part).values():
            for row in rows:
                self._queries.pop(row.id, None)

    def _embed_part(
        self, modality: str, rows: Sequence[Record], between: Callable[[], None]
    ) -> np.ndarray:
        run = self._run
        cached, name = run.config.data.feature_cache, ""
        if cached:
            version = MODALITIES[modality].version(run.encoder.inputs)
            name = feature_cache.key(self._producer, modality, version, rows)
            shape = (len(rows), run.encoder.spec.embedding)
            stored = feature_cache.read(self._folder, name, shape)
            # all processes have to embed what one of them lacks
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
        # the rows behind the last sample are padding
        embedded = np.concatenate(parts)[: len(rows)]
        if cached:
            feature_cache.write(self._folder, name, embedded)
        return embedded

    def queries(self, rows: Sequence[Record]) -> np.ndarray:
        """Returns cached unit features `[n d]`."""
        width = self._run.encoder.spec.embedding
        return np.reshape([self._queries[row.id] for row in rows], (len(rows), width))

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
            records: samples by modality.
            seed: of the order; None: as they come.
            decoded: whether inputs are read; else batches hold queries alone.
            start: batches to skip, without reading them.
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
            skipped = turns[:start].count(modality)
            if decoded:
                feed = self._epoch(
                    modality, rows, seed=own, queries=self._queries, start=skipped
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
        columns = {
            "query": self.queries(rows),
            "label": np.array([row.label for row in rows], np.int32),
            "id": np.array([row.id for row in rows], np.int32),
        }
        yield from self.cut({}, columns, len(rows), modality)

    def embed_class_names(self) -> np.ndarray:
        """Returns unit text embeddings `[C d]` of all class slots.

        Each is the mean over the templates of the config, or else of the slot's
        modality, of unit vectors, brought to unit norm.
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
        embedded = self.embed({"tokens": tokens}, len(tokens), "text")
        sums = np.zeros((len(run.stream.classes), embedded.shape[1]), np.float32)
        np.add.at(sums, owner, embedded)
        return sums / np.linalg.norm(sums, axis=1, keepdims=True)

    def embed(self, inputs: Inputs, total: int, modality: str) -> np.ndarray:
        """Returns the unit features `[n d]` that the frozen tower gives.

        Args:
            inputs: `[n ...]` of all samples, by name; see `Batch.inputs`.
            total: n.
            modality: of the samples.
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
        """Yields samples that are at hand in padded batches on the devices.

        Args:
            inputs: `[n ...]` by name; empty where no method reads them.
            columns: `query`, `label` and `id` `[n ...]`; absent ones are zero.
            total: n, at least 1.
            modality: of the samples; its index in the stream is the hint, -1 if it has
                none.
        """
        size, (index, count) = self._run.config.train.batch_size, distributed.shard()
        hint = (
            self._run.stream.modalities.index(modality)
            if modality in self._run.stream.modalities
            else -1
        )
        for start in range(0, total, size):
            rows = np.arange(start, start + size)
            rows = rows[index * size // count : (index + 1) * size // count]
            real = rows < total
            # padding borrows the last row for its shapes; its weight is 0
            rows = np.minimum(rows, total - 1)
            part = {name: values[rows] for name, values in columns.items()}
            zeros = np.zeros(len(rows), np.int32)
            fields: dict[str, Any] = {
                "inputs": {name: values[rows] for name, values in inputs.items()},
                "query": part.get("query", np.zeros((len(rows), 0), np.float32)),
                "label": part.get("label", zeros) * real,
                "weight": real.astype(np.float32),
                "id": np.where(real, part.get("id", zeros), -1).astype(np.int32),
                "hint": np.full(len(rows), hint, np.int32),
            }
            batch = Batch(**fields, modality=modality)
            yield sharding.put_batch(batch, self._run.mesh)

    def _epoch(
        self,
        modality: str,
        rows: Sequence[Record],
        seed: int | None,
        queries: dict[int, np.ndarray] | None,
        start: int = 0,
    ) -> Iterator[Batch]:
        config = self._run.config
        return loader.epoch(
            rows,
            modality,
            self._run.decoder,
            config.train.batch_size,
            seed=seed,
            queries=queries,
            hint=self._run.stream.modalities.index(modality),
            threads=config.data.threads,
            worker_processes=config.data.worker_processes,
            shard=distributed.shard(),
            start_step=start,
        )
