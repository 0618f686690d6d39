"""Writes a page that shows one run, or compares several.

Examples:
  mmcl-report --workdirs=runs/demo
  mmcl-report --workdirs=runs/ncm,runs/ridge --out=runs/figures --width=3.3 --notitles
"""

import pathlib
import sys

from absl import flags, logging

from mmcl_jax.cli import command_line
from mmcl_jax.errors import ConfigError, DataError, WorkdirError
from mmcl_jax.workdir.layout import REPORT

_WORKDIRS = command_line.define_paths(
    "workdirs",
    "Folders of runs, finished or not, separated by commas; or give the flag for each.",
)
_OUT = command_line.define_path(
    "out",
    None,
    "An .html file, or a folder that also gets figures and tables; by default "
    "report.html in the first workdir.",
)
_WIDTH = flags.DEFINE_float(
    "width", None, "Width in inches of the figures in the folder.", 1.0
)
_FONT_SIZE = flags.DEFINE_float(
    "font_size", 9.0, "Font size in points of the figures in the folder.", 4.0
)
_TITLES = flags.DEFINE_bool("titles", True, "Write titles above these figures.")


def main(argv: list[str]) -> None:
    """Writes the report; bad input ends with exit code 2."""
    # imported late, since plotting takes seconds to load, and --help does without it
    from mmcl_jax.report import figures, page, run_loader

    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)
    try:
        command_line.refuse_arguments(argv)
        workdirs = [pathlib.Path(name) for names in _WORKDIRS.value for name in names]
        if not workdirs:
            raise ConfigError("--workdirs: missing; for instance --workdirs=runs/demo")
        for i, workdir in enumerate(workdirs):
            if workdir.resolve() in [other.resolve() for other in workdirs[:i]]:
                raise ConfigError(f"--workdirs: {workdir}: twice the same run")
        alone = len(workdirs) == 1
        runs = [run_loader.load(workdir, inside=alone) for workdir in workdirs]
        out = pathlib.Path(_OUT.value) if _OUT.value else workdirs[0] / REPORT
        look = figures.Look(_WIDTH.value, _FONT_SIZE.value, _TITLES.value)
        written = page.write(runs, out, look)
    except (ConfigError, DataError, WorkdirError, OSError) as error:
        sys.exit(command_line.complain(error))
    more = f" and {len(written) - 1} files beside it" if len(written) > 1 else ""
    print(f"wrote {written[0]}{more}")


def cli() -> None:
    """Runs the program."""
    command_line.run(main)


if __name__ == "__main__":
    cli()
