"""How strongly a method holds on to what it has learnt: three values each.

`python launch/sweep.py --sweep=configs/sweeps/strength.py --out=runs/strength
--choose=configs/tuned.json`, after `configs/sweeps/label_space.py`, since a loss that
changes old classes more needs more to hold them. On the same development concepts,
scored by validation draws: of the streams that methods are compared on, nothing is
seen. Behind a colon: `smoke` for a short run; `methods=` and `seeds=`, with `+` between
several, for instance `methods=ewc+lwf,seeds=0+1`.
"""

import pathlib
from typing import Any

from mmcl_jax.sweeps.runs import Sweep, search

WORLD = pathlib.Path(__file__).parents[1] / "world.py"

# the default first: it stays where several are equally good
STRENGTHS = {
    "comm": ("self_regularization", (1.0, 0.3, 3.0)),
    "lwf": ("weight", (1.0, 0.3, 3.0)),
    "zscl": ("weight", (1.0, 0.3, 3.0)),
    "ewc": ("weight", (1e2, 1e4, 1e6)),
    "derpp": ("logit_weight", (0.3, 0.1, 1.0)),
    # of the adapters' updates: the smaller, the less they move
    "slca": ("slow_rate", (0.1, 0.03, 0.3)),
}

DATA = {"stream.concepts": "development", "stream.evaluate_on": "validation"}
STREAM = {"stream.tasks": 12, "stream.classes_per_task": 3}


def candidates(method: str) -> dict[str, dict[str, Any]]:
    """Returns the values that are tried for a method, by the name of the variant."""
    field, values = STRENGTHS[method]
    path = f"method.{method}.{field}"
    return {f"{method} {field}={value:g}": {path: value} for value in values}


def get_sweep(argument: str = "") -> Sweep:
    """Returns the runs."""
    tried = {name: candidates(name) for name in STRENGTHS}
    return search(WORLD, tried, argument, "slca", DATA, STREAM)
