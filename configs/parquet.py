"""A stream from Parquet files, or data sets that `datasets` has saved, with COMM.

`python -m mmcl_jax.main --config=configs/parquet.py --config.stream.paths=DATA,org/name
--workdir=runs/mine`, with folders, or repositories of the Hugging Face Hub, which are
downloaded. Arguments after a colon: `smoke` for a short run, and `method=`, `stream=`,
`adapter=`, `sharing=`, `seed=`.
"""

import dataclasses

from ml_collections import ConfigDict

from mmcl_jax.cli.shorthand import parse_argument, with_arguments
from mmcl_jax.config import Config, Parquet, TrainOptions, to_config_dict


def get_config(argument: str = "") -> ConfigDict:
    """Returns the config."""
    variant, pairs = parse_argument(argument)
    config = Config(stream=Parquet(max_train_per_class=100))
    if variant == "smoke":
        config = dataclasses.replace(
            config,
            stream=Parquet(classes_per_task=2, max_train_per_class=4),
            train=TrainOptions(epochs=1, batch_size=16),
        )
    return to_config_dict(with_arguments(config, pairs))
