"""mmcl-world v1: 20 tasks of 5 novel concepts in five modalities, with COMM.

`python -m mmcl_jax.main --config=configs/world.py:method=ridge,stream=random,seed=1
--workdir=runs/world`. Arguments after a colon: `smoke` for a short run, and `method=`,
`stream=` (`by_modality`, `interleaved`, `random`, `recurring`), `adapter=`, `sharing=`,
`seed=`. The hyper-parameters of a method are those of `configs/tuned.json`, chosen on
development concepts by `tuning.py`, `capacity.py`, `label_space.py` and `strength.py`
of `configs/sweeps`; arguments and flags override them.
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

# Chosen so that frozen zero-shot is at 50 %, joint prompts are above 75 % and no method
# is at the ceiling; not changed since.
STREAM = World(tasks=20, classes_per_task=5, train_per_class=16)
TRAIN = TrainOptions(epochs=12, batch_size=32)

# Sequential tuning is the baseline without any measure against forgetting, and a loss
# over the classes of the task alone would be one.
LABEL_SPACES = {"sequential": "all_seen"}

TUNED = pathlib.Path(__file__).parent / "tuned.json"


def get_config(argument: str = "") -> ConfigDict:
    """Returns the config."""
    variant, pairs = parse_argument(argument)
    config = with_arguments(Config(stream=STREAM, train=TRAIN), pairs)
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
                tasks=5,
                classes_per_task=2,
                train_per_class=8,
                test_per_class=8,
            ),
            train=dataclasses.replace(config.train, epochs=1, batch_size=16),
        )
    return to_config_dict(config)
