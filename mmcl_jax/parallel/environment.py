"""What computed a result: versions, devices and the commit of this code."""

import functools
import pathlib
import platform
import subprocess
from typing import Any

import jax

from mmcl_jax import __version__


def environment(mesh: jax.sharding.Mesh) -> dict[str, Any]:
    """Returns what computed the results, by name."""
    device = mesh.devices.flat[0]
    return {
        "mmcl_jax": __version__,
        "commit": commit(),
        "jax": jax.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "device": device.device_kind,
        "devices": mesh.devices.size,
    }


@functools.cache
def commit() -> str | None:
    """Returns the commit of this code, followed by `-dirty` if files differ from it.

    None if this code is not in a checkout of its own.
    """
    git = ["git", "-C", str(pathlib.Path(__file__).parent)]
    describe = ["describe", "--always", "--abbrev=40", "--exclude=*", "--dirty"]
    try:
        # an installed copy may lie in the checkout of something else
        for command in (["ls-files", "--error-unmatch", "__init__.py"], describe):
            done = subprocess.run(
                git + command, capture_output=True, text=True, check=True, timeout=10
            )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
