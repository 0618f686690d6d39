"""Runs and compares many runs: `python launch/sweep.py --sweep=FILE.py --out=DIR`."""

import pathlib
import sys

from absl import flags

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from mmcl_jax import sweep

# so that --help shows them
flags.adopt_module_key_flags(sweep)

if __name__ == "__main__":
    sweep.start()
