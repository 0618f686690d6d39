"""The export of a run: programs, arrays, preprocessing, a description, a model card."""

import dataclasses
import hashlib
import importlib.metadata
import json
import pathlib
import shutil
import tempfile
from collections.abc import Sequence
from typing import Any

import numpy as np
import safetensors.numpy

from mmcl_jax import __version__
from mmcl_jax.errors import ConfigError
from mmcl_jax.evaluation import calibration
from mmcl_jax.files import keep
from mmcl_jax.modalities import MODALITIES
from mmcl_jax.modalities.tokenization import tokenizer_files
from mmcl_jax.serving import card, exported, program
from mmcl_jax.serving.classifier import Classifier
from mmcl_jax.serving.exported import DESCRIPTION, TOKENIZER
from mmcl_jax.training.build import encoder_name, input_shapes

LEARNT, ENCODER = "model.safetensors", "encoder.safetensors"
CARD, REQUIREMENTS, CODE = "README.md", "requirements.txt", "mmcl_jax"
# What of the package reads an export: these files, and nothing that they do not import.
_COPIED = (
    "errors.py",
    "modalities/*.py",
    "serving/__init__.py",
    "serving/answers.py",
    "serving/exported.py",
    "serving/file_types.py",
    "serving/reading.py",
    "serving/sample_files.py",
)
_NEEDED = (
    *("jax", "numpy", "flatbuffers", "safetensors"),
    *("Pillow", "av", "soundfile", "tokenizers", "ftfy"),
)
_TERMS = ("LICENSE", "LICENSE.md", "LICENSE.txt", "NOTICE")
# Meanings of tensors; the longest matching prefix of a name applies.
_MEANINGS = {
    "frozen": "weights of the frozen encoder",
    "params": "trained in the run",
    "params/adapters": "adapters inside the frozen towers, a stack over modalities",
    "params/adapters/class_context": "added to the words before class names",
    "params/class_context": "added to the words before class names",
    "memory": "remembered by the method",
    "memory/anchor": "adapters as the last stage of each modality left them",
    "memory/layers": "Gaussians of the classes' frozen layer features",
    "memory/adapted": "Gaussians of the classes' layer features under the adapter",
    "memory/of_queries": "discriminants of frozen features",
    "memory/of_layers": "discriminants of frozen layer features",
    "memory/of_adapted": "discriminants of layer features under the adapter",
    "memory/queries": "Gaussians of the classes' frozen features",
    "memory/router": "scores the modality of a sample",
    "memory/head": "columns of a linear head, one a class slot",
    "text": "unit text embeddings of the class slots [C d], by the frozen encoder",
}


def write(
    classifier: Classifier,
    folder: pathlib.Path,
    modalities: Sequence[str] = (),
    accuracy: dict[str, float] | None = None,
) -> None:
    """Writes an export into a folder, which is new or empty.

    Args:
        classifier: What is exported.
        folder: Where to.
        modalities: Those that there is a program for; none: all that the run has seen.
        accuracy: Accuracy with the modality `given` and `predicted`, for the card.

    Raises:
        ConfigError: The folder is not empty, or the run has not seen a modality.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"--out: {folder} exists and is not an empty folder")
    modalities = modalities or classifier.modalities
    for modality in modalities:
        classifier.check_modality(modality)
    made_of = parts(classifier)
    arrays = program.weights(made_of)
    named = len(classifier.run.stream.classes)
    text = {"text": np.asarray(classifier.slots.text)[:named]}
    frozen = {k: v for k, v in arrays.items() if k.startswith("frozen/")}
    learnt = {k: v for k, v in arrays.items() if k not in frozen} | text
    folder = folder.resolve()
    folder.parent.mkdir(parents=True, exist_ok=True)
    # beside it, and renamed at the end: a reader finds all of it or nothing
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".export-") as place:
        unfinished = pathlib.Path(place) / folder.name
        unfinished.mkdir()
        _save(frozen, unfinished / ENCODER)
        _save(learnt, unfinished / LEARNT)
        for modality in modalities:
            content = program.make(made_of, modality).serialize()
            (unfinished / _program_file(modality)).write_bytes(content)
        if "text" in modalities:
            (unfinished / TOKENIZER).mkdir()
            for path in tokenizer_files(classifier.run.encoder.inputs.tokenizer.path):
                shutil.copyfile(path, unfinished / TOKENIZER / path.name)
        read = _hashes(unfinished)
        _copy_code(unfinished)
        _copy_terms(classifier, unfinished)
        copied = {k: v for k, v in _hashes(unfinished).items() if k not in read}
        described = describe(classifier, modalities, arrays | text)
        described |= {"accuracy": accuracy, "files": read, "code": copied}
        content = json.dumps(described, indent=1) + "\n"
        (unfinished / DESCRIPTION).write_text(content, encoding="utf-8")
        content = card.of(described)
        (unfinished / CARD).write_text(content, encoding="utf-8")
        _keep_all(unfinished)
        unfinished.replace(folder)


def _keep_all(folder: pathlib.Path) -> None:
    """Waits until all files are on the disk."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb+") as file:
                keep(file)


def parts(classifier: Classifier) -> program.Parts:
    """Returns what the programs of a classifier are made of."""
    state, names = classifier.state, classifier.run.model.modalities
    learnt = {"params": state.params, "memory": state.memory}
    given, predicted = calibration.ROUTES
    return program.Parts(
        classifier.run,
        learnt | {"frozen": classifier.frozen},
        classifier.slots,
        classifier.snapshot,
        {names[m]: classifier.allowed(names[m]) for m in classifier.known},
        {
            given: classifier.temperature(classifier.modalities[0]),
            predicted: classifier.temperature(None),
        },
        classifier.gauge,
    )


def _save(arrays: dict[str, np.ndarray], path: pathlib.Path) -> None:
    # The format has no strides: a transposed array would be stored in the wrong order.
    ordered = {name: np.array(array, order="C") for name, array in arrays.items()}
    # not `save_file`, whose file its owner alone may read
    path.write_bytes(safetensors.numpy.save(ordered))


def _program_file(modality: str) -> str:
    return f"{modality}.stablehlo"


def _hashes(folder: pathlib.Path) -> dict[str, str]:
    found = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        found[path.relative_to(folder).as_posix()] = digest
    return found


def _copy_code(folder: pathlib.Path) -> None:
    """Writes the part of the package that labels files, and what it needs."""
    package = pathlib.Path(__file__).parents[1]
    for pattern in _COPIED:
        for path in sorted(package.glob(pattern)):
            target = folder / CODE / path.relative_to(package)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
    (folder / CODE / "__init__.py").write_text(
        f'"""The part of mmcl_jax {__version__} that labels files by an export.\n\n'
        'Licensed under the Apache License 2.0, as all of mmcl_jax.\n"""\n\n'
        f'__version__ = "{__version__}"\n',
        encoding="utf-8",
    )
    lines = [f"{name}=={importlib.metadata.version(name)}\n" for name in _NEEDED]
    (folder / REQUIREMENTS).write_text("".join(lines), encoding="utf-8")


def _copy_terms(classifier: Classifier, folder: pathlib.Path) -> None:
    """Copies what must go with the weights of an encoder that is a folder."""
    encoder = pathlib.Path(encoder_name(classifier.run.config.encoder))
    for name in _TERMS:
        if (encoder / name).is_file():
            shutil.copyfile(encoder / name, folder / name)


def describe(
    classifier: Classifier, modalities: Sequence[str], arrays: dict[str, np.ndarray]
) -> dict[str, Any]:
    """Returns the contents of `model.json`, but for the files."""
    run, seen = classifier.run, classifier.seen
    inputs, stream = run.encoder.inputs, run.stream
    tokenizer = pathlib.Path(inputs.tokenizer.path).name
    return {
        "format": exported.FORMAT,
        "mmcl_jax": __version__,
        "method": run.config.method.name,
        "snapshot": classifier.snapshot,
        "stages": len(stream.stages),
        "notes": list(classifier.notes),
        "encoder": {
            "name": card.shown(run.config.encoder.path),
            "fingerprint": run.encoder.fingerprint,
            "license": card.license_of(run.config.encoder.path),
        },
        "tasks": [
            {
                "name": stream.tasks[i].name,
                "modality": stream.tasks[i].modality,
                "classes": [stream.classes[c].name for c in stream.tasks[i].classes],
            }
            for stage in stream.stages[: classifier.snapshot]
            for i in stage
        ],
        "slots": [
            {
                "name": slot.name,
                "modality": slot.modality,
                "dataset": slot.dataset,
                "class": int(slot.canonical),
                "learnt": bool(seen[c]),
            }
            for c, slot in enumerate(stream.classes)
        ],
        "modalities": [run.model.modalities[m] for m in classifier.known],
        "temperatures": classifier.temperatures,
        "rejects": classifier.kept is not None,
        "inputs": dataclasses.asdict(inputs)
        | {"tokenizer": dataclasses.asdict(inputs.tokenizer) | {"path": tokenizer}},
        "programs": {
            modality: {
                "file": _program_file(modality),
                "preprocessing": MODALITIES[modality].version(inputs),
                "input": _input_of(classifier, modality),
                "outputs": program.OUTPUTS,
                "platforms": list(program.PLATFORMS),
            }
            for modality in modalities
        },
        "weights": [ENCODER, LEARNT],
        "taken": sorted(arrays.keys() - {"text"}),
        "tensors": {
            name: {
                "shape": list(array.shape),
                "dtype": array.dtype.name,
                "meaning": _meaning(name),
            }
            for name, array in arrays.items()
        },
    }


def _input_of(classifier: Classifier, modality: str) -> dict[str, Any]:
    (inputs,) = input_shapes(classifier.run.encoder.inputs, [modality])
    ((name, shape),) = inputs.items()
    return {
        "name": name,
        "shape": ["b", *shape.shape],
        "dtype": np.dtype(shape.dtype).name,
    }


def _meaning(name: str) -> str:
    parts = name.split("/")
    paths = ("/".join(parts[:end]) for end in range(len(parts), 0, -1))
    return next(_MEANINGS[path] for path in paths if path in _MEANINGS)
