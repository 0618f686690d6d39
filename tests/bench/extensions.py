"""What one more task costs: `python -m tests.bench.extensions`.

Extends a run by one class of random pictures at a time, in this process, and prints the
seconds of an extension, the size of what is remembered and allocated, and the size of
the workdir, after 10, 30, 100, ... extensions.
"""

import argparse
import pathlib
import tempfile
import time
from typing import Any

import numpy as np
from PIL import Image

from mmcl_jax import config
from mmcl_jax.parallel import compilation_cache
from mmcl_jax.training import experiment, extension
from tests.bench import table

MARKS = (1, 10, 30, 100, 300, 1000)


def write_class(root: pathlib.Path, number: int, samples: int) -> pathlib.Path:
    """Writes the pictures of one class as a data set."""
    rng = np.random.default_rng(number)
    shade = rng.integers(0, 256, (4, 4, 3))
    for part, own in (("train", samples), ("test", 2)):
        folder = root / "image" / "noise" / part / f"class {number}"
        folder.mkdir(parents=True)
        for i in range(own):
            noise = rng.integers(-30, 30, (32, 32, 3)) + shade.repeat(8, 0).repeat(8, 1)
            picture = Image.fromarray(np.clip(noise, 0, 255).astype(np.uint8))
            picture.save(folder / f"{i}.png")
    return root


def measure(method: str, extensions: int, samples: int) -> list[dict[str, Any]]:
    """Extends a run again and again, and returns a row for each of `MARKS`."""
    rows, spent = [], []
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        data, workdir = root / "data", root / "run"
        made = config.Config(
            stream=config.Folders(root=str(write_class(data / "0", 0, samples))),
            method=config.MethodOptions(method),
            train=config.TrainOptions(epochs=2, batch_size=8),
            report="off",
        )
        experiment.run(made, workdir)
        for i in range(1, extensions + 1):
            source = extension.source_of(
                str(write_class(data / str(i), i, samples)), made
            )
            start = time.perf_counter()
            extension.extend(workdir, source)
            found = experiment.run(made, workdir)
            spent.append(time.perf_counter() - start)
            if i in MARKS:
                assert found
                rows.append(
                    {
                        "extensions": i,
                        "seconds": float(np.median(spent[-5:])),
                        "remembered": found["cost"]["bytes_remembered"],
                        "allocated": found["cost"]["bytes_allocated"],
                        "workdir": _size(workdir),
                    }
                )
    return rows


def _size(folder: pathlib.Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def main() -> None:
    """Measures and prints a table for each method."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--methods", default="ncm,comm")
    parser.add_argument("--extensions", type=int, default=100)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--size", choices=("full", "tiny"), default="full")
    parser.add_argument("--out")
    given = parser.parse_args()
    if given.size == "tiny":
        given = argparse.Namespace(**vars(given) | {"extensions": 2, "methods": "ncm"})
    compilation_cache.keep_compiled_programs()
    found = {
        method: measure(method, given.extensions, given.samples)
        for method in given.methods.split(",")
    }
    for method, rows in found.items():
        cells = [
            (
                row["extensions"],
                f"{row['seconds']:.1f}",
                *(f"{row[k] / 2**20:.2f}" for k in ("remembered", "allocated")),
                f"{row['workdir'] / 2**20:.1f}",
            )
            for row in rows
        ]
        table.show(f"{method}: seconds, MiB", tuple(rows[0]), cells)
    table.write(given.out, {"machine": table.machine(), "extensions": found})


if __name__ == "__main__":
    main()
