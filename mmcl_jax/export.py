"""Exports the classifier of a run for use without this package.

Writes StableHLO programs, all weights, the code that decodes files, a description and a
model card.

Examples:
  mmcl-export --workdir=runs/own --out=runs/exported
  mmcl-export --workdir=runs/own --out=runs/exported --push=org/name
"""

import pathlib
import sys

from absl import flags, logging

from mmcl_jax.cli import command_line
from mmcl_jax.errors import ConfigError
from mmcl_jax.plain_text import printable

_WORKDIR = command_line.define_path("workdir", None, "Folder of the run.")
_OUT = command_line.define_path("out", None, "Folder to write to, new or empty.")
_ENCODER = command_line.define_encoder()
_SNAPSHOT = flags.DEFINE_integer(
    "snapshot", None, "Snapshot of the run, counted from 1; by default the newest.", 1
)
_MODALITY = flags.DEFINE_string(
    "modality",
    None,
    "Modality that the export reads; by default all that the run has seen.",
)
_PUSH = flags.DEFINE_string(
    "push",
    None,
    "Repository of the Hugging Face Hub, org/name, that the export is sent to as well, "
    "with the token in HF_TOKEN; a new one is private.",
)


def main(argv: list[str]) -> None:
    """Writes the files and prints their paths; errors end with exit code 2."""
    # imported late, since JAX takes seconds to load, and --help does without it
    from mmcl_jax.parallel import host_memory
    from mmcl_jax.serving import from_workdir, remote, standalone

    host_memory.bound()
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.ERROR)
    try:
        command_line.refuse_arguments(argv)
        if not _WORKDIR.value or not _OUT.value:
            raise ConfigError(
                "--workdir, --out: missing; give the folder of a run and an output "
                "folder"
            )
        if _PUSH.value is not None:
            remote.check_push(_PUSH.value)
        folder = pathlib.Path(_OUT.value)
        classifier = from_workdir.load(_WORKDIR.value, _SNAPSHOT.value, _ENCODER.value)
        for note in classifier.notes:
            print(f"note: {printable(note)}", file=sys.stderr)
        modalities = (_MODALITY.value,) if _MODALITY.value else ()
        accuracy = from_workdir.accuracy(_WORKDIR.value, classifier.snapshot)
        standalone.write(classifier, folder, modalities, accuracy)
        for path in sorted(folder.iterdir()):
            print(path)
        if _PUSH.value is not None:
            print(remote.push(folder, _PUSH.value))
    except (ValueError, OSError) as error:  # includes errors of config, data, workdir
        sys.exit(command_line.complain(error))


def cli() -> None:
    """Runs the program."""
    command_line.run(main)


if __name__ == "__main__":
    cli()
