"""Matrices that can hardly be solved: they are, and the run says what it took."""

import pathlib
from typing import Any

import numpy as np
import pytest

from mmcl_jax import config
from mmcl_jax.methods.diki import Options as DikiOptions
from mmcl_jax.methods.ridge import Options as RidgeOptions
from mmcl_jax.methods.slca import Options as SlcaOptions
from mmcl_jax.training import experiment
from tests import helpers

# two samples a class span no more than a few of the dimensions
SINGULAR: dict[str, dict[str, Any]] = {
    "diki": {"diki": DikiOptions(shrinkage=0.0)},
    "ridge": {"ridge": RidgeOptions(regularization=0.0)},
    "slca": {"slca": SlcaOptions(shrinkage=0.0)},
}

FULL = pytest.mark.full("methods")


def _run(encoder: pathlib.Path, workdir: pathlib.Path, name: str, **options: Any):
    return experiment.run(
        config.Config(
            stream=config.World(
                tasks=2,
                classes_per_task=2,
                modalities=("text",),
                train_per_class=2,
                test_per_class=4,
            ),
            encoder=config.EncoderOptions(str(encoder)),
            method=config.MethodOptions(name, **options),
            train=config.TrainOptions(batch_size=8, epochs=1),
        ),
        workdir,
    )


@pytest.mark.parametrize(
    "name",
    ["ridge", *(pytest.param(n, marks=FULL) for n in SINGULAR if n != "ridge")],
)
def test_singular_matrices_are_solved_and_reported(
    name: str,
    encoder_folder: pathlib.Path,
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    results = _run(encoder_folder, tmp_path / "run", name, **SINGULAR[name])
    assert results
    # SLCA aligns its head once there is an older task
    assert set(results["jitter"]) >= {"1"}
    assert all(0 < jitter < 1 for jitter in results["jitter"].values())
    assert helpers.results(tmp_path / "run") == results
    said = " ".join(capsys.readouterr().out.split())
    assert "a matrix was close to singular" in said
    for kept in helpers.snapshot(tmp_path / "run", 1).values():
        assert np.isfinite(kept).all()


def test_nothing_is_added_to_what_can_be_solved(
    encoder_folder: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    results = _run(encoder_folder, tmp_path / "run", "comm_plus")
    assert results
    assert results["jitter"] == {}
