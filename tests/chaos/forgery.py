"""`python -m tests.chaos.forgery --flips=5000 --seed=1`.

Makes a small run, flips bits at random places of all its files with numbers, one at a
time, and reads it again. Exit code 1: other numbers were read without an error.
"""

import argparse
import pathlib
import random
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

from mmcl_jax import config
from mmcl_jax.errors import ConfigError, DataError, WorkdirError
from mmcl_jax.report import run_loader
from mmcl_jax.training import experiment
from mmcl_jax.workdir import predictions, reading, states, temperatures
from tests import helpers

REFUSED = (DataError, WorkdirError, ConfigError)
TASKS = 2


def make(encoder: pathlib.Path, seed: int, method: str = "ncm") -> config.Config:
    """Returns the config of a run that takes seconds."""
    return config.Config(
        stream=config.World(
            modalities=("image", "text"),
            tasks=TASKS,
            classes_per_task=2,
            train_per_class=4,
            test_per_class=4,
        ),
        seeds=config.Seeds(order=seed, data=seed),
        encoder=config.EncoderOptions(str(encoder)),
        method=config.MethodOptions(method),
        train=config.TrainOptions(epochs=1, batch_size=8),
        report="off",
    )


def files(workdir: pathlib.Path) -> list[pathlib.Path]:
    """Returns the files of a run that hold numbers, or say whose they are."""
    names = ("config.json", "stream.json", "results.json", "calibration.json")
    found = [workdir / name for name in names] + [workdir / "embeddings.npz"]
    found.append(workdir / "novelty.json")
    found += (workdir / "predictions").iterdir()
    found += (p for p in (workdir / "snapshots").rglob("*") if p.is_file())
    return sorted(found)


def read(workdir: pathlib.Path, snapshots: bool = False) -> dict[str, Any]:
    """Returns all numbers that are read of a run without its encoder."""
    run, loaded = reading.read_run(workdir), run_loader.load(workdir)
    columns = [
        predictions.read_predictions(workdir, run.owner, run.stream, i)
        for i in range(TASKS)
    ]
    embedded = loaded.embeddings
    found = {
        "results": loaded.results,
        "predictions": [[c.tolist() for c in stage] for stage in columns],
        "embeddings": [c.tolist() for c in embedded] if embedded else None,
        "temperatures": temperatures.read(workdir, run.owner),
        "id": run.owner,
    }
    if snapshots:
        for number in range(TASKS):
            reading.check_snapshot(run, number)
            state = states.read(workdir / "snapshots" / f"{number:03d}")
            found[f"snapshot {number}"] = {k: v.tolist() for k, v in state.items()}
    return found


def flips(workdir: pathlib.Path, number: int, seed: int) -> Iterator[str]:
    """Flips bits one after the other; yields a line for each that is not noticed."""
    wanted, draw, there = read(workdir, True), random.Random(seed), files(workdir)
    for _ in range(number):
        path = draw.choice(there)
        intact = path.read_bytes()
        if not intact:
            continue
        place, bit = draw.randrange(len(intact)), draw.randrange(8)
        damaged = bytearray(intact)
        damaged[place] ^= 1 << bit
        path.write_bytes(bytes(damaged))
        try:
            if read(workdir, True) != wanted:
                yield f"{path.relative_to(workdir)}: bit {bit} of byte {place}"
        except REFUSED:
            pass
        finally:
            path.write_bytes(intact)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--flips", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        (folder / "encoder").mkdir()
        encoder = helpers.make_encoder(folder / "encoder")
        experiment.run(make(encoder, 0), folder / "run")
        unnoticed = list(flips(folder / "run", options.flips, options.seed))
    for line in unnoticed:
        print(f"other numbers without an error: {line}")
    print(f"{options.flips} bits flipped, {len(unnoticed)} of them not noticed")
    sys.exit(1 if unnoticed else 0)


if __name__ == "__main__":
    main()
