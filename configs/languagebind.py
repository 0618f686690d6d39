"""LanguageBind's towers, one a modality, on user-defined files, with COMM.

`python -m mmcl_jax.main --config=configs/languagebind.py:weights=A+B+C+D
--config.stream.root=DATA --workdir=runs/languagebind`. `weights=` are folders or
repositories separated by `+`, one for each modality of the stream except text, such as
`LanguageBind/LanguageBind_Image+LanguageBind/LanguageBind_Video_FT`; without it the
weights are random. Further arguments: `method=`, `stream=`, `adapter=`, `sharing=`,
`seed=`. `smoke` is a tiny random encoder of the same structure on a short procedural
stream.

Each modality has a tower of its own, so the level of knowledge is L2 at best: the
modality of a sample decides its tower before anything is predicted.
"""

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


def get_config(argument: str = "") -> ConfigDict:
    """Returns the config."""
    variant, pairs = parse_argument(argument)
    weights = pairs.pop("weights", "")
    if variant == "smoke":
        config = Config(
            encoder=EncoderOptions(weights or "random:languagebind_tiny"),
            stream=World(
                tasks=5, classes_per_task=2, train_per_class=8, test_per_class=8
            ),
            train=TrainOptions(epochs=1, batch_size=16),
        )
    else:
        config = Config(
            stream=Folders(),
            encoder=EncoderOptions(
                weights or "random:languagebind", dtype="bfloat16", remat="attention"
            ),
            train=TrainOptions(
                epochs=10,
                batch_size=64,
                optimizer=OptimizerOptions(learning_rate=1e-3),
            ),
        )
    return to_config_dict(with_arguments(config, pairs))
