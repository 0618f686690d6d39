"""Ablations of COMM: one part changed at a time, three orders each.

`python launch/sweep.py --sweep=configs/sweeps/ablations.py --out=runs/ablations`. Every
row is `comm` except for the values beside its name; differences are to `comm` itself.
The streams are of development concepts, scored by validation draws, so that defaults
may follow from the table: nothing of the streams on which methods are compared is seen.
Arguments after a colon: `smoke` for a short run of one variant; `groups=` chooses among
the keys of `ABLATIONS`, separated by `+`.
"""

import itertools
import pathlib
from typing import Any

from mmcl_jax.cli.shorthand import parse_argument
from mmcl_jax.config import check_name
from mmcl_jax.sweeps.runs import Sweep, grid

WORLD = pathlib.Path(__file__).parents[1] / "world.py"

Variants = dict[str, dict[str, Any]]


def _switch(option: str, *values: Any) -> Variants:
    """Returns a variant for each value of an option of COMM."""
    return {f"{option}={v}": {f"method.comm.{option}": v} for v in values}


LATEST = {"method.comm.aggregation": "latest"}
NO_PENALTY = {"method.comm.self_regularization": None}
ABLATIONS: dict[str, Variants] = {
    # Mean over snapshots, penalty, both (the base) or neither.
    "within": {
        "no aggregation": LATEST,
        "no penalty": NO_PENALTY,
        "neither": LATEST | NO_PENALTY,
    },
    "aggregation": _switch("aggregation", "exponential"),
    "penalty": _switch("self_regularization_form", "distillation", "parameters"),
    "blend": _switch("blend", "none", "residual") | _switch("self_weight", None, 0.7),
    "warm start": _switch("warm_start", False),
    "realignment": _switch("realignment", "text") | _switch("transport", False),
    "adapter": {
        f"{length} prompts layers={layers or 'all'}": {
            "method.adapter.kind": "deep_prompts",
            "method.adapter.length": length,
            "method.adapter.layers": layers,
        }
        for length, layers in itertools.product((2, 8, 16), (1, 3, None))
    },
}
# All 36 development concepts.
STREAM = {
    "stream.concepts": "development",
    "stream.evaluate_on": "validation",
    "stream.tasks": 12,
    "stream.classes_per_task": 3,
}
# The last ablation is the order of tasks: `comm` itself is also run in the others.
ORDER, OTHER_ORDERS = "interleaved", ("by_modality", "random", "recurring")


def get_sweep(argument: str = "") -> Sweep:
    """Returns the runs."""
    variant, pairs = parse_argument(argument)
    smoke = variant == "smoke"
    groups = ["warm start"] if smoke else list(ABLATIONS)
    for key, value in pairs.items():
        check_name("sweep argument", key, ["groups"])
        groups = value.split("+")
    variants: dict[str, tuple[str, dict[str, Any]]] = {"comm": ("comm", {})}
    for group in groups:
        check_name("group of ablations", group, ABLATIONS)
        for name, values in ABLATIONS[group].items():
            variants[name] = ("comm", values)
    seeds = [0] if smoke else [0, 1, 2]
    values = {} if smoke else STREAM
    runs = grid(WORLD, variants, [ORDER], seeds, variant, values)
    if not smoke:
        comm = {"comm": variants["comm"]}
        runs += grid(WORLD, comm, OTHER_ORDERS, seeds, variant, values)
    return Sweep(runs)
