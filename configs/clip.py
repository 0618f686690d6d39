"""CLIP, OpenCLIP and SigLIP encoders on a stream from user-defined files, with COMM.

`python -m mmcl_jax.main --config=configs/clip.py:b16,weights=PATH_OR_REPOSITORY
--config.stream.root=DATA --workdir=runs/clip`. After the colon comes the size of the
encoder: `b32`, `b16`, `l14`, `h14`, `siglip_b16` or `siglip_so400m`. `weights=` is a
folder or a repository, such as `openai/clip-vit-base-patch16`; without it the weights
are random. Further arguments: `method=`, `stream=`, `adapter=`, `sharing=`, `seed=`.
`smoke` is a tiny random CLIP on a short procedural stream. Memory and time:
docs/encoders.md.
"""

import dataclasses

from ml_collections import ConfigDict

from mmcl_jax.cli.shorthand import parse_argument, with_arguments
from mmcl_jax.config import (
    Config,
    EncoderOptions,
    Folders,
    OptimizerOptions,
    TrainOptions,
    World,
    to_config_dict,
)

SIZES = ("b32", "b16", "l14", "h14", "siglip_b16", "siglip_so400m")
# From the code of the methods' papers, for ViT-B/16 and batches of 128.
PUBLISHED = {
    "l2p": OptimizerOptions(learning_rate=1.5e-2),
    "dualprompt": OptimizerOptions(learning_rate=1.5e-2),
    "coda_prompt": OptimizerOptions(learning_rate=1e-3),
}
OWN = OptimizerOptions(learning_rate=1e-3)


def get_config(argument: str = "") -> ConfigDict:
    """Returns the config."""
    variant, pairs = parse_argument(argument, ("smoke", *SIZES))
    weights = pairs.pop("weights", "")
    if variant == "smoke":
        return to_config_dict(with_arguments(_smoke(weights), pairs))
    name = weights or f"random:{variant or 'b16'}"
    config = with_arguments(
        Config(
            stream=Folders(),
            encoder=EncoderOptions(name, remat="attention"),
            train=TrainOptions(epochs=10, batch_size=128),
        ),
        pairs,
    )
    optimizer = PUBLISHED.get(config.method.name, OWN)
    train = dataclasses.replace(config.train, optimizer=optimizer)
    return to_config_dict(dataclasses.replace(config, train=train))


def _smoke(weights: str) -> Config:
    return Config(
        encoder=EncoderOptions(weights or "random:clip_tiny"),
        stream=World(tasks=5, classes_per_task=2, train_per_class=8, test_per_class=8),
        train=TrainOptions(epochs=1, batch_size=16),
    )
