"""The model card of an export."""

import pathlib
import re
from typing import Any

from mmcl_jax.files import MAX_JSON_BYTES

_LICENSE = re.compile(r"^license:\s*([a-z0-9][a-z0-9.-]{0,40})\s*$", re.MULTILINE)
# of the text in front of a card, between two lines of dashes
_FRONT = re.compile(r"\A---\n(.*?\n)---\n", re.DOTALL)


def of(described: dict[str, Any]) -> str:
    """Returns the card in Markdown, with what the Hugging Face Hub reads in front.

    Args:
        described: Contents of `model.json`.
    """
    classes = {slot["class"] for slot in described["slots"] if slot["learnt"]}
    return f"""{_front(described)}
# {escaped(described["method"])}: {len(classes)} classes

Learnt task after task by mmcl_jax {described["mmcl_jax"]} in a frozen encoder; this is
the state after stage {described["snapshot"]} of {described["stages"]}.

{_tasks(described)}
{_accuracy(described["accuracy"])}
## Use

```bash
pip install -r requirements.txt
```

```python
import sys

sys.path.insert(0, ".")  # this folder; not needed where mmcl_jax is installed
from mmcl_jax.modalities.base import TextReference
from mmcl_jax.serving import exported

model = exported.load(".")
said, *_ = model.predict(["a file", b"its bytes", TextReference("a sentence")], top=3)
print(said.modality, said.labels, model.predict(["a file"], reject=0.05)[0].novelty)
```

Samples are paths, bytes, pictures of Pillow, arrays or sentences. Where mmcl_jax is
installed, `mmcl-predict --model=FOLDER FILES` labels files; the folder may be written
`hf://org/name`.

## Files

{_files(described)}

A program alone is called with the arrays of both safetensors files in a dictionary, and
with a tensor as the code in [mmcl_jax/modalities](mmcl_jax/modalities) makes it:
`jax.export.deserialize(bytearray(content)).call(arrays, tensor)`. Column `c` of its
results is the slot `c` of `model.json`.

## Limits

- It names one of the classes above for every sample, whatever its content, unless
  `reject` is given.
{_calibration(described)}
- {_terms(described)}
"""


def _front(described: dict[str, Any]) -> str:
    known = described["encoder"]["license"]
    tags = ["continual-learning", "multimodal", "jax", "stablehlo"]
    tags += [name for name in described["programs"] if name.isidentifier()]
    lines = ["library_name: mmcl_jax", *([f"license: {known}"] if known else [])]
    return "\n".join(["---", *lines, "tags:", *(f"- {tag}" for tag in tags), "---"])


def shown(encoder: str) -> str:
    """Returns the name of an encoder, without the folders that it lies in here.

    >>> shown("/home/me/clip + hf://org/name")
    'clip + hf://org/name'
    """
    return re.sub(r"(?<!\S)[/~.]\S*/(?=[^/\s])", "", encoder)


def license_of(encoder: str) -> str | None:
    """Returns the licence of an encoder as the Hub writes it; None: it is not known.

    It is known of the built-in encoder, and of a folder whose README.md says it in the
    way of the Hub's cards.
    """
    if encoder == "builtin":
        return "apache-2.0"
    readme = pathlib.Path(encoder) / "README.md"
    if not readme.is_file() or readme.stat().st_size > MAX_JSON_BYTES:
        return None
    front = _FRONT.match(readme.read_text(encoding="utf-8", errors="replace"))
    said = _LICENSE.search(front[1]) if front else None
    return said[1] if said else None


def _tasks(described: dict[str, Any]) -> str:
    rows = [
        f"| {escaped(task['name'])} | {task['modality']} | "
        f"{', '.join(map(escaped, task['classes']))} |"
        for task in described["tasks"]
    ]
    return "\n".join(["| task | modality | classes |", "|---|---|---|", *rows, ""])


def _accuracy(accuracy: dict[str, float] | None) -> str:
    if not accuracy:
        return ""
    said = ", ".join(f"{100 * v:.1f} % with it {k}" for k, v in accuracy.items())
    return (
        "Accuracy on the test samples of these tasks, the mean over tasks, among the "
        f"classes of the\nmodality: {said}.\n"
    )


def _files(described: dict[str, Any]) -> str:
    programs = list(described["programs"].values())
    names = ", ".join(f"`{each['file']}`" for each in programs)
    platforms = ", ".join(programs[0]["platforms"])
    return f"""- {names}:
  the classifier of a modality each, from a preprocessed tensor to probabilities, the
  predicted modality and novelty, as StableHLO for {platforms}.
- `model.safetensors`: trained parameters, the memory of the method, and embeddings of
  the class names.
- `encoder.safetensors`: the frozen encoder, whose fingerprint is
  `{described["encoder"]["fingerprint"]}`.
- `tokenizer/`: the tokenizer of sentences, if it labels any.
- `model.json`: class slots, temperatures, how samples are preprocessed, names, shapes
  and meaning of all tensors, and the SHA-256 of every other file.
- `mmcl_jax/`, `requirements.txt`: the code that decodes and labels samples, and what it
  needs."""


def _calibration(described: dict[str, Any]) -> str:
    if described["temperatures"] is None:
        return "- **Not calibrated**: the run has stored no temperature."
    return (
        "- A temperature was fitted to training samples of each stage at its end; on "
        "new data of\n  another kind the probabilities are still too confident."
    )


def _terms(described: dict[str, Any]) -> str:
    encoder = described["encoder"]
    known = f" ({encoder['license']})" if encoder["license"] else ""
    return (
        f"Licence and terms are those of the encoder {escaped(encoder['name'])}"
        f"{known}, whose\n  weights are contained, and of the data it was learnt from."
    )


def escaped(text: str) -> str:
    r"""Returns text that Markdown shows literally, on one line of a table.

    >>> escaped("a|b <i>")
    'a\\|b \\<i\\>'
    """
    flat = "".join(c if c.isprintable() else " " for c in text)
    return re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", flat)
