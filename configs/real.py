"""mmcl-real v1: 29 tasks of real files in five modalities, with COMM.

`python -m mmcl_jax.main --config=configs/real.py:2,method=ridge,seed=1
--config.stream.root=DATA --workdir=runs/real`, with a copy of the data that is made as
`docs/data.md` says; one that differs from it is refused. Arguments after a colon: an
order by its number (1 `by_modality`, 2 `interleaved`, 3 `random`, 4 `recurring`) or as
`stream=`; `benchmark` or `development` for the classes, the latter scored by validation
samples, which are training files; `smoke` for a short run; and `method=`, `adapter=`,
`sharing=`, `seed=`. A stream of `streams/transfer.py`, for instance
`sounds_after_pictures`, takes the place of classes and order; its later modality has
`--config.stream.max_train_per_class` training samples of a class, by default 4. The
hyper-parameters of a method are those of `configs/tuned.json`, chosen on the procedural
world; arguments and flags override them.
"""

import dataclasses
import pathlib

from ml_collections import ConfigDict

from mmcl_jax.cli.shorthand import parse_argument, with_arguments, with_tuned
from mmcl_jax.config import Config, Folders, TrainOptions, to_config_dict
from mmcl_jax.errors import ConfigError
from mmcl_jax.streams import transfer
from mmcl_jax.streams.base import ORDERS

NUMBERED = {str(number): order for number, order in enumerate(ORDERS, 1)}
# a class has as few as 14 training samples
VALIDATION = 0.3
CLASSES = {
    "benchmark": Folders(protocol="mmcl_real", validation_fraction=VALIDATION),
    "development": Folders(
        protocol="mmcl_real_development",
        evaluate_on="validation",
        validation_fraction=VALIDATION,
    ),
}
TRANSFER = {
    name: Folders(
        protocol=f"mmcl_real_{name}",
        max_train_per_class=4,
        validation_fraction=VALIDATION,
    )
    for name in transfer.REAL
}
STREAMS = CLASSES | TRANSFER
TRAIN = TrainOptions(epochs=12, batch_size=32)
# as in world.py, which says why
LABEL_SPACES = {"sequential": "all_seen"}
TUNED = pathlib.Path(__file__).parent / "tuned.json"


def get_config(argument: str = "") -> ConfigDict:
    """Returns the config."""
    words = [word.strip() for word in argument.split(",")]
    orders = [word for word in words if word in NUMBERED]
    named = [word for word in words if word in STREAMS]
    rest = [word for word in words if word not in (*NUMBERED, *STREAMS)]
    # numbers and streams are gone from the rest, and still stand in its messages
    known = ("smoke", *NUMBERED, *STREAMS)
    variant, pairs = parse_argument(",".join(rest), known)
    given = len(orders) + len({"stream", "order"} & pairs.keys())
    if given > 1 or len(named) > 1:
        raise ConfigError(
            f"config argument {argument!r}: give one order, and one of "
            f"{', '.join(STREAMS)}"
        )
    name = named[0] if named else "benchmark"
    if name in TRANSFER and given:
        raise ConfigError(
            f"config argument {argument!r}: {name} has an order of its own; leave the "
            "other one out"
        )
    order = NUMBERED[orders[0] if orders else "1"]
    stream = dataclasses.replace(STREAMS[name], order=order)
    config = with_arguments(Config(stream=stream, train=TRAIN), pairs)
    space = LABEL_SPACES.get(config.method.name, TRAIN.label_space)
    train = dataclasses.replace(config.train, label_space=space)
    config = with_tuned(dataclasses.replace(config, train=train), TUNED)
    # once more, since arguments take precedence over tuned values
    config = with_arguments(config, pairs)
    if variant == "smoke":
        config = dataclasses.replace(
            config,
            stream=dataclasses.replace(config.stream, first_tasks=3),
            train=dataclasses.replace(config.train, epochs=1, batch_size=16),
        )
    return to_config_dict(config)
