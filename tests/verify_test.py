"""Results of closed forms follow from plain arrays, without this package."""

import pathlib
import re
import subprocess
import sys

import pytest
from rich.console import Console

from mmcl_jax import config
from mmcl_jax.training import build, experiment, frozen_views

STREAM = config.World(
    modalities=("image", "text", "audio"),
    tasks=6,
    classes_per_task=2,
    recurring_concepts=True,
    train_per_class=10,
    test_per_class=8,
)


def test_results_are_derived_again_in_numpy(
    encoder_folder: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    encoder = config.EncoderOptions(str(encoder_folder))
    reported = {}
    for method in ("ncm", "ridge", "slda", "comm_plus"):
        chosen = config.Config(
            stream=STREAM,
            encoder=encoder,
            method=config.MethodOptions(method),
            report="off",
        )
        results = experiment.run(chosen, tmp_path / method)
        for route in ("given", "predicted"):
            found = results["metrics"]["routed"][route]["last_average_accuracy"]
            reported[method, route] = 100 * found
    run = build.assemble(
        config.Config(
            stream=STREAM, encoder=encoder, method=config.MethodOptions("zero_shot")
        ),
        Console(quiet=True),
    )
    folder = tmp_path / "features"
    frozen_views.write_views(run, 4, folder)
    (program,) = re.findall(
        "```python\n(.*?)```", (folder / "README.md").read_text(), re.S
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", program],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    derived = {
        (method, route): float(value)
        for method, route, value in map(str.split, done.stdout.splitlines())
    }
    assert derived == pytest.approx(reported, abs=0.01)
    assert "mmcl_jax" not in program
