"""mmcl-world v2: 20 concepts in each of five modalities, in 20 tasks of 5, with COMM.

`python -m mmcl_jax.main --config=configs/world.py:method=ridge,stream=random,seed=1
--workdir=runs/world`. Arguments after a colon: `development` for other concepts, scored
by validation draws, on which everything is chosen; `shots=`, training samples of a
class, 1, 5 or by default 16; `method=`, `stream=` (`by_modality`, `interleaved`,
`random`, `recurring`), `adapter=`, `sharing=`, `seed=`; and `smoke` for a short run. A
stream of `streams/transfer.py`, for instance `sounds_after_pictures`, takes the place
of an order; `shots=` is then for its later modality, by default 4. The
hyper-parameters of a method are those of `configs/tuned.json`, chosen by `tuning.py`,
`capacity.py`, `label_space.py` and `strength.py` of `configs/sweeps`; arguments and
flags override them.
"""

import dataclasses
import pathlib

from ml_collections import ConfigDict

from mmcl_jax.cli.shorthand import parse_argument, with_arguments, with_tuned
from mmcl_jax.config import (
    Config,
    TrainOptions,
    World,
    to_config_dict,
)
from mmcl_jax.errors import ConfigError
from mmcl_jax.streams import transfer

STREAM = World(
    tasks=20,
    classes_per_task=5,
    train_per_class=16,
    concepts="benchmark",
    recurring_concepts=True,
    clutter=True,
)
DEVELOPMENT = dataclasses.replace(
    STREAM, concepts="development", evaluate_on="validation"
)
FEW = 4  # training samples of a class of a later modality
TRAIN = TrainOptions(epochs=12, batch_size=32)

# Sequential tuning is the baseline without any measure against forgetting, and a loss
# over the classes of the task alone would be one.
LABEL_SPACES = {"sequential": "all_seen"}

TUNED = pathlib.Path(__file__).parent / "tuned.json"


def get_config(argument: str = "") -> ConfigDict:
    """Returns the config."""
    words = [word.strip() for word in argument.split(",")]
    named = [word for word in words if word in transfer.WORLD]
    rest = [word for word in words if word not in ("development", *transfer.WORLD)]
    # what is gone from the rest still stands in its messages
    known = ("smoke", "development", *transfer.WORLD)
    variant, pairs = parse_argument(",".join(rest), known)
    if len(named) > 1 or named and {"stream", "order"} & pairs.keys():
        raise ConfigError(
            f"config argument {argument!r}: {named[0]} has an order of its own; leave "
            "the other one out"
        )
    stream = DEVELOPMENT if "development" in words else STREAM
    if named:
        stream = dataclasses.replace(stream, transfer=named[0], train_per_class=FEW)
    stream = _with_shots(stream, pairs.pop("shots", None))
    config = with_arguments(Config(stream=stream, train=TRAIN), pairs)
    space = LABEL_SPACES.get(config.method.name, TRAIN.label_space)
    train = dataclasses.replace(config.train, label_space=space)
    config = with_tuned(dataclasses.replace(config, train=train), TUNED)
    # Once more, since arguments take precedence over tuned values.
    config = with_arguments(config, pairs)
    if variant == "smoke":
        config = dataclasses.replace(
            config,
            stream=dataclasses.replace(
                config.stream,
                tasks=20 if named else 5,
                classes_per_task=2,
                train_per_class=8,
                test_per_class=8,
            ),
            train=dataclasses.replace(config.train, epochs=1, batch_size=16),
        )
    return to_config_dict(config)


def _with_shots(stream: World, shots: str | None) -> World:
    if shots is None:
        return stream
    if not shots.isdecimal():
        raise ConfigError(f"config argument shots={shots!r} is not a number")
    return dataclasses.replace(stream, train_per_class=int(shots))
