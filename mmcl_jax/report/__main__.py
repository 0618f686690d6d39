"""`python -m mmcl_jax.report --workdirs=A,B,... --out=FILE_OR_FOLDER`."""

import pathlib
import sys

from absl import app, flags, logging

from mmcl_jax.modalities.base import DataError
from mmcl_jax.report import data, page

_WORKDIRS = flags.DEFINE_list(
    "workdirs", None, "Folders of runs, finished or on their way, with commas between."
)
_OUT = flags.DEFINE_string(
    "out", None, "An .html file; else a folder, which gets figures and tables, too."
)
_USAGE_ERROR = 2


def main(argv: list[str]) -> None:
    """Writes the report; bad input ends with exit code 2."""
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)
    if len(argv) > 1:
        sys.exit(_complain(f"unexpected argument {argv[1]!r}"))
    if not _WORKDIRS.value:
        sys.exit(_complain("--workdirs: missing; for instance --workdirs=runs/demo"))
    out = pathlib.Path(_OUT.value or pathlib.Path(_WORKDIRS.value[0]) / page.NAME)
    try:
        runs = [data.load(pathlib.Path(name.strip())) for name in _WORKDIRS.value]
        written = page.write(runs, out)
    except (DataError, OSError) as error:
        sys.exit(_complain(str(error)))
    more = f" and {len(written) - 1} files beside it" if len(written) > 1 else ""
    print(f"wrote {written[0]}{more}")


def _complain(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return _USAGE_ERROR


def cli() -> None:
    """Runs the program."""
    app.run(main)


if __name__ == "__main__":
    cli()
