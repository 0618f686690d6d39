"""Runs and compares many runs: `python launch/sweep.py --sweep=FILE.py --out=DIR`."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from mmcl_jax import sweep

if __name__ == "__main__":
    sweep.cli()
