"""A run in Python: learn, predict, learn more, by the same engine as the programs."""

import csv
import dataclasses
import hashlib
import os
import pathlib
import shutil
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

from mmcl_jax import config as configs
from mmcl_jax.errors import ConfigError, DataError, WorkdirError
from mmcl_jax.serving import from_workdir, sample_files
from mmcl_jax.serving.classifier import Classifier, Labelled
from mmcl_jax.serving.sample_files import Sample
from mmcl_jax.streams import registry as sources
from mmcl_jax.streams.base import display_name
from mmcl_jax.training import experiment, extension
from mmcl_jax.training.reporting import MakeReporter, NoReporter
from mmcl_jax.workdir import layout
from mmcl_jax.workdir.lock import Lock

_TABLE = "manifest.csv"
Data = str | os.PathLike[str] | Iterable[tuple[Sample, str]]


class Learner:
    """A model that keeps learning, in a workdir.

    Whatever is learnt is saved as `mmcl_jax.main` saves it: a process may be killed at
    any time, and the same call resumes. The programs may be used on the workdir, too.
    """

    # Pages are drawn by a room that stands above this one; the package sets it.
    make_reporter: ClassVar[MakeReporter] = lambda workdir, run, say: NoReporter()

    def __init__(self, workdir: pathlib.Path, config: configs.Config) -> None:
        """Reads and writes nothing; use `create` or `load`."""
        self.workdir, self._config = workdir, config
        self._classifier: Classifier | None = None

    @classmethod
    def create(
        cls,
        workdir: str | os.PathLike[str],
        encoder: str = "builtin",
        method: str = "comm",
        config: configs.Config | None = None,
    ) -> "Learner":
        """Returns a learner that has learnt nothing yet; nothing is written.

        Args:
            workdir: Folder that everything is written to.
            encoder: Folder, file or name of the encoder.
            method: Name of the method.
            config: All other options; None: the defaults. Its data, encoder and method
                are not read.

        Raises:
            WorkdirError: There is a run in the workdir.
        """
        folder = pathlib.Path(workdir)
        if (folder / layout.CONFIG).exists():
            raise WorkdirError(f"{folder}: there is a run in it; use Learner.load")
        made = config or configs.Config()
        return cls(
            folder,
            dataclasses.replace(
                made,
                encoder=dataclasses.replace(made.encoder, path=encoder),
                method=dataclasses.replace(made.method, name=method),
            ),
        )

    @classmethod
    def load(cls, workdir: str | os.PathLike[str]) -> "Learner":
        """Returns the learner of a run, made by this class or by a program.

        Raises:
            WorkdirError: There is no run in the workdir.
            ConfigError: Its config cannot be read.
        """
        folder = pathlib.Path(workdir)
        if not (folder / layout.CONFIG).is_file():
            raise WorkdirError(f"{folder}: no run in it; use Learner.create")
        return cls(folder, configs.load(folder / layout.CONFIG))

    def learn(self, data: Data, name: str | None = None) -> dict[str, Any]:
        """Learns one more data set, or resumes where the same call was stopped.

        Args:
            data: Folder or table, as for `mmcl_jax.extend`; or pairs of a sample and
                the name of its class. Samples in memory are written into the workdir,
                where their files may be deleted once they are learnt.
            name: Name of the data set that pairs make up, and of the task.

        Returns:
            What `results.json` holds.

        Raises:
            ConfigError: The data are no tasks that this run can learn.
            DataError: A sample cannot be decoded.
            WorkdirError: Another process has the workdir.
        """
        if not isinstance(data, (str, os.PathLike)):
            data = self._written(data, name or "samples")
        source = extension.source_of(os.fspath(data), self._config)
        self._classifier = None
        path = self.workdir / layout.CONFIG
        if not path.is_file():
            self._config = dataclasses.replace(self._config, stream=source)
            return self._run(None)
        stored = configs.load(path)
        lock = Lock(self.workdir)
        try:
            # the same call may have been stopped in the first data set of all
            if stored.stream != source:
                extension.extend(self.workdir, source, name)
        except BaseException:
            lock.release()
            raise
        return self._run(lock)

    def predict(
        self,
        samples: Sequence[Sample],
        modality: str | None = None,
        top: int = 5,
        reject: float | None = None,
    ) -> list[Labelled]:
        """Labels samples, as `mmcl_jax.predict` does.

        Args:
            samples: Samples of the kinds that `sample_files.write` takes.
            modality: Modality of all of them; None: the model predicts it.
            top: Number of labels of a sample.
            reject: Share of samples of learnt classes that may be called unknown by
                mistake, see `Classifier.predict`; None: nothing is rejected.

        Raises:
            ConfigError: There is no such modality, it has not been learnt, or nothing
                can be rejected.
            DataError: A sample cannot be read.
            WorkdirError: Nothing has been learnt yet.
        """
        return self._loaded().predict(samples, modality, top, reject)

    def evaluate(self, data: Data) -> dict[str, Any]:
        """Returns the accuracy on labelled samples, with the modality predicted.

        Args:
            data: As for `learn`; of a folder or table, the test part.

        Returns:
            `samples`, `accuracy`, and `by_class`: the accuracy of each class by name.

        Raises:
            DataError: A sample cannot be read, or there is none.
        """
        if isinstance(data, (str, os.PathLike)):
            source = extension.source_of(os.fspath(data), self._config)
            seeds = self._config.seeds
            stream = sources.build(source, seeds.order, seeds.data)
            pairs: list[tuple[Any, str]] = [
                (row.reference, stream.classes[row.label].name)
                for task in stream.tasks
                for row in task.test
            ]
        else:
            pairs = list(data)
        if not pairs:
            raise DataError("no samples to evaluate on")
        told = self.predict([sample for sample, _ in pairs], top=1)
        hits: dict[str, list[bool]] = {}
        for (_, label), said in zip(pairs, told, strict=True):
            wanted, found = display_name(label), said.labels[0].name
            hits.setdefault(wanted, []).append(wanted.casefold() == found.casefold())
        every = [hit for own in hits.values() for hit in own]
        return {
            "samples": len(every),
            "accuracy": sum(every) / len(every),
            "by_class": {name: sum(own) / len(own) for name, own in hits.items()},
        }

    def report(self) -> pathlib.Path:
        """Returns the path of the page on the run.

        Raises:
            WorkdirError: There is none yet, or `config.report` is `off`.
        """
        path = self.workdir / layout.REPORT
        if not path.is_file():
            raise WorkdirError(
                f"{path}: no such page; learn something with config.report=end"
            )
        return path

    def _run(self, lock: Lock | None) -> dict[str, Any]:
        reporter = type(self).make_reporter
        found = experiment.run(
            self._config, self.workdir, make_reporter=reporter, lock=lock
        )
        assert found is not None  # without `stop_after` a run ends at its end
        return found

    def _loaded(self) -> Classifier:
        if self._classifier is None:
            self._classifier = from_workdir.load(self.workdir)
        return self._classifier

    def _written(self, pairs: Iterable[tuple[Sample, str]], name: str) -> str:
        """Writes samples and a table of them; returns the path of the table.

        The folder is named by the content, so that the same samples are written once.
        """
        if "/" in name or not name.strip():
            raise ConfigError(f"name: {name!r} cannot be the name of a data set")
        parent = self.workdir / layout.ADDED
        parent.mkdir(parents=True, exist_ok=True)
        unfinished = parent / ".unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir()
        digest, rows = hashlib.sha256(), []
        for i, (sample, label) in enumerate(pairs):
            path, modality = sample_files.write(sample, unfinished / f"{i:06d}")
            digest.update(f"{label}\0{modality}\0".encode() + path.read_bytes())
            rows.append((path.name, label, modality, name))
        if not rows:
            raise DataError("no samples to learn")
        with (unfinished / _TABLE).open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(("path", "label", "modality", "dataset"))
            writer.writerows(rows)
        folder = parent / f"{name}-{digest.hexdigest()[:12]}"
        if folder.exists():
            shutil.rmtree(unfinished)
        else:
            unfinished.replace(folder)
        return str(folder / _TABLE)
