"""From records to batches: decoding, a memo of decoded inputs, and Grain pipelines."""

import functools
import hashlib
import multiprocessing
import multiprocessing.process
import os
import signal
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from absl import flags

from mmcl_jax import plugins
from mmcl_jax.errors import DataError
from mmcl_jax.modalities import MODALITIES
from mmcl_jax.modalities.base import Inputs, InputSpec, Media, Reference, Stem
from mmcl_jax.streams import watchdog
from mmcl_jax.streams.base import Record
from mmcl_jax.streams.kept import KeptReference
from mmcl_jax.types import Batch

# Part of Grain's message about a worker process that was killed.
_KILLED = "terminated unexpectedly"
# When the memo is full, only one miss in so many evicts others. Replacing at every miss
# would evict each entry before the next epoch comes back to it.
_REPLACE_EVERY = 8

Queries = Mapping[int, np.ndarray] | np.ndarray


class Examined(NamedTuple):
    """What is seen of a sample that can be decoded.

    Attributes:
        oddities: Phrases of `Modality.oddities`.
        content: Hash of what was decoded; None where it is not made of arrays.
    """

    oddities: tuple[str, ...]
    content: bytes | None


class Decoder:
    """Decodes and preprocesses records, and keeps inputs as far as there is room.

    Inputs are kept by record id, so a decoder serves one stream. It may be called from
    several threads; a pickled copy starts with an empty memo. A sample whose content
    is another one than when it was first decoded is an error: what was computed from
    the one would be taken for that of the other.

    Attributes:
        spec: Input of the encoder.
        memory_bytes: Room for kept inputs, bytes; 0 keeps none.
        stem: Applied to preprocessed inputs; None: they stay as they are. A copy in
            another process has none.
    """

    def __init__(
        self, spec: InputSpec, memory_bytes: int, stem: Stem | None = None
    ) -> None:
        """Creates one with an empty memo."""
        self.spec = spec
        self.memory_bytes = memory_bytes
        self.stem = stem
        self._memo: OrderedDict[int, tuple[Reference, Inputs]] = OrderedDict()
        self._contents: dict[int, tuple[Reference, str]] = {}
        self._used = 0
        self._misses = 0
        self._lock = threading.Lock()

    def __getstate__(self) -> tuple[InputSpec, tuple[str, ...]]:
        """Returns the state of a copy in another process, which needs no memo."""
        return self.spec, plugins.added()

    def __setstate__(self, state: tuple[InputSpec, tuple[str, ...]]) -> None:
        """Restores a copy."""
        spec, modules = state
        # The table of modalities is not pickled: a worker must import them again.
        for module in modules:
            plugins.add_modalities(module)
        Decoder.__init__(self, spec, 0)

    def __call__(self, record: Record, modality: str) -> Inputs:
        """Returns the inputs of one record; callers must not write into them.

        Args:
            record: Record to decode.
            modality: Name of its modality.

        Returns:
            The result of `Modality.preprocess`, and of the stem if there is one.

        Raises:
            DataError: The record cannot be decoded, or has changed since it was first
                decoded; the message names it.
        """
        if isinstance(record.reference, KeptReference):
            return record.reference.inputs()
        with self._lock:
            reference, inputs = self._memo.get(record.id, (None, {}))
            if known := reference == record.reference:  # else it is of another stream
                self._memo.move_to_end(record.id)
        if known:
            self._check_content(record)
            return inputs
        return self._decode(record, modality)[1]

    def examine(self, record: Record, modality: str) -> tuple[Inputs, Examined]:
        """Decodes one record, keeps its inputs, and looks at what was decoded.

        Arguments and errors are those of a call, which returns the inputs alone.
        """
        media, inputs = self._decode(record, modality)
        look = MODALITIES[modality].oddities
        seen = look(media, self.spec) if look else ()
        return inputs, Examined(seen, _hash(media))

    def _decode(self, record: Record, modality: str) -> tuple[Media, Inputs]:
        kind = MODALITIES[modality]
        source = record.reference.describe()
        try:
            self._check_content(record)
            media = record.reference.load(kind, self.spec)
            self._check_content(record)  # it may have been replaced while it was read
            inputs = kind.preprocess(media, self.spec)
            inputs = self.stem(modality, inputs) if self.stem else inputs
        except DataError as error:
            if source in str(error):
                raise
            raise DataError(f"{source}: {error}") from error
        except MemoryError as error:
            raise DataError(f"{source}: memory ran out while decoding it") from error
        except Exception as error:
            error.add_note(f"while preprocessing {source}")
            raise
        self._remember(record, inputs)
        return media, inputs

    def _check_content(self, record: Record) -> None:
        content = record.reference.identity()
        first = (record.reference, content)
        with self._lock:
            reference, known = self._contents.setdefault(record.id, first)
            if reference != record.reference:  # the id is that of another stream
                self._contents[record.id] = first
            elif known != content:
                raise DataError(
                    f"{record.reference.describe()}: its content has changed since "
                    "this run first read it; restore it, or start again with new data"
                )

    def _remember(self, record: Record, inputs: Inputs) -> None:
        size = _size(inputs)
        with self._lock:
            # Another thread may have decoded the same record meanwhile.
            if record.id in self._memo or size > self.memory_bytes:
                return
            if self._used + size > self.memory_bytes:
                self._misses += 1
                if self._misses % _REPLACE_EVERY:
                    return
            while self._used + size > self.memory_bytes:
                _, (_, oldest) = self._memo.popitem(last=False)
                self._used -= _size(oldest)
            self._memo[record.id] = (record.reference, inputs)
            self._used += size


def _size(inputs: Inputs) -> int:
    return sum(array.nbytes for array in inputs.values())


def _hash(media: Media) -> bytes | None:
    parts = media if isinstance(media, tuple) else (media,)
    arrays = [np.asarray(p) for p in parts if isinstance(p, (np.ndarray, int, float))]
    if len(arrays) != len(parts):
        return None
    digest = hashlib.blake2b(digest_size=16)
    for array in arrays:
        digest.update(repr((array.dtype.str, array.shape)).encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.digest()


def num_batches(samples: int, batch_size: int) -> int:
    """Returns the number of batches of an epoch, the padded last one included.

    >>> num_batches(9, 4)
    3
    """
    return -(-samples // batch_size)


class _Batches:
    """Random access to the batches of an epoch, or to one process's rows of them.

    An element is a whole batch, since Grain's bookkeeping costs 0.1 ms an element.
    """

    def __init__(
        self,
        records: Sequence[Record],
        decode: Callable[[Record], Inputs],
        batch_size: int,
        seed: int | Sequence[int] | None,
        shard: tuple[int, int],
    ) -> None:
        self._records = records
        self._decode = decode
        self._batch_size = batch_size
        self._shard = shard
        self._order = np.arange(len(records))
        if seed is not None:
            self._order = np.random.default_rng(seed).permutation(len(records))

    def __len__(self) -> int:
        return num_batches(len(self._records), self._batch_size)

    def records(self, index: int) -> list[Record]:
        # Rows of a process are contiguous, so that all shards in order are the batch.
        shard, count = self._shard
        rows = self._batch_size // count
        start = index * self._batch_size + shard * rows
        return [self._records[i] for i in self._order[start : start + rows]]

    def __getitem__(self, index: int) -> dict[str, Any]:
        rows = self._batch_size // self._shard[1]
        records = self.records(index)
        real = len(records)
        # A process whose rows are all padding still needs the shapes of the inputs.
        shown = records or [self._records[0]]
        samples = [self._decode(record) for record in shown]
        inputs = {
            name: np.zeros((rows, *array.shape), array.dtype)
            for name, array in samples[0].items()
        }
        for name, array in inputs.items():
            for row in range(real):
                array[row] = samples[row][name]
        label, ids = np.zeros(rows, np.int32), np.full(rows, -1, np.int32)
        label[:real] = [record.label for record in records]
        ids[:real] = [record.id for record in records]
        weight = (np.arange(rows) < real).astype(np.float32)
        return {"inputs": inputs, "label": label, "weight": weight, "id": ids}


def epoch(
    records: Sequence[Record],
    modality: str,
    decoder: Decoder,
    batch_size: int,
    *,
    seed: int | Sequence[int] | None,
    queries: Queries | None = None,
    hint: int = -1,
    threads: int = 2,
    worker_processes: int = 0,
    shard: tuple[int, int] = (0, 1),
    start_step: int = 0,
) -> Iterator[Batch]:
    """Yields every record once, in batches of equal shapes.

    The batches do not depend on threads and processes. The last one is padded with
    rows of weight 0, label 0, id -1 and inputs of zeros.

    Args:
        records: Samples of one modality.
        modality: Name of their modality.
        decoder: Decoder of the records.
        batch_size: Rows of a batch over all processes of the run.
        seed: Seed of the order, such as (seed, task, epoch); None: the given order.
        queries: Cached feature `[d]` of each record, looked up by id; None: width 0.
        hint: Modality index given for routing; -1 if it is not given.
        threads: Batches prepared at the same time; 0: in the caller's thread.
        worker_processes: Processes that decode instead of threads. They start again
            with an empty memo in every epoch, so they pay off only for large data.
        shard: Index of this process and number of processes; each gets its share of the
            rows of every batch, so that all shares in order are the batch of a single
            process.
        start_step: Number of batches to skip, without decoding them.

    Yields:
        Batches of NumPy arrays with `batch_size / shard[1]` rows.

    Raises:
        ValueError: `batch_size` or `shard` is out of range, or a query is missing.
        DataError: A record cannot be decoded, or has killed a worker process.
    """
    index, count = shard
    if batch_size < 1 or count < 1 or batch_size % count or not 0 <= index < count:
        raise ValueError(
            f"batch_size={batch_size}, shard={shard}: expected a positive batch size "
            "that the number of processes divides, and an index below that number"
        )
    decode = functools.partial(decoder, modality=modality)
    batches = _Batches(records, decode, batch_size, seed, shard)
    if start_step >= len(batches):
        return
    iterator = _read(batches, start_step, threads, worker_processes)
    step = start_step
    try:
        for arrays in watchdog.answered(iterator) if worker_processes else iterator:
            if worker_processes and decoder.stem:
                stem = functools.partial(decoder.stem, modality)
                arrays["inputs"] = _by_row(stem, arrays["inputs"])
            arrays["query"] = _lookup(queries, arrays["id"])
            arrays["hint"] = np.full(len(arrays["id"]), hint, np.int32)
            yield Batch(**arrays, modality=modality)
            step += 1
    except watchdog.Stalled as error:
        names = ", ".join(r.reference.describe() for r in batches.records(step))
        raise DataError(
            f"{error}, while one of {names} or of the next batches was decoded; the "
            "decoder hangs or the files cannot be reached: look at them, or lower "
            "config.data.worker_processes"
        ) from error
    except RuntimeError as error:
        if _KILLED not in str(error):
            raise
        names = ", ".join(r.reference.describe() for r in batches.records(step))
        raise DataError(
            "a worker process was killed, by a crash of a decoder or for lack of "
            f"memory, while it decoded one of {names} or of the next batches "
            f"({error}); remove that file, or lower config.data.worker_processes"
        ) from error
    finally:
        iterator.close()  # a consumer that stops early must not leave workers running


def _by_row(stem: Callable[[Inputs], Inputs], inputs: Inputs) -> Inputs:
    """Returns what a stem makes of a batch from worker processes, which have none."""
    rows = len(next(iter(inputs.values())))
    made = [stem({name: x[i] for name, x in inputs.items()}) for i in range(rows)]
    return {name: np.stack([each[name] for each in made]) for name in made[0]}


def _read(batches: _Batches, first: int, threads: int, worker_processes: int) -> Any:
    """Returns Grain's iterator over the batches from the first one on."""
    # it takes most of a second to load, and labelling a few files does without it
    import grain

    left = grain.MapDataset.source(batches)[first:]
    if not worker_processes:
        return iter(left.to_iter_dataset(grain.ReadOptions(threads, threads)))
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()  # Grain's workers insist on parsed absl flags
    read = left.to_iter_dataset(grain.ReadOptions(0, 0)).mp_prefetch(
        grain.MultiprocessingOptions(min(worker_processes, len(left))),
        worker_init_fn=_start_worker,
    )
    return iter(read)


def _start_worker(index: int, count: int) -> None:
    """Makes a worker end with the run, and only with it.

    A terminal and a cluster's scheduler signal the workers too, which the run still
    needs to finish its step. If the run is killed, nothing else would end its workers.
    """
    del index, count
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    if run := multiprocessing.parent_process():
        threading.Thread(target=_end_with, args=(run,), daemon=True).start()


def _end_with(run: multiprocessing.process.BaseProcess) -> None:
    run.join()
    os._exit(1)


def _lookup(queries: Queries | None, ids: np.ndarray) -> np.ndarray:
    if queries is None:
        return np.zeros((len(ids), 0), np.float32)
    # Padding has id -1: it looks up any row, which is then replaced by zeros.
    if isinstance(queries, np.ndarray):
        known = (ids >= 0) & (ids < len(queries))
        found = queries[np.where(known, ids, 0)]
    else:
        known = np.array([i in queries for i in ids.tolist()])
        width = len(next(iter(queries.values())))
        found = np.zeros((len(ids), width), np.float32)
        for row in np.flatnonzero(known):
            found[row] = queries[int(ids[row])]
    if missing := ids[~known & (ids >= 0)].tolist():
        raise ValueError(f"no query for the records of ids {missing}")
    return np.where(ids[:, None] >= 0, found, 0).astype(np.float32)
