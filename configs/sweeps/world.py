"""Every method on the four streams of mmcl-world v2, three orders and seeds each.

`python launch/sweep.py --sweep=configs/sweeps/world.py --out=runs/world`. Arguments
after a colon: `smoke` for two methods on a short stream; `methods=`, `streams=` and
`seeds=` choose among them, separated by `+`, for instance
`methods=comm+ridge,seeds=0+1`.
"""

import pathlib

from mmcl_jax.cli.shorthand import parse_argument
from mmcl_jax.config import check_name
from mmcl_jax.methods.registry import METHODS
from mmcl_jax.streams.base import ORDERS
from mmcl_jax.sweeps.runs import Sweep, grid

# Rows of the table that are not a method with its defaults.
VARIANTS = {"sequential_shared": ("sequential", {"method.sharing": "shared"})}

WORLD = pathlib.Path(__file__).parents[1] / "world.py"


def get_sweep(argument: str = "") -> Sweep:
    """Returns the runs."""
    variant, pairs = parse_argument(argument)
    smoke = variant == "smoke"
    chosen = {
        "methods": ["comm", "zero_shot"] if smoke else [*METHODS, *VARIANTS],
        "streams": ["interleaved"] if smoke else list(ORDERS),
        "seeds": ["0"] if smoke else ["0", "1", "2"],
    }
    for key, value in pairs.items():
        check_name("sweep argument", key, chosen)
        chosen[key] = value.split("+")
    variants = {name: VARIANTS.get(name, (name, {})) for name in chosen["methods"]}
    seeds = [int(seed) for seed in chosen["seeds"]]
    return Sweep(grid(WORLD, variants, chosen["streams"], seeds, variant))
