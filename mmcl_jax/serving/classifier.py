"""What a run has learnt, ready to label ordinary files."""

import contextlib
import dataclasses
import functools
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from mmcl_jax import config as configs
from mmcl_jax.errors import ConfigError, DataError
from mmcl_jax.evaluation import calibration, novelty
from mmcl_jax.modalities import MODALITIES
from mmcl_jax.modalities.base import Reference
from mmcl_jax.serving import answers, reading
from mmcl_jax.serving.answers import Label as Label
from mmcl_jax.serving.answers import Labelled as Labelled
from mmcl_jax.serving.answers import Novelty
from mmcl_jax.serving.reading import Group, Read
from mmcl_jax.serving.sample_files import Sample as Sample
from mmcl_jax.streams.base import Record
from mmcl_jax.streams.loader import Decoder
from mmcl_jax.training import unknowns
from mmcl_jax.training.batches import Feed
from mmcl_jax.training.build import Run
from mmcl_jax.training.learner import LearnerState
from mmcl_jax.types import Batch, Classes, Prediction, PyTree

# Batches whose samples are in memory at once.
_AHEAD = 2
_GIVEN, _PREDICTED = calibration.ROUTES


@dataclasses.dataclass(frozen=True)
class Classifier:
    """A snapshot of a run, with the frozen encoder that it was learnt with.

    Attributes:
        run: Config, encoder and compiled functions; the stream has no samples.
        state: Trained parameters and memory of the method.
        slots: Class slots, as far as the snapshot has met them.
        snapshot: Number of the stage after which it was written, counted from 1.
        temperatures: Divisor of the logits for each route; None if the run has stored
            none, and 1 is used.
        kept: Novelty quantiles of each modality; None if the run has stored none.
        notes: Remarks for the user on the state of the run.
        frozen: Weights of the encoder, on the device.
    """

    run: Run
    state: LearnerState
    slots: Classes
    snapshot: int
    temperatures: dict[str, float] | None
    kept: dict[str, list[novelty.Quantiles]] | None
    notes: tuple[str, ...]
    frozen: PyTree
    _feed: Feed

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes met so far, each once."""
        return tuple(self.names[i] for i in np.flatnonzero(self._met).tolist())

    @property
    def modalities(self) -> tuple[str, ...]:
        """Modalities met so far."""
        stream = self.run.stream
        met = {self.run.model.modalities[m] for m in self.known}
        return tuple(name for name in stream.modalities if name in met)

    def predict(
        self,
        samples: Iterable[Sample],
        modality: str | None = None,
        top: int = 5,
        reject: float | None = None,
    ) -> list[Labelled]:
        """Labels samples.

        Args:
            samples: Paths, sentences as `TextReference`, or samples in memory, of the
                kinds that `sample_files.write` takes.
            modality: Modality of all samples, which the model receives, so that only
                its classes can win; None: the modality of each file is recognized by
                its content, and the model predicts it: the classes of the one that
                it predicts can win.
            top: Number of labels of a sample.
            reject: Share of samples of learnt classes that may be called unknown by
                mistake, as all samples are that are as unlike; None: nothing is
                rejected, nor measured.

        Raises:
            ConfigError: There is no such modality, the run has not seen it, or nothing
                can be rejected.
            DataError: A file cannot be read; the message names it.
        """
        return reading.all_of(self.predict_each(samples, modality, top, reject))

    def predict_each(
        self,
        samples: Iterable[Sample],
        modality: str | None = None,
        top: int = 5,
        reject: float | None = None,
    ) -> reading.Said:
        """Yields the source of each sample and its prediction, in order.

        As `predict`, but a file that cannot be read yields its error and does not stop
        the others, and only a few batches of samples are in memory at once.
        """
        self.check_modality(modality)
        self._check_reject(reject)
        divisor = self.temperature(modality)

        def label(group: Group, sources: list[str]) -> Iterator[Labelled]:
            said = self._forward(group, modality, reject)
            rows = zip(sources, *said, group.oddities, strict=True)
            for source, row, predicted, unlike, odd in rows:
                took = modality or predicted
                labels = self._labels(row, took, divisor, top)
                yield Labelled(source, group.modality, took, labels, odd, unlike)

        yield from reading.labelled(
            samples,
            _AHEAD * self._batch_size,
            lambda reference: self._decode(reference, modality),
            self.run.config.data.threads,
            label,
        )

    def logits(
        self, samples: Sequence[Sample], modality: str | None = None
    ) -> np.ndarray:
        """Returns the logits `[n C]` of all class slots of the stream, met or not.

        Arguments and errors are those of `predict`; slots are those of `stream.json`.
        """
        rows = np.zeros((len(samples), len(self.run.stream.classes)), np.float32)
        for group in self._read_all(samples, modality):
            rows[list(group.places)], *_ = self._forward(group, modality)
        return rows

    def embed(
        self, samples: Sequence[Sample], modality: str | None = None
    ) -> np.ndarray:
        """Returns unit embeddings `[n d]` of the frozen encoder, without prompts.

        Arguments and errors are those of `predict`.
        """
        rows = np.zeros((len(samples), self.run.encoder.spec.embedding), np.float32)
        for group in self._read_all(samples, modality):
            rows[list(group.places)] = self._views(group)["query"]
        return rows

    def allowed(self, modality: str) -> np.ndarray:
        """Returns which class slots `[C]` of a given or predicted modality can win."""
        own = [slot.modality == modality for slot in self.run.stream.classes]
        return self.seen & np.array(own)

    @property
    def seen(self) -> np.ndarray:
        """Which class slots `[C]` of the stream have been met."""
        return np.asarray(self.slots.seen)[: len(self.run.stream.classes)]

    @functools.cached_property
    def canonical(self) -> np.ndarray:
        """The class `[C]` of each slot; slots of equal names share one."""
        return np.array([slot.canonical for slot in self.run.stream.classes])

    def temperature(self, modality: str | None) -> float:
        """Returns the divisor of the logits, for a given modality or for None."""
        route = _PREDICTED if modality is None else _GIVEN
        return self.temperatures[route] if self.temperatures else 1.0

    @functools.cached_property
    def names(self) -> dict[int, str]:
        """The name of each class."""
        # Reversed, so that the first of several slots of equal names gives the name.
        slots = reversed(self.run.stream.classes)
        return {slot.canonical: slot.name for slot in slots}

    @property
    def _met(self) -> np.ndarray:
        met = np.zeros(len(self.run.stream.classes), bool)
        met[self.canonical[self.seen]] = True
        return met

    @functools.cached_property
    def known(self) -> np.ndarray:
        """Indices in the model of the modalities met so far."""
        seen, modality = np.asarray(self.slots.seen), np.asarray(self.slots.modality)
        return np.unique(modality[seen])

    @property
    def _batch_size(self) -> int:
        return self.run.config.train.batch_size

    def check_modality(self, modality: str | None) -> None:
        """Raises `ConfigError` for a modality that is unknown or was not seen yet."""
        if modality is None:
            return
        configs.check_name("modality", modality, MODALITIES)
        if unknown := self._unknown(modality):
            raise ConfigError(f"modality: {unknown}")

    def _check_reject(self, rate: float | None) -> None:
        if rate is None:
            return
        answers.check_reject(rate)
        if self.kept is None:
            raise ConfigError(
                "reject: the run has no novelty quantiles (novelty.json) of every stage"
                " up to this snapshot, so nothing is known to reject by; restore the "
                "file, or learn the run with this version"
            )

    @functools.cached_property
    def gauge(self) -> unknowns.Gauge:
        """What novelty is measured by."""
        return unknowns.gauge(
            self.run.method,
            self.state.memory,
            self.slots,
            self.run.model.modalities,
            self.temperature(self.modalities[0]),
            self.kept or {},
        )

    def _unknown(self, modality: str) -> str | None:
        """Returns why samples of a modality cannot be labelled, or None if they can."""
        if modality in self.modalities:
            return None
        stream = self.run.stream
        later = [
            number
            for number, stage in enumerate(stream.stages, 1)
            if any(stream.tasks[i].modality == modality for i in stage)
        ]
        more = f"; it is seen by snapshot {later[0]}" if later else ""
        return (
            f"{modality} has not been seen by snapshot {self.snapshot} of this run, "
            f"which knows {', '.join(self.modalities)}{more}"
        )

    def _read_all(
        self, samples: Sequence[Sample], modality: str | None
    ) -> Iterator[Group]:
        """Yields all samples in groups; raises the error of an unreadable file."""
        self.check_modality(modality)
        start = 0
        size, threads = _AHEAD * self._batch_size, self.run.config.data.threads
        with contextlib.closing(reading.windows(samples, size)) as parts:
            for references in parts:
                groups, failures = reading.in_groups(
                    references, lambda each: self._decode(each, modality), threads
                )
                if failures:
                    raise failures[min(failures)]
                for group in groups:
                    places = tuple(start + place for place in group.places)
                    yield group._replace(places=places)
                start += len(references)

    def _decode(self, reference: Reference, given: str | None) -> Read:
        modality = reading.modality_of(reference, given)
        if unknown := self._unknown(modality):
            raise DataError(f"{reference.describe()}: {unknown}")
        # A decoder of its own: a file may change between two calls.
        decoder = Decoder(self.run.decoder.spec, 0, self.run.decoder.stem)
        inputs, seen = decoder.examine(Record(reference, 0, 0), modality)
        return Read(modality, inputs, seen.oddities)

    def _views(self, group: Group) -> dict[str, np.ndarray]:
        """Returns `query` and, where the method reads them, `layers` of the samples."""
        total = len(group.places)
        views = self._feed.embed(group.inputs, total, group.modality)
        return self._feed.cut_views(views)

    def _forward(
        self, group: Group, modality: str | None, reject: float | None = None
    ) -> tuple[np.ndarray, list[str], list[Novelty | None]]:
        """Returns logits `[n C]`, and predicted modality and novelty of each sample."""
        total, slots = len(group.places), len(self.run.stream.classes)
        columns, logits, scores = self._views(group), [], []
        watch = None if reject is None else unknowns.Watch(self.gauge, group.modality)
        for batch in self._feed.cut(group.inputs, columns, total, group.modality):
            said = self._said(batch)
            if watch is not None:
                watch.add(said)
            # The routes are [given, predicted]; a method without hints has only one.
            logits.append(np.asarray(said.logits)[-1 if modality is None else 0])
            scores.append(np.asarray(said.modality)[-1])
        known = self.known
        best = known[np.concatenate(scores)[:total, known].argmax(-1)]
        names = [self.run.model.modalities[m] for m in best]
        told: list[Novelty | None] = [None] * total
        if watch is not None and reject is not None:
            found = watch.scores(columns["query"], columns.get("layers"))
            told = [
                answers.judged(score, share, reject)
                for score, share in zip(*(c.tolist() for c in found), strict=True)
            ]
        return np.concatenate(logits)[:total, :slots], names, told

    @property
    def _at(self) -> tuple[LearnerState, PyTree, Classes, np.int32]:
        return self.state, self.frozen, self.slots, np.int32(self.snapshot - 1)

    def _said(self, batch: Batch) -> Prediction:
        return self.run.learner.predict(*self._at, batch)

    def _labels(
        self, logits: np.ndarray, modality: str, temperature: float, top: int
    ) -> tuple[Label, ...]:
        allowed = self.allowed(modality)[None]
        found = calibration.log_softmax(logits[None], allowed, temperature)
        return answers.likeliest(
            np.exp(found[0]), allowed[0], self.canonical, self.names, top
        )
