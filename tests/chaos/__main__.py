"""`python -m tests.chaos --disturbances=50 --signal=SIGKILL --seed=0`.

Starts a run of six small tasks, ends it at random moments so many times, lets it
finish, and compares it bitwise with one that was left alone. Exit code 1: they differ.
"""

import argparse
import pathlib
import signal
import sys
import tempfile

from tests import helpers
from tests.chaos import harness


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--disturbances", type=int, default=50)
    parser.add_argument("--signal", default="SIGKILL", choices=["SIGKILL", "SIGTERM"])
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    number = signal.Signals[options.signal]
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        (folder / "encoder").mkdir()
        encoder = helpers.make_encoder(folder / "encoder")
        moves = harness.undisturbed(encoder, folder / "left-alone", every=3)
        run, hit = harness.Run(encoder, folder / "disturbed", every=3), 0
        for moment in harness.moments(moves, options.disturbances, options.seed):
            code = run.disturb(number, moment)
            print(f"{run.starts}: code {code}, at move {run.moves()} of {moves}")
            hit += code is not None
        if code := run.finish():
            sys.exit(f"exit code {code}: {run.output.read_text()[-2000:]}")
        different = harness.differences(folder / "left-alone", folder / "disturbed")
    print(f"{hit} times ended by {options.signal}; differences: {different or 'none'}")
    sys.exit(1 if different else 0)


if __name__ == "__main__":
    main()
