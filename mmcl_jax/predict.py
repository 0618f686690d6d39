"""Labels ordinary files or sentences with the classes of a run.

Arguments are files, folders or - for a list of files on standard input. For each file,
the likeliest classes are printed with their probabilities.

Examples:
  mmcl-predict --workdir=runs/own picture.jpg sounds/
  mmcl-predict --model=runs/exported --text="what about my card?" --json
"""

import json
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from absl import flags, logging
from rich.console import Console

from mmcl_jax.cli import command_line
from mmcl_jax.errors import ConfigError, DataError
from mmcl_jax.files import files_below
from mmcl_jax.plain_text import printable

if TYPE_CHECKING:
    from mmcl_jax.serving.answers import Labelled, Novelty
    from mmcl_jax.serving.classifier import Classifier, Sample
    from mmcl_jax.serving.exported import Exported

_WORKDIR = command_line.define_path("workdir", None, "Folder of the run.")
_MODEL = command_line.define_path(
    "model",
    None,
    "In the place of --workdir: folder of an export, or hf://org/name[@revision] of"
    " the Hugging Face Hub.",
)
_ENCODER = command_line.define_encoder()
_SNAPSHOT = flags.DEFINE_integer(
    "snapshot", None, "Snapshot of the run, counted from 1; by default the newest.", 1
)
_MODALITY = flags.DEFINE_string(
    "modality",
    None,
    "Modality of all files, which restricts the prediction to its classes. By default "
    "a file is recognized by its content, and the model predicts the modality.",
)
_TOP = flags.DEFINE_integer("top", 5, "Number of classes shown for each file.", 1)
_JSON = flags.DEFINE_bool("json", False, "Print one JSON object per line.")
_REJECT = flags.DEFINE_float(
    "reject",
    None,
    "Say which files are none of the classes learnt; the value is the share of files "
    "of learnt classes that may be called unknown by mistake, such as 0.05.",
)
_TEXT = flags.DEFINE_multi_string("text", [], "A sentence to label.")

# Shorter lists are finished before a progress bar is of use.
_LONG = 64


def main(argv: list[str]) -> None:
    """Labels the files and sentences of the command line.

    The exit code is 1 if some files cannot be read, which are named on standard error
    while all others are labelled; it is 2 if the run cannot be used.
    """
    # imported late, since JAX takes seconds to load, and --help does without it
    from mmcl_jax.parallel import compilation_cache, host_memory

    host_memory.bound()
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.ERROR)
    try:
        samples = _samples(argv[1:])
        if not _WORKDIR.value and not _MODEL.value:
            raise ConfigError(
                "--workdir: missing; give the folder of a run, or an export by --model"
            )
        if _MODEL.value and (_WORKDIR.value or _ENCODER.value or _SNAPSHOT.value):
            raise ConfigError(
                "--model: an export stands for itself; leave out --workdir, --encoder "
                "and --snapshot"
            )
        if not samples:
            raise ConfigError(
                "no files: name some, or a folder, or - for a list on standard input; "
                "or give --text=SENTENCE"
            )
        compilation_cache.keep_compiled_programs()
        sys.exit(_label(samples))
    except BrokenPipeError:
        # The reader has closed the pipe. Standard output is redirected, since Python
        # would fail again when it flushes the buffer at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except (ValueError, OSError) as error:  # includes errors of config, data, workdir
        sys.exit(command_line.complain(error))


def _load() -> "Classifier | Exported":
    if _MODEL.value:
        from mmcl_jax.serving import exported, remote

        return exported.load(remote.fetch(_MODEL.value))
    from mmcl_jax.serving import from_workdir

    assert _WORKDIR.value
    return from_workdir.load(_WORKDIR.value, _SNAPSHOT.value, _ENCODER.value)


def _label(samples: "Sequence[Sample]") -> int:
    """Prints the prediction of each sample; returns the exit code."""
    from mmcl_jax.workdir.progress import Bar

    classifier = _load()
    for note in classifier.notes:
        print(f"note: {printable(note)}", file=sys.stderr)
    console = Console(stderr=True, quiet=len(samples) < _LONG)
    # A bar redirects standard output, which must happen only on a terminal.
    output, failed = sys.stdout, False
    with Bar(console, "labelling", len(samples)) as bar:
        for source, said in classifier.predict_each(
            samples, _MODALITY.value, _TOP.value, _REJECT.value
        ):
            target = sys.stdout if output.isatty() else output
            if isinstance(said, DataError):
                failed = True
                print(f"error: {printable(str(said))}", file=sys.stderr)
                if _JSON.value:
                    row = {"source": source, "error": str(said)}
                    print(json.dumps(row), file=target)
            else:
                print(
                    json.dumps(said.row()) if _JSON.value else _shown(said), file=target
                )
            bar.advance(1)
    output.flush()
    return int(failed)


def _samples(names: Sequence[str]) -> "list[Sample]":
    from mmcl_jax.modalities.base import TextReference

    sentences = [TextReference(s, "--text", i) for i, s in enumerate(_TEXT.value, 1)]
    listed: list[str] = []
    for name in names:
        listed += sys.stdin.read().splitlines() if name == "-" else [name]
    return [*sentences, *(p for name in listed if name for p in files_below(name))]


def _shown(said: "Labelled") -> str:
    took = "" if said.taken_for == said.modality else f", taken for {said.taken_for}"
    lines = [f"{printable(said.source)}: {said.modality}{took}"]
    if said.novelty:
        lines.append(f"  {_told(said.novelty)}")
    lines += [f"  {100 * p:5.1f} %  {printable(name)}" for name, p in said.labels]
    lines += [f"  warning: {phrase}" for phrase in said.oddities]
    return "\n".join(lines)


def _told(told: "Novelty") -> str:
    unlike = f"more unlike them than {told.percentile:.1f} % of the samples learnt"
    if told.unknown:
        return f"none of the classes learnt: {unlike}; if it were one, then"
    return f"one of the classes learnt: {unlike}"


def cli() -> None:
    """Runs the program."""
    command_line.run(main)


if __name__ == "__main__":
    cli()
