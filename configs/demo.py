"""Ten tasks of novel concepts in five modalities, interleaved, with COMM.

`python -m mmcl_jax.main --config=configs/demo.py --workdir=runs/demo`. Arguments after
a colon: `smoke` for a short run, and `method=`, `stream=`, `adapter=`, `sharing=`,
`seed=`.
"""

import dataclasses

from ml_collections import ConfigDict

from mmcl_jax.cli.shorthand import parse_argument, with_arguments
from mmcl_jax.config import (
    Config,
    TrainOptions,
    World,
    to_config_dict,
)


def get_config(argument: str = "") -> ConfigDict:
    """Returns the config."""
    variant, pairs = parse_argument(argument)
    # few epochs: the encoder knows drawings well, and more of them change little
    config = Config(
        stream=World(tasks=10, classes_per_task=5), train=TrainOptions(epochs=3)
    )
    if variant == "smoke":
        config = dataclasses.replace(
            config,
            stream=World(
                tasks=5, classes_per_task=2, train_per_class=8, test_per_class=8
            ),
            train=TrainOptions(epochs=1, batch_size=16),
        )
    return to_config_dict(with_arguments(config, pairs))
