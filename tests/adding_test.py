"""A method is added to the package by one file and one line."""

import json
import pathlib
import shutil
import subprocess
import sys

from tests import helpers

METHOD = '''\
"""Sequential tuning that is held to the frozen encoder's answers."""

import dataclasses

from mmcl_jax.fields import NonNegative
from mmcl_jax.methods.base import Common, Method
from mmcl_jax.methods.sequential import sequential
from mmcl_jax.models.model import Model
from mmcl_jax.ops import losses


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of `x`.

    Attributes:
        strength: Weight of the distance to the frozen encoder's features.
    """

    strength: NonNegative = 1.0


def make(model: Model, options: Options, common: Common) -> Method:
    """Returns sequential tuning with a penalty of what moves the features."""

    def penalty(features, context, batch):
        del context
        adapted = features.embeddings[0]
        distance = losses.cosine_distance(adapted, batch.query, batch.weight)
        return options.strength * distance, {"distance": distance}

    return sequential(model, common, penalty)
'''


def test_a_method_is_one_file_and_one_line(
    encoder_folder: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    root, package = helpers.REPOSITORY, tmp_path / "mmcl_jax"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(root / "mmcl_jax", package, symlinks=True, ignore=ignored)
    shutil.copytree(root / "configs", tmp_path / "configs", ignore=ignored)
    (package / "methods" / "x.py").write_text(METHOD)
    registry = package / "methods" / "registry.py"
    before, line = registry.read_text(), '    "joint",\n'
    assert before.count(line) == 1
    registry.write_text(before.replace(line, line + '    "x",\n'))
    done = subprocess.run(
        [
            *(sys.executable, "-m", "mmcl_jax.main"),
            "--config=configs/demo.py:smoke,method=x",
            f"--config.encoder.path={encoder_folder}",
            "--config.stream.tasks=2",
            "--config.stream.modalities=image,text",
            "--config.method.x.strength=0.5",
            "--config.train.log_every_steps=1",
            "--config.report=off",
            "--workdir=run",
        ],
        cwd=tmp_path,
        env=helpers.environment() | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["method"]["name"] == "x"
    assert config["method"]["x"] == {"strength": 0.5}
    metrics = (tmp_path / "run" / "metrics.jsonl").read_text()
    assert any("distance" in json.loads(row) for row in metrics.splitlines())
    assert json.loads((tmp_path / "run" / "results.json").read_text())
