"""The export of a run: its arrays, a self-contained program, and a model card."""

import json
import pathlib
import re
import tempfile
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy
from jax import export
from jaxtyping import Array, Float

from mmcl_jax import __version__
from mmcl_jax.errors import ConfigError
from mmcl_jax.files import keep
from mmcl_jax.methods.base import forward
from mmcl_jax.modalities import MODALITIES
from mmcl_jax.ops import losses
from mmcl_jax.ops.trees import nbytes
from mmcl_jax.serving.classifier import Classifier
from mmcl_jax.training.build import input_shapes
from mmcl_jax.types import Batch, Context

TENSORS, DESCRIPTION = "model.safetensors", "model.json"
PROGRAM, CARD = "classifier.stablehlo", "README.md"
PLATFORMS = ("cpu", "cuda", "tpu")
# A program is one Protocol Buffers message, which is limited to 2 GiB.
_MAX_PROGRAM_BYTES = 3 * 2**29
# Meanings of tensors; the longest matching prefix of a name applies.
_MEANINGS = {
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


def tensors(classifier: Classifier) -> dict[str, np.ndarray]:
    """Returns all arrays that the run has learnt, by path, and `text`."""
    learnt = {"params": classifier.state.params, "memory": classifier.state.memory}
    found = {
        jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(learnt)
    }
    named = len(classifier.run.stream.classes)
    return found | {"text": np.asarray(classifier.slots.text)[:named]}


def program(classifier: Classifier, modality: str) -> export.Exported:
    """Returns the classifier of one modality as a program that needs no other code.

    Its argument holds the result of `Modality.preprocess` in a row for each sample,
    for any number of them: `float32 [b f s s 3]`, for text `int32 [b n]`. It returns
    logits `[b C]` over class slots and probabilities `[b C]`, 0 for slots that cannot
    win, as `Classifier.predict` with a given modality. It contains the weights.

    Raises:
        ConfigError: The run has not seen the modality.
        ValueError: The encoder's weights are too large for a program.
    """
    classifier.check_modality(modality)
    run, index = classifier.run, classifier.run.model.modalities.index(modality)
    if (size := nbytes(run.encoder.frozen)) > _MAX_PROGRAM_BYTES:
        raise ValueError(
            f"{run.config.encoder.path}: {size} bytes of weights, more than the "
            f"{_MAX_PROGRAM_BYTES} that a program can hold"
        )
    # what is preprocessed: a stem is a part of the program
    ((name, sample),) = input_shapes(run.encoder.inputs, [modality])[0].items()
    context = Context(
        classifier.frozen,
        classifier.state.memory,
        jnp.int32(classifier.snapshot - 1),
        classifier.slots,
        phase="predict",
    )
    allowed = jnp.asarray(classifier.allowed(modality))
    temperature = classifier.temperature(modality)

    # Arrays of the closure become constants of the program.
    def classify(values: Array) -> tuple[Float[Array, "b C"], Float[Array, "b C"]]:
        rows, inputs = values.shape[0], {name: values}
        batch = Batch(
            inputs=inputs,
            query=run.model.embed(context.frozen, modality, inputs, None),
            label=jnp.zeros(rows, jnp.int32),
            weight=jnp.ones(rows),
            id=jnp.full(rows, -1, jnp.int32),
            hint=jnp.full(rows, index, jnp.int32),
            modality=modality,
        )
        params = classifier.state.params
        features = forward(run.method, run.model, params, context, batch)
        logits = run.method.predict(params, context, batch, features).logits
        logits = logits[:, : len(run.stream.classes)]
        masked = losses.mask_logits(logits / temperature, allowed)
        return logits, jax.nn.softmax(masked) * allowed

    (rows,) = export.symbolic_shape("b")
    shape = jax.ShapeDtypeStruct((rows, *sample.shape), sample.dtype)
    return export.export(jax.jit(classify), platforms=PLATFORMS)(shape)


def write(classifier: Classifier, folder: pathlib.Path, modality: str) -> None:
    """Writes all four files into a folder, which is new or empty.

    Raises:
        ConfigError: The folder is not empty, the run has not seen the modality, or
            flatbuffers, with which JAX serializes, is not installed.
        ValueError: The encoder is too large, see `program`.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"--out: {folder} exists and is not an empty folder")
    # Everything that can fail comes before the folder, so that no partial one remains.
    try:
        compiled = program(classifier, modality).serialize()
    except ImportError as error:
        raise ConfigError(f"{error}: pip install flatbuffers") from error
    arrays = tensors(classifier)
    described = describe(classifier, arrays, modality)
    # The format has no strides: a transposed array would be stored in the wrong order.
    ordered = {name: np.array(array, order="C") for name, array in arrays.items()}
    contents = {
        TENSORS: safetensors.numpy.save(ordered),
        PROGRAM: compiled,
        DESCRIPTION: (json.dumps(described, indent=1) + "\n").encode(),
        CARD: card(classifier, described).encode(),
    }
    folder = folder.resolve()
    folder.parent.mkdir(parents=True, exist_ok=True)
    # beside it, and renamed at the end: a reader finds all of it or nothing
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".export-") as place:
        unfinished = pathlib.Path(place) / folder.name
        unfinished.mkdir()
        for name, content in contents.items():
            with (unfinished / name).open("wb") as file:
                file.write(content)
                keep(file)
        unfinished.replace(folder)


def describe(
    classifier: Classifier, arrays: dict[str, np.ndarray], modality: str
) -> dict[str, Any]:
    """Returns the contents of `model.json`."""
    run, stream = classifier.run, classifier.run.stream
    seen, allowed = classifier.seen, classifier.allowed(modality)
    (inputs,) = input_shapes(run.encoder.inputs, [modality])
    return {
        "mmcl_jax": __version__,
        "method": run.config.method.name,
        "snapshot": classifier.snapshot,
        "encoder": {
            "path": run.config.encoder.path,
            "fingerprint": run.encoder.fingerprint,
        },
        "slots": [
            {
                "name": slot.name,
                "modality": slot.modality,
                "dataset": slot.dataset,
                "learnt": bool(seen[c]),
                "can_win": bool(allowed[c]),
            }
            for c, slot in enumerate(stream.classes)
        ],
        "classifier": {
            "modality": modality,
            "preprocessing": MODALITIES[modality].version(run.encoder.inputs),
            "input": {
                name: {
                    "shape": ["b", *shape.shape],
                    "dtype": np.dtype(shape.dtype).name,
                }
                for name, shape in inputs.items()
            },
            "output": ["logits [b C]", "probabilities [b C]"],
            "platforms": list(PLATFORMS),
            "temperature": classifier.temperature(modality),
            "calibrated": classifier.temperatures is not None,
        },
        "tensors": {
            name: {
                "shape": list(array.shape),
                "dtype": array.dtype.name,
                "meaning": _meaning(name),
            }
            for name, array in arrays.items()
        },
    }


def _meaning(name: str) -> str:
    parts = name.split("/")
    paths = ("/".join(parts[:end]) for end in range(len(parts), 0, -1))
    return next(_MEANINGS[path] for path in paths if path in _MEANINGS)


def card(classifier: Classifier, described: dict[str, Any]) -> str:
    """Returns the model card, in Markdown."""
    run, stream = classifier.run, classifier.run.stream
    about = described["classifier"]
    (name, given), *_ = about["input"].items()
    shape = ", ".join(map(str, given["shape"]))
    learnt = [
        f"| {escaped(stream.tasks[i].name)} | {stream.tasks[i].modality} | "
        + ", ".join(escaped(stream.classes[c].name) for c in stream.tasks[i].classes)
        + " |"
        for stage in stream.stages[: classifier.snapshot]
        for i in stage
    ]
    calibration = (
        "A temperature was fitted to training samples of each stage at its end; on new "
        "data of another kind the probabilities are still too confident."
        if about["calibrated"]
        else "**Not calibrated**: the run has stored no temperature."
    )
    return f"""# {escaped(run.config.method.name)}: {len(classifier.classes)} classes

Learnt task after task by mmcl_jax {__version__} in a frozen encoder; this is the state
after stage {classifier.snapshot} of {len(stream.stages)}.

| task | modality | classes |
|---|---|---|
{chr(10).join(learnt)}

## Files

- `{PROGRAM}`: the classifier of the modality {about["modality"]} with all weights, as
  StableHLO for {", ".join(PLATFORMS)}.
- `{TENSORS}`: trained parameters, the memory of the method, and embeddings of the class
  names; without the frozen encoder, whose fingerprint is
  `{described["encoder"]["fingerprint"]}`.
- `{DESCRIPTION}`: class slots, and names, shapes and meaning of all tensors.

## Use

```python
import pathlib

import jax.export

classifier = jax.export.deserialize(
    bytearray(pathlib.Path("{PROGRAM}").read_bytes())
)
# {name}: {given["dtype"]} [{shape}], as {about["preprocessing"]} of mmcl_jax makes it
logits, probabilities = classifier.call({name})
```

Column `c` of both is the slot `c` of `{DESCRIPTION}`; slots that cannot win have
probability 0. The classifier assumes that its samples are of this modality.

## Limits

- It names one of the classes above for every sample, whatever its content.
- {calibration}
- Licence and terms are those of the encoder and of the data it was learnt from.
"""


def escaped(text: str) -> str:
    r"""Returns text that Markdown shows literally, on one line of a table.

    >>> escaped("a|b <i>")
    'a\\|b \\<i\\>'
    """
    flat = "".join(c if c.isprintable() else " " for c in text)
    return re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", flat)
