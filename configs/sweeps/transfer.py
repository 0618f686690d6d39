"""Transfer across modalities on mmcl-real v1, with few samples of a later modality.

`python launch/sweep.py --sweep=configs/sweeps/transfer.py:root=DATA --out=runs/transfer`
runs sounds after pictures and pictures after sounds, beside the same streams without
the earlier modality, five seeds each, which draw samples and initial values. `comm`
and `comm text`, which answers by the nearest class text under the adapter, have 1, 4
and 16 training samples of a class of the later modality, all other rows 4. With 4, two
controls are added: streams with other concepts of the earlier modality, for methods
that train, and rows that end in `unshared`, in which `comm` shares no adapter between
modalities. Arguments after a colon: `root=`, the folder of the data, and `smoke` for a
short run.
"""

import pathlib
from typing import Any

from mmcl_jax.cli.shorthand import parse_argument
from mmcl_jax.config import check_name
from mmcl_jax.sweeps.runs import Sweep, SweepRun, make_config

REAL = pathlib.Path(__file__).parents[1] / "real.py"
SEEDS, SHOTS = range(5), (4, 1, 16)
# streams with the earlier modality, without it, and with other concepts of it
STREAMS = (
    ("sounds_after_pictures", "sounds_alone", "sounds_after_other_pictures"),
    ("pictures_after_sounds", "pictures_alone", "pictures_after_other_sounds"),
)

TEXT = {"method.comm.realignment": "text"}
UNSHARED = {"method.comm.blend": "none", "method.comm.warm_start": False}
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "comm": ("comm", {}),
    "comm text": ("comm", TEXT),
    "comm unshared": ("comm", UNSHARED),
    "comm text unshared": ("comm", TEXT | UNSHARED),
    # one adapter of all modalities
    "sequential shared": ("sequential", {"method.sharing": "shared"}),
    **{name: (name, {}) for name in ("comm_plus", "layup", "ridge", "ncm")},
    "zero_shot": ("zero_shot", {}),
}
# variants that have all shots, and those that have the stream of other concepts
READ_OUTS = ("comm", "comm text")
CONTROLLED = (*READ_OUTS, "sequential shared")


def get_sweep(argument: str = "") -> Sweep:
    """Returns the runs."""
    variant, pairs = parse_argument(argument)
    smoke = variant == "smoke"
    for key in pairs:
        check_name("sweep argument", key, ["root"])
    values = {"stream.root": pairs.get("root", "DATA"), "report": "off"}
    rows = ["comm", "ncm"] if smoke else [*VARIANTS]
    runs = []
    # what all rows have first: even a sweep that is cut short has complete pairs
    for shots in SHOTS[:1] if smoke else SHOTS:
        for seed in [0] if smoke else SEEDS:
            for row in rows if shots == SHOTS[0] else READ_OUTS:
                for streams in STREAMS[:1] if smoke else STREAMS:
                    whole = shots == SHOTS[0] and row in CONTROLLED
                    chosen = streams if whole else streams[:2]
                    own = values | {"stream.max_train_per_class": shots}
                    runs += _runs(row, chosen, shots, seed, variant, own)
    return Sweep(tuple(runs))


def _runs(
    row: str,
    streams: tuple[str, ...],
    shots: int,
    seed: int,
    variant: str,
    values: dict[str, Any],
) -> list[SweepRun]:
    """Returns a run of each stream, the first one with the others beside it."""
    method, own = VARIANTS[row]
    names = [f"{stream} {shots}" for stream in streams]
    beside = dict(zip(("alone", "other"), names[1:], strict=False))
    runs = []
    for stream, name in zip(streams, names, strict=True):
        argument = f"{variant},{stream},method={method},seed={seed}"
        config = make_config(REAL, argument, values | own)
        runs.append(SweepRun(row, name, seed, config, own, beside))
        beside = {}
    return runs
