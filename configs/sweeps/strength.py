"""The strength of each method's regularization against forgetting: three values each.

`python launch/sweep.py --sweep=configs/sweeps/strength.py --out=runs/strength
--choose=configs/tuned.json`, after `configs/sweeps/label_space.py`, since a loss that
changes old classes more needs a stronger regularization. On the same development
concepts, scored by validation draws: nothing of the streams on which methods are
compared is seen. Arguments after a colon: `smoke` for a short run; `methods=` and
`seeds=`, separated by `+`, for instance `methods=ewc+lwf,seeds=0+1`.
"""

import pathlib
from typing import Any

from mmcl_jax.sweeps.runs import Sweep, search

WORLD = pathlib.Path(__file__).parents[1] / "world.py"

# The default comes first: it is kept if several are equally good.
STRENGTHS = {
    "comm": ("self_regularization", (1.0, 0.3, 3.0)),
    "lwf": ("weight", (1.0, 0.3, 3.0)),
    "zscl": ("weight", (1.0, 0.3, 3.0)),
    "wise_ft": ("share", (0.8, 0.5, 0.9)),
    "ewc": ("weight", (1e2, 1e4, 1e6)),
    "derpp": ("logit_weight", (0.3, 0.1, 1.0)),
    # Factor of the adapters' updates: the smaller, the less adapters change.
    "slca": ("slow_rate", (0.01, 0.03, 0.1)),
}

DATA = {"stream.concepts": "development", "stream.evaluate_on": "validation"}
# two tasks in each modality, of the same ten concepts
STREAM = {"stream.tasks": 10}


def candidates(method: str) -> dict[str, dict[str, Any]]:
    """Returns the values that are tried for a method, by the name of the variant."""
    field, values = STRENGTHS[method]
    path = f"method.{method}.{field}"
    return {f"{method} {field}={value:g}": {path: value} for value in values}


def get_sweep(argument: str = "") -> Sweep:
    """Returns the runs."""
    tried = {name: candidates(name) for name in STRENGTHS}
    return search(WORLD, tried, argument, "slca", DATA, STREAM)
