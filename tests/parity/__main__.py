"""Compares encoders as large as published ones with their references, once.

    python -m tests.parity --family=clip --size=l14

Weights are random. The reference runs in one process and the encoder in another, whose
peak memory is therefore its own.
"""

import argparse
import concurrent.futures
import multiprocessing
import pathlib
import subprocess
import sys
import tempfile

from tests.parity import cases, comparing


def main() -> None:
    """Builds a reference, compares with it and prints a table."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    families = {case.family: name for name, case in reversed(cases.CASES.items())}
    names = families | {name: name for name in cases.CASES}
    parser.add_argument(
        "--family", choices=names, required=True, help="or one case of a family"
    )
    parser.add_argument("--size", default="tiny", help="tiny, b16, l14, l16 or huge")
    given = parser.parse_args()
    case = cases.CASES[names[given.family]]
    if given.size not in cases.sizes(case):
        parser.error(f"{case.name} has the sizes {', '.join(cases.sizes(case))}")
    if reason := cases.missing(case):
        parser.error(reason)
    with tempfile.TemporaryDirectory() as made:
        folder = pathlib.Path(made) / "encoder"
        build = ["-m", "tests.parity.references", case.name]
        subprocess.run([sys.executable, *build, given.size, folder], check=True)
        context = multiprocessing.get_context("spawn")
        with concurrent.futures.ProcessPoolExecutor(1, context) as pool:
            rows = pool.submit(comparing.table, case, folder).result()
    print(f"{case.name}, {given.size}")
    for row in (comparing.COLUMNS, *rows):
        print("  ".join(f"{cell:>10}" for cell in row))


if __name__ == "__main__":
    main()
