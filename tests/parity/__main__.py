"""Compares encoders as large as published ones with their references, once.

    python -m tests.parity --family=clip --size=l14

Weights are random. The reference runs in one process and the encoder in another, whose
peak memory is therefore its own.
"""

import argparse
import concurrent.futures
import multiprocessing
import pathlib
import resource
import subprocess
import sys
import tempfile
import time

from tests.parity import cases, comparing

_COLUMNS = ("modality", "max abs", "L2 max abs", "relative", "gradient", "load s")
_COLUMNS += ("peak MiB",)


def _rows(name: str, folder: pathlib.Path) -> list[tuple[str, ...]]:
    """Returns a row for each modality, all of them by one loaded encoder."""
    from mmcl_jax.models import pretrained

    path, modalities = list(comparing.sources(cases.CASES[name], folder).values())[-1]
    expected = cases.read(cases.expectations(folder))
    start = time.perf_counter()
    encoder = pretrained.load(path)
    seconds = time.perf_counter() - start
    rows = []
    for modality in modalities:
        said = expected[modality]
        errors = comparing.compare(encoder.spec, encoder.frozen, modality, said)
        # unit vectors of ours, brought to the lengths of the reference's
        unit = comparing.embed(encoder.spec, encoder.frozen, modality, said)
        lengths = (said.raw * said.unit).sum(-1, keepdims=True)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        gradient = "" if errors.gradient is None else f"{errors.gradient:.1e}"
        rows.append(
            (
                modality,
                f"{abs(unit * lengths - said.raw).max():.1e}",
                f"{errors.unit:.1e}",
                f"{errors.relative:.1e}",
                gradient,
                f"{seconds:.1f}",
                f"{peak:.0f}",
            )
        )
    return rows


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
    name = names[given.family]
    with tempfile.TemporaryDirectory() as made:
        folder = pathlib.Path(made) / "encoder"
        build = ["-m", "tests.parity.references", name, given.size, str(folder)]
        subprocess.run([sys.executable, *build], check=True)
        context = multiprocessing.get_context("spawn")
        with concurrent.futures.ProcessPoolExecutor(1, context) as pool:
            rows = pool.submit(_rows, name, folder).result()
    print(f"{name}, {given.size}")
    for row in (_COLUMNS, *rows):
        print("  ".join(f"{cell:>10}" for cell in row))


if __name__ == "__main__":
    main()
