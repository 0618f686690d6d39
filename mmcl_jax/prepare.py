"""Checks the data of an experiment before training.

Counts samples, finds damaged files and duplicates, and shows some samples on a page.
The config and its flags are those of mmcl-train.

Examples:
  mmcl-prepare --config=folders --config.stream.root=DATA
  mmcl-prepare --config=folders --config.stream.root=DATA --out=data.html
"""

import json
import pathlib
import sys
from collections.abc import Iterator

from absl import flags, logging
from rich.console import Console

from mmcl_jax import config as configs
from mmcl_jax.cli import command_line
from mmcl_jax.errors import ConfigError, DataError, Faults
from mmcl_jax.files import write_text
from mmcl_jax.modalities.base import InputSpec
from mmcl_jax.models import pretrained
from mmcl_jax.plain_text import printable
from mmcl_jax.report import media, page, theme
from mmcl_jax.report.blocks import (
    Card,
    Cards,
    ClassSamples,
    Remarks,
    Samples,
    Section,
    Text,
)
from mmcl_jax.report.charts import shown
from mmcl_jax.report.tables import Table, number, word
from mmcl_jax.streams.base import Record, Stream
from mmcl_jax.streams.inspection import Findings, inspect, to_json, without_stream
from mmcl_jax.streams.loader import Decoder
from mmcl_jax.streams.verification import verify
from mmcl_jax.training import build
from mmcl_jax.workdir.progress import Bar

_CONFIG = command_line.define_config(
    "Config with encoder and stream; its method is not used."
)
_OUT = command_line.define_path(
    "out", None, "An .html file to write, with counts and samples."
)
_JSON = flags.DEFINE_bool("json", False, "Print JSON instead of text.")
_SAMPLES = 3  # of a class
_CLASSES = 100  # whose samples are shown
_LINES = 50  # of remarks on a page


def main(argv: list[str]) -> None:
    """Prints the findings.

    The exit code is 2 if there are errors: something in folders or tables is wrong,
    samples are damaged, are training and test samples at once, or have two classes. It
    is 0 if there are at most warnings.
    """
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)
    try:
        command_line.refuse_arguments(argv)
        given = command_line.required(_CONFIG.value, "configs/folders.py")
        config = configs.resolve(given)
        inputs = pretrained.read_inputs(build.encoder_name(config.encoder))
        stream, findings = _inspect(config, inputs)
        if _OUT.value and stream:
            out = pathlib.Path(_OUT.value)
            out.parent.mkdir(parents=True, exist_ok=True)
            write_text(out, render(stream, findings, inputs))
    except (ConfigError, DataError, ValueError, OSError) as error:
        sys.exit(command_line.complain(error))
    if _JSON.value:
        print(json.dumps(to_json(stream, findings)))
    else:
        print("\n".join(map(printable, _lines(stream, findings))))
    sys.exit(command_line.USAGE_ERROR if findings.wrong else 0)


def _inspect(
    config: configs.Config, inputs: InputSpec
) -> tuple[Stream | None, Findings]:
    """Returns the stream of whatever is valid; None: nothing is."""
    faults = Faults()
    try:
        stream = build.build_stream(config, faults)
    except DataError as error:
        if not faults.errors:  # else the error lists them again
            faults.errors.append(str(error))
        return None, without_stream(faults)
    with Bar(Console(stderr=True), "reading every file once", None) as bar:
        verified = verify(
            Decoder(inputs, 0),
            stream,
            bar.reach,
            threads=config.data.threads,
            worker_processes=config.data.worker_processes,
            collect=True,
        )
    return stream, inspect(stream, verified, faults)


def _lines(stream: Stream | None, findings: Findings) -> Iterator[str]:
    for task in stream.tasks if stream else ():
        yield (
            f"{task.name}: {len(task.classes)} classes, {len(task.train)} training and "
            f"{len(task.test)} test samples"
        )
    rows = list(findings.rows())
    widths = [max((len(row[i]) for row in rows), default=0) for i in (0, 1)]
    for severity, kind, message in rows:
        # each finding on a line of its own, whatever a message holds
        flat = "; ".join(message.splitlines())
        yield f"{severity:<{widths[0]}}  {kind:<{widths[1]}}  {flat}"
    warnings = len(rows) - findings.wrong
    yield f"errors: {findings.wrong}, warnings: {warnings}"


def render(stream: Stream, findings: Findings, inputs: InputSpec) -> str:
    """Returns a page of the findings, with some training samples of each class.

    Args:
        stream: Stream that was inspected.
        findings: Findings of the inspection.
        inputs: Input of the encoder, which bounds the size of decoded samples.
    """
    train, test = (
        sum(getattr(c, p) for c in findings.counts) for p in ("train", "test")
    )
    cards = Cards(
        (
            Card("training samples", f"{train:,}", f"in {len(stream.tasks)} tasks"),
            Card("test samples", f"{test:,}", f"{len(stream.classes)} classes"),
            Card("faults", f"{findings.wrong:,}", "to repair before training"),
        )
    )
    lines = [f"{kind}: {message}" for _, kind, message in findings.rows()]
    more = (f"and {len(lines) - _LINES} more",) if len(lines) > _LINES else ()
    remarks = tuple(shown(line, 300) for line in lines[:_LINES]) + more
    table = Table(
        "classes",
        "Samples of each class",
        ("class", "data set", "modality", "training", "test"),
        tuple(
            (
                word(shown(c.slot.name, 60)),
                word(shown(c.slot.dataset, 60)),
                word(c.slot.modality),
                number(c.train),
                number(c.test),
            )
            for c in findings.counts
        ),
        words=3,
    )
    warnings = Section(
        "warnings",
        "Faults and imbalances",
        "Damaged files, samples of the same content, implausible values, classes with "
        "few samples, and what is not used.",
        (Remarks(remarks) if remarks else Text("None found."),),
    )
    samples = Section(
        "samples",
        "Samples",
        f"The first training samples of each class, for at most {_CLASSES} classes.",
        (Samples(tuple(_samples(stream, findings, inputs))),),
    )
    counts = Section("counts", "Counts", "Click a title to sort.", (table,))
    title = ", ".join(dict.fromkeys(slot.dataset for slot in stream.classes))
    return page.to_html("data", title, (warnings, samples, counts), cards)


def _samples(
    stream: Stream, findings: Findings, inputs: InputSpec
) -> Iterator[ClassSamples]:
    marks, room = theme.of_modalities(stream.modalities), media.MAX_BYTES
    first: dict[int, list[Record]] = {}
    for record in (record for task in stream.tasks for record in task.train):
        if len(kept := first.setdefault(record.label, [])) < _SAMPLES:
            kept.append(record)
    for label, count in enumerate(findings.counts[:_CLASSES]):
        own, modality = [], count.slot.modality
        for record in first.get(label, ()):
            found = media.example(record, modality, inputs)
            own.append(media.fitting(found, room))
            room -= len(own[-1].content)
        yield ClassSamples(
            shown(count.slot.name),
            modality,
            marks[modality].colour,
            f"{count.train:,} training and {count.test:,} test samples",
            tuple(own),
        )


def cli() -> None:
    """Runs the program."""
    command_line.run(main, with_config=True)


if __name__ == "__main__":
    cli()
