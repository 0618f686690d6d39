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
    """Raises `ConfigError` if a project is named, but wandb is not installed."""
    if config.logging.wandb_project and importlib.util.find_spec("wandb") is None:
        raise ConfigError(
            "config.logging.wandb_project: wandb is not installed; pip install wandb, "
            "or leave the project out"
        )


class WeightsAndBiases:
    """Scalars of a run; a resumed run stays the same run there.

    Steps that are logged again after a start are ignored there, since they are not
    above the last one; a resumed run has the same values for them. WANDB_MODE and the
    other variables of wandb apply.
    """

    def __init__(self, workdir: pathlib.Path, config: Config) -> None:
        """Begins the run, or resumes that of the workdir."""
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
        """Does nothing: wandb ignores steps up to its last one."""
        del step

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Sends some values of one step."""
        self._run.log(values, step=step)

    def close(self) -> None:
        """Ends the run there."""
        self._run.finish()
