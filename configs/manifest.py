"""A stream from the files that a CSV table lists, with COMM.

`python -m mmcl_jax.main --config=configs/manifest.py --config.stream.path=DATA.csv
--workdir=runs/mine`; the columns are path, label, modality, split and dataset.
Arguments after a colon: `smoke` for a short run, and `method=`, `stream=`, `adapter=`,
`sharing=`, `seed=`.
"""

import dataclasses

from ml_collections import ConfigDict

from mmcl_jax.cli.shorthand import parse_argument, with_arguments
from mmcl_jax.config import Config, Manifest, TrainOptions, to_config_dict


def get_config(argument: str = "") -> ConfigDict:
    """Returns the config."""
    variant, pairs = parse_argument(argument)
    config = Config(stream=Manifest(max_train_per_class=100))
    if variant == "smoke":
        config = dataclasses.replace(
            config,
            stream=Manifest(classes_per_task=2, max_train_per_class=4),
            train=TrainOptions(epochs=1, batch_size=16),
        )
    return to_config_dict(with_arguments(config, pairs))
