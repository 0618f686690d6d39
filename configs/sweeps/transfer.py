"""Transfer across modalities, with few samples of a later modality.

`python launch/sweep.py --sweep=configs/sweeps/transfer.py --out=OUT` runs sounds after
pictures and pictures after sounds of mmcl-world v2, each beside the same stream without
the earlier modality, under five seeds, which draw samples, initial values and, in
mmcl-world, concepts. With `root=DATA` after a colon, the streams are those of mmcl-real
v1, with the copy of the data in that folder. All rows have 4 training samples of a
class of the later modality, `comm` and `comm text` also 1 and 16. `text` answers by the
nearest class text under the adapter. There are two controls: `comm text` after other
concepts of the earlier modality, and `unshared`, in which an adapter neither starts
from nor is blended with that of another modality. `smoke` after a colon is a short run.
"""

import itertools
import pathlib
from typing import Any

from mmcl_jax.cli.shorthand import parse_argument
from mmcl_jax.config import check_name
from mmcl_jax.sweeps.runs import Sweep, SweepRun, make_config

CONFIGS = pathlib.Path(__file__).parents[1]
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
    # the config, its fields of all runs, and the one of later training samples
    file, values, few = CONFIGS / "world.py", {}, "stream.train_per_class"
    if "root" in pairs:
        file, values = CONFIGS / "real.py", {"stream.root": pairs["root"]}
        few = "stream.max_train_per_class"
    shown = {4: ("comm text", "ncm")} if smoke else SHOTS
    runs = []
    for streams in STREAMS[:1] if smoke else STREAMS:
        for shots, rows in shown.items():
            for seed, row in itertools.product([0] if smoke else SEEDS, rows):
                chosen = streams if (row, shots) == CONTROLLED else streams[:2]
                fields = values | {few: shots, "report": "off"}
                runs += _runs(file, row, chosen, shots, seed, variant, fields)
    return Sweep(tuple(runs), baseline="comm text")


def _runs(
    file: pathlib.Path,
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
        config = make_config(file, argument, values | own)
        runs.append(SweepRun(row, name, seed, config, own, beside))
        beside = {}
    return runs
