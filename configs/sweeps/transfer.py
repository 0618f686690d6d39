"""Transfer across modalities on mmcl-real v1, with few samples of a later modality.

`python launch/sweep.py --sweep=configs/sweeps/transfer.py:root=DATA --out=OUT` runs
sounds after pictures and pictures after sounds, each beside the same stream without the
earlier modality, under five seeds, which draw samples and initial values. All rows have
4 training samples of a class of the later modality, `comm` and `comm text` also 1 and
16. `text` answers by the nearest class text under the adapter. There are two controls:
`comm text` after other concepts of the earlier modality, and `unshared`, in which an
adapter neither starts from nor is blended with that of another modality. Arguments
after a colon: `root=`, the folder of the data, and `smoke` for a short run.
"""

import itertools
import pathlib
from typing import Any

from mmcl_jax.cli.shorthand import parse_argument
from mmcl_jax.config import check_name
from mmcl_jax.sweeps.runs import Sweep, SweepRun, make_config

REAL = pathlib.Path(__file__).parents[1] / "real.py"
SEEDS = range(5)
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
    "comm text unshared": ("comm", TEXT | UNSHARED),
    # one adapter of all modalities
    "sequential shared": ("sequential", {"method.sharing": "shared"}),
    **{name: (name, {}) for name in ("comm_plus", "layup", "ridge", "ncm")},
    "zero_shot": ("zero_shot", {}),
}
# rows by training samples of a class of the later modality
SHOTS = {1: ("comm", "comm text"), 4: tuple(VARIANTS), 16: ("comm", "comm text")}
# what has the third stream as well
CONTROLLED = ("comm text", 4)


def get_sweep(argument: str = "") -> Sweep:
    """Returns the runs."""
    variant, pairs = parse_argument(argument)
    smoke = variant == "smoke"
    for key in pairs:
        check_name("sweep argument", key, ["root"])
    values = {"stream.root": pairs.get("root", "DATA"), "report": "off"}
    shown = {4: ("comm text", "ncm")} if smoke else SHOTS
    runs = []
    for streams in STREAMS[:1] if smoke else STREAMS:
        for shots, rows in shown.items():
            for seed, row in itertools.product([0] if smoke else SEEDS, rows):
                chosen = streams if (row, shots) == CONTROLLED else streams[:2]
                fields = values | {"stream.max_train_per_class": shots}
                runs += _runs(row, chosen, shots, seed, variant, fields)
    return Sweep(tuple(runs), baseline="comm text")


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
