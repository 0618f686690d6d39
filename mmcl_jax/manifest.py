"""Lists the files of a published data set in a table.

Writes `manifest.csv` into the folder of a data set that was downloaded and unpacked by
hand; the config `manifest` reads it. With the layout mmcl_real, what mmcl-real v1
needs, and the config `real` reads, is copied from clones of repositories.

Examples:
  mmcl-manifest --layout=esc50 --root=ESC-50
  mmcl-manifest --layout=mmcl_real --root=CLONES --out=DATA
"""

import pathlib
import sys
from collections.abc import Callable

from absl import flags

from mmcl_jax.cli import command_line
from mmcl_jax.errors import DataError
from mmcl_jax.streams import layouts, manifest

_ROOT = command_line.define_path("root", None, "Folder of the unpacked data set.")
_FOLD = flags.DEFINE_integer(
    "test_fold", 5, "Fold of ESC-50 that is held out for testing.", 1, 5
)
_SPLIT = flags.DEFINE_integer(
    "split", 1, "Which of the three official splits of UCF101 is used.", 1, 3
)
_READERS: dict[str, Callable[[pathlib.Path], list[manifest.Row]]] = {
    "ave": layouts.ave,
    "coop": layouts.coop,
    "esc50": lambda root: layouts.esc50(root, _FOLD.value),
    "nyu_depth": layouts.nyu_depth,
    "speech_commands": layouts.speech_commands,
    "sun_rgbd": layouts.sun_rgbd,
    "ucf101": lambda root: layouts.ucf101(root, _SPLIT.value),
}
_REAL = "mmcl_real"
_LAYOUT = flags.DEFINE_enum(
    "layout", None, sorted([*_READERS, _REAL]), "Name of the data set's layout."
)
_OUT = command_line.define_path(
    "out", None, "Folder that the layout mmcl_real copies data sets to."
)
NAME = "manifest.csv"


def main(argv: list[str]) -> None:
    """Writes the table; bad input ends with exit code 2."""
    if len(argv) > 1 or not _LAYOUT.value or not _ROOT.value:
        message = "give --layout and --root, for instance --layout=esc50 --root=ESC-50"
        sys.exit(command_line.complain(DataError(message)))
    root = pathlib.Path(_ROOT.value)
    try:
        if not root.is_dir():
            raise DataError(f"{root}: no such folder; give that of the data set")
        if (_LAYOUT.value == _REAL) != bool(_OUT.value):
            raise DataError(f"--out belongs to --layout={_REAL}: give both or neither")
        if _OUT.value:
            copied = layouts.copy_mmcl_real(root, pathlib.Path(_OUT.value))
        else:
            rows = _READERS[_LAYOUT.value](root)
            manifest.write(root / NAME, rows)
    except (DataError, OSError) as error:
        sys.exit(command_line.complain(error))
    if not _OUT.value:
        print(f"wrote {root / NAME}: {len(rows)} files")
        return
    for data_set, count in copied.items():
        print(f"wrote {_OUT.value}/{data_set}: {count} samples")


def cli() -> None:
    """Runs the program."""
    command_line.run(main)


if __name__ == "__main__":
    cli()
