"""The most important hyper-parameter of every method: four values each.

`python launch/sweep.py --sweep=configs/sweeps/tuning.py --out=runs/tuning
--choose=configs/tuned.json`. Chosen on the first two tasks of a stream of development
concepts, scored by validation draws: nothing of the streams on which methods are
compared is seen. Every method, `joint` included, has equally many values: of the
learning rate if something is trained, or of a field of closed forms.
Arguments after a colon: `smoke` for a short run; `methods=` and `seeds=`, separated by
`+`, for instance `methods=l2p+ridge,seeds=0+1+2`.
"""

import pathlib
from typing import Any

from mmcl_jax.methods.registry import METHODS
from mmcl_jax.sweeps.runs import Sweep, search

WORLD = pathlib.Path(__file__).parents[1] / "world.py"

# The default comes first: it is kept if several are equally good.
LEARNING_RATES = ("train.optimizer.learning_rate", (3e-3, 1e-3, 1e-2, 3e-2))
CLOSED_FORMS = {
    "ridge": ("method.ridge.regularization", (1e-3, 1e-4, 1e-2, 1e-1)),
    "slda": ("method.slda.shrinkage", (1e-4, 1e-5, 1e-3, 1e-2)),
    "fecam": ("method.fecam.diagonal", (1.0, 0.1, 10.0, 100.0)),
    "klda": ("method.klda.bandwidth", (1.0, 0.1, 0.3, 3.0)),
    # its ridge is chosen anew in every task
    "layup": ("method.layup.blocks", (5, 1, 2, 3)),
    "rail": ("method.rail.regularization", (1e-1, 1e-2, 1.0, 10.0)),
}
# capacity.py chooses the share of layers in comm_plus
NOTHING_TO_TUNE = ("zero_shot", "ncm", "comm_plus")

# Sizes are chosen in the next step, by capacity.py.
PROMPTS = {"method.adapter.kind": "deep_prompts", "method.adapter.length": 8}
DATA = {"stream.concepts": "development", "stream.evaluate_on": "validation"}
STREAM = {"stream.tasks": 5, "stream.first_tasks": 2}


def candidates(method: str) -> dict[str, dict[str, Any]]:
    """Returns the values that are tried for a method, by the name of the variant."""
    path, values = CLOSED_FORMS.get(method, LEARNING_RATES)
    name = path.rpartition(".")[2]
    return {f"{method} {name}={value:g}": {path: value} for value in values}


def get_sweep(argument: str = "") -> Sweep:
    """Returns the runs."""
    tried = {name: candidates(name) for name in METHODS if name not in NOTHING_TO_TUNE}
    return search(WORLD, tried, argument, "ridge", PROMPTS | DATA, STREAM)
