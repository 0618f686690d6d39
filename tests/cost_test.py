"""What is kept, by hand."""

import pathlib

import pytest
from rich.console import Console

from mmcl_jax import config
from mmcl_jax.training import build, run_summary


def _sizes(encoder_folder: pathlib.Path, method: str) -> dict[str, int]:
    options = config.Config(
        stream=config.World(tasks=2, classes_per_task=3, modalities=("image", "text")),
        encoder=config.EncoderOptions(str(encoder_folder)),
        method=config.MethodOptions(method, sharing="shared"),
        train=config.TrainOptions(batch_size=8),
    )
    run = build.assemble(options, Console(quiet=True))
    sizes = run_summary.sizes(run)
    assert sizes.pop("bytes_allocated") >= sizes["bytes_remembered"]
    return sizes


@pytest.mark.parametrize(
    ("method", "parameters", "remembered", "per_class", "per_task"),
    [
        ("zero_shot", 0, 0, 0, 0),
        # the Gram matrix of 16 features and a constant; sums and weights of 6 classes;
        # whether it has grown, and the jitter of its solve
        ("ridge", 0, 4 * (17 * 17 + 2 * 6 * 17) + 1 + 4, 4 * 2 * 17, 0),
        # 8 prompts, 16 wide, in 2 blocks of 2 towers
        ("sequential", 2 * 2 * 8 * 16, 4 * 2 * 2 * 8 * 16, 0, 0),
    ],
)
def test_sizes_by_hand(
    encoder_folder: pathlib.Path,
    method: str,
    parameters: int,
    remembered: int,
    per_class: int,
    per_task: int,
) -> None:
    assert _sizes(encoder_folder, method) == {
        "parameters_trained": parameters,
        "bytes_remembered": remembered,
        "bytes_per_class": per_class,
        "bytes_per_task": per_task,
    }
