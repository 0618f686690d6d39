"""Lists the programs: `python -m mmcl_jax`."""

import sys

from mmcl_jax.cli import programs

_ENDING = """
Each explains itself with --help. To see what a run is, in about four minutes:
  mmcl-train --config=demo --workdir=runs/demo
Where these commands are not installed: python -m mmcl_jax.main, and so on."""


def main(arguments: list[str]) -> None:
    """Prints the programs, or the version; other arguments end with exit code 2."""
    if arguments == ["--version"]:
        print(programs.version())
        return
    wrong = arguments not in ([], ["--help"], ["-h"])
    stream = sys.stderr if wrong else sys.stdout
    if wrong:
        print(
            f"error: unexpected {' '.join(arguments)!r}; start a program", file=stream
        )
    print(f"Programs of mmcl_jax:\n\n{programs.listed()}\n{_ENDING}", file=stream)
    if wrong:
        sys.exit(2)


if __name__ == "__main__":
    main(sys.argv[1:])
