"""A stream from ordinary files, with COMM.

`python -m mmcl_jax.main --config=configs/folders.py --config.stream.root=DATA
--workdir=runs/mine`, with `DATA/<modality>/<dataset>/{train,test}/<class>/<file>`, and
`DATA/text/<dataset>/{train,test}.csv` for text. Arguments after a colon: `smoke` for a
short run, and `method=`, `stream=`, `adapter=`, `sharing=`, `seed=`.
"""

import dataclasses

from ml_collections import ConfigDict

from mmcl_jax.cli.shorthand import parse_argument, with_arguments
from mmcl_jax.config import (
    Config,
    Folders,
    TrainOptions,
    to_config_dict,
)


def get_config(argument: str = "") -> ConfigDict:
    """Returns the config."""
    variant, pairs = parse_argument(argument)
    config = Config(stream=Folders(max_train_per_class=100))
    if variant == "smoke":
        config = dataclasses.replace(
            config,
            stream=Folders(classes_per_task=2, max_train_per_class=4),
            train=TrainOptions(epochs=1, batch_size=16),
        )
    return to_config_dict(with_arguments(config, pairs))
