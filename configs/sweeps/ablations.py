"""Ablations of COMM: one part changed at a time, five seeds each.

`python launch/sweep.py --sweep=configs/sweeps/ablations.py --out=runs/ablations`. Every
row is `comm` except for the values beside its name; differences are to `comm` itself.
`nothing trained` is `comm_plus`, whose views are those of `comm` without an adapter.
The stream is of development concepts, scored by validation draws, so that defaults may
follow from the table: nothing of the streams on which methods are compared is seen.
With `root=DATA` after a colon it is that of the development classes of mmcl-real, with
the copy of the data in that folder. Other arguments: `smoke` for a short run of one
variant; `groups=` chooses among the keys of `ABLATIONS`, separated by `+`.
"""

import pathlib
from typing import Any

from mmcl_jax.cli.shorthand import parse_argument
from mmcl_jax.config import check_name
from mmcl_jax.sweeps.runs import Sweep, grid

CONFIGS = pathlib.Path(__file__).parents[1]
WORLD, REAL = CONFIGS / "world.py", CONFIGS / "real.py"

Variants = dict[str, dict[str, Any]]


def _switch(option: str, *values: Any) -> Variants:
    """Returns a variant for each value of an option of COMM."""
    return {f"{option}={v}": {f"method.comm.{option}": v} for v in values}


KIND, LENGTH = "method.adapter.kind", "method.adapter.length"
LATEST = {"method.comm.aggregation": "latest"}
NO_PENALTY = {"method.comm.self_regularization": None}
ABLATIONS: dict[str, Variants] = {
    "nothing": {},  # comm_plus, see above
    # Mean over snapshots, penalty, both (the base) or neither.
    "within": {
        "no aggregation": LATEST,
        "no penalty": NO_PENALTY,
        "neither": LATEST | NO_PENALTY,
    },
    "penalty": _switch("self_regularization_form", "parameters"),
    "blend": _switch("blend", "none", "residual") | _switch("self_weight", None, 0.7),
    "warm start": _switch("warm_start", False),
    "realignment": _switch("realignment", "text") | _switch("transport", False),
    "adapter": {
        "8 prompts": {KIND: "deep_prompts", LENGTH: 8},
        "2 prompts": {KIND: "deep_prompts", LENGTH: 2},
    },
}
# two tasks in each modality, of the same ten concepts
STREAM = {
    "stream.concepts": "development",
    "stream.evaluate_on": "validation",
    "stream.tasks": 10,
}
ORDER, SEEDS = "interleaved", range(5)


def get_sweep(argument: str = "") -> Sweep:
    """Returns the runs."""
    variant, pairs = parse_argument(argument)
    smoke = variant == "smoke"
    groups = ["warm start"] if smoke else list(ABLATIONS)
    file, values = WORLD, {} if smoke else STREAM
    for key, value in pairs.items():
        check_name("sweep argument", key, ["groups", "root"])
        if key == "groups":
            groups = value.split("+")
        else:
            file, values = REAL, {"stream.root": value}
    variants: dict[str, tuple[str, dict[str, Any]]] = {"comm": ("comm", {})}
    for group in groups:
        check_name("group of ablations", group, ABLATIONS)
        for name, changed in ABLATIONS[group].items():
            variants[name] = ("comm", changed)
    if "nothing" in groups:
        variants["nothing trained"] = ("comm_plus", {})
    argument = ",".join(filter(None, ["development" * (file == REAL), variant]))
    seeds = [0] if smoke else SEEDS
    return Sweep(grid(file, variants, [ORDER], seeds, argument, values))
