"""The classes of the training loss: those of the task, or all met so far.

`python launch/sweep.py --sweep=configs/sweeps/label_space.py --out=runs/label_space
--choose=configs/tuned.json`, after `configs/sweeps/capacity.py` and on the same
development concepts, scored by validation draws: nothing of the streams on which
methods are compared is seen. A loss over the classes of the task alone disturbs old
tasks less; one over all classes met separates old classes from new ones. Arguments
after a colon: `smoke` for a short run; `methods=` and `seeds=`, separated by `+`, for
instance `methods=ewc+lwf,seeds=0+1`.
"""

import pathlib
from typing import Any

from mmcl_jax.sweeps.runs import Sweep, search

WORLD = pathlib.Path(__file__).parents[1] / "world.py"

# The default comes first: it is kept if both are equally good.
LABEL_SPACES = ("task", "all_seen")
# As the benchmark's baseline, `sequential` uses all classes; `rapf` has a label space
# of its own, `joint` only one task; the other methods train nothing.
METHODS = (
    *("comm", "s_prompts", "lwf", "zscl", "wise_ft", "ewc", "er", "derpp", "slca"),
    *("l2p", "dualprompt", "coda_prompt", "diki", "cmcl", "linear_probe"),
    *("aper", "ease", "sd_lora", "ranpac"),
)

DATA = {"stream.concepts": "development", "stream.evaluate_on": "validation"}
# two tasks in each modality, of the same ten concepts
STREAM = {"stream.tasks": 10}


def candidates(method: str) -> dict[str, dict[str, Any]]:
    """Returns the values that are tried for a method, by the name of the variant."""
    return {f"{method} {space}": {"train.label_space": space} for space in LABEL_SPACES}


def get_sweep(argument: str = "") -> Sweep:
    """Returns the runs."""
    tried = {name: candidates(name) for name in METHODS}
    return search(WORLD, tried, argument, "linear_probe", DATA, STREAM)
