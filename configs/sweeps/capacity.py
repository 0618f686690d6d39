"""The capacity of each method: three values of one of its sizes.

`python launch/sweep.py --sweep=configs/sweeps/capacity.py --out=runs/capacity
--choose=configs/tuned.json`, after `configs/sweeps/tuning.py`. That a smaller method
forgets less shows on many tasks, not on two. So these are ten tasks of development
concepts, scored by validation draws: nothing of the streams on which methods are
compared is seen. Arguments after a colon: `smoke` for a short run; `methods=` and
`seeds=`, separated by `+`, for instance `methods=comm+joint,seeds=0+1`.
"""

import pathlib
from typing import Any

from mmcl_jax.sweeps.runs import Sweep, search

WORLD = pathlib.Path(__file__).parents[1] / "world.py"

KIND, LENGTH = "method.adapter.kind", "method.adapter.length"
# The default comes first: it is kept if several are equally good.
ADAPTERS = {
    "8 prompts": {KIND: "deep_prompts", LENGTH: 8},
    "2 prompts": {KIND: "deep_prompts", LENGTH: 2},
    "low rank": {KIND: "low_rank", LENGTH: 8},
}
WITH_ADAPTER = (
    *("comm", "sequential", "joint", "s_prompts", "lwf", "zscl", "ewc", "er"),
    *("derpp", "slca", "wise_ft", "aper", "ease"),
)
SIZES = {
    "l2p": ("length", (10, 5, 2)),
    "dualprompt": ("expert_length", (5, 2, 20)),
    "coda_prompt": ("length", (4, 2, 8)),
    # Shrinkage of its covariances: the smaller, the fewer test samples match a stage.
    "diki": ("shrinkage", (0.01, 0.1, 0.5)),
    "sd_lora": ("rank", (10, 4, 16)),
    "rapf": ("shrinkage", (0.0, 0.1, 0.5)),
    "cmcl": ("input_threshold", (0.1, 0.03, 0.3)),
    "klda": ("width", (2000, 1000, 4000)),
    "ranpac": ("width", (2000, 1000, 4000)),
    "layup": ("blocks", (5, 2, 3)),
    "rail": ("width", (2000, 1000, 4000)),
    "comm_plus": ("layer_share", (0.75, 0.25, 0.5)),
}

DATA = {"stream.concepts": "development", "stream.evaluate_on": "validation"}
# two tasks in each modality, of the same ten concepts
STREAM = {"stream.tasks": 10}


def candidates(method: str) -> dict[str, dict[str, Any]]:
    """Returns the values that are tried for a method, by the name of the variant."""
    if method in WITH_ADAPTER:
        return {f"{method} {name}": values for name, values in ADAPTERS.items()}
    field, sizes = SIZES[method]
    path = f"method.{method}.{field}"
    return {f"{method} {field}={size:g}": {path: size} for size in sizes}


def get_sweep(argument: str = "") -> Sweep:
    """Returns the runs."""
    tried = {name: candidates(name) for name in (*WITH_ADAPTER, *SIZES)}
    return search(WORLD, tried, argument, "cmcl", DATA, STREAM)
