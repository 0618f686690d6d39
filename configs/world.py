"""mmcl-world v1: 20 tasks of 5 novel concepts in five modalities, with COMM.

`python -m mmcl_jax.main --config=configs/world.py:method=ridge,stream=random,seed=1
--workdir=runs/world`. Behind a colon: `smoke` for a short run, and `method=`,
`stream=` (`by_modality`, `interleaved`, `random`, `recurring`), `adapter=`, `sharing=`,
`seed=`. A method has the hyper-parameters that `configs/tuned.json` holds for it, found
on development concepts by `configs/sweeps/tuning.py`; flags override them.
"""

import dataclasses
import pathlib

from ml_collections import ConfigDict

from mmcl_jax.arguments import parse_argument, with_arguments, with_tuned
from mmcl_jax.config import (
    Config,
    World,
    to_config_dict,
)

TUNED = pathlib.Path(__file__).parent / "tuned.json"


def get_config(argument: str = "") -> ConfigDict:
    """Returns the config."""
    variant, pairs = parse_argument(argument)
    config = with_arguments(Config(stream=World(tasks=20, classes_per_task=5)), pairs)
    config = with_tuned(config, TUNED)
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
