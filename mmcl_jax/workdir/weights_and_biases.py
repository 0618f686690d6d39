"""Weights & Biases, if the config names a project."""

import dataclasses
import importlib.util
import pathlib
import secrets

from mmcl_jax.config import Config
from mmcl_jax.errors import ConfigError
from mmcl_jax.files import write_text
from mmcl_jax.workdir.layout import WANDB


def check(config: Config) -> None:
    """Raises `ConfigError` if a project is named, but the program is not there."""
    if config.logging.wandb_project and importlib.util.find_spec("wandb") is None:
        raise ConfigError(
            "config.logging.wandb_project: wandb is not installed; pip install "
            "'mmcl_jax[wandb]', or leave the project out"
        )


class WeightsAndBiases:
    """Scalars of a run, which is the same one there after it has been gone on with.

    What it is told again after a start it has already: it takes no step that is not
    above its last one, and a run that goes on has the same values. WANDB_MODE and its
    other variables have their say.
    """

    def __init__(self, workdir: pathlib.Path, config: Config) -> None:
        """Begins the run, or goes on with the one of the workdir."""
        import wandb  # pyright: ignore[reportMissingImports]

        folder = workdir / WANDB
        folder.mkdir(exist_ok=True)
        name = folder / "run_id.txt"
        if not name.is_file():
            write_text(name, secrets.token_hex(4))
        self._run = wandb.init(
            project=config.logging.wandb_project,
            dir=workdir,
            id=name.read_text().strip(),
            name=workdir.name,
            resume="allow",
            config=dataclasses.asdict(config),
            settings=wandb.Settings(silent=True, console="off"),
        )

    def start(self, step: int) -> None:
        """Does nothing: steps up to the last one are known there."""
        del step

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Sends some values of one step."""
        self._run.log(values, step=step)

    def close(self) -> None:
        """Ends the run there."""
        self._run.finish()
