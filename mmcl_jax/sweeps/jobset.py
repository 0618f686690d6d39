"""Runs of a sweep as Kubernetes job sets."""

import copy
import hashlib
import pathlib
import re
from collections.abc import Sequence
from typing import Any

import yaml

from mmcl_jax import plugins
from mmcl_jax.errors import ConfigError, check_bytes, reading
from mmcl_jax.files import parse_yaml, write_text
from mmcl_jax.sweeps import runs
from mmcl_jax.training import remote_names

NAME = "sweep.yaml"
SUBMIT = "kubectl apply -f"
MANIFEST = pathlib.Path(__file__).parents[2] / "launch" / "gke_jobset.yaml"
# Kubernetes appends to it for the name of a pod, which may have 63 characters
_LONGEST = 40
_MAX_BYTES = 2**20


def write(
    todo: Sequence[runs.SweepRun], out: pathlib.Path, manifest: str, there: str | None
) -> pathlib.Path:
    """Writes a file with one job set per run, for `kubectl apply -f`.

    Args:
        todo: Runs whose configs are in `<out>/runs`.
        out: Folder of the sweep, on a volume that the pods mount.
        manifest: YAML file of a job set, such as `launch/gke_jobset.yaml`; it says what
            a run may use. Its name and the arguments of its container are replaced.
        there: Path of `out` in a pod; None if it is the same.

    Returns:
        The file.

    Raises:
        ConfigError: The manifest is not a job set with one container; or there is
            user-defined code, and the manifest does not say where that is in a pod.
        DataError: The manifest cannot be read.
    """
    out = out.resolve()
    model, folder = read(manifest), pathlib.PurePosixPath(there or out) / "runs"
    given = {each.get("name") for each in container(model).get("env", ())}
    if (files := plugins.exported()) and plugins.VARIABLE not in given:
        raise ConfigError(
            f"--manifest: {manifest}: runs need {files}, but its path in the pods is "
            f"not known; put it on their volume, and set {plugins.VARIABLE} to its "
            f"path there in `env` of the container"
        )
    made = []
    for run in todo:
        each = copy.deepcopy(model)
        each["metadata"]["name"] = _name(f"{out.name}-{run.name}")
        container(each)["args"] = [
            "--coordinator=auto",
            f"--workdir={folder / run.name}",
            *remote_names.flags(run.config),
        ]
        made.append(each)
    path = out / NAME
    write_text(path, yaml.safe_dump_all(made, sort_keys=False))
    return path


def read(manifest: str | pathlib.Path) -> dict[str, Any]:
    """Returns the job set of a YAML file.

    Raises:
        ConfigError: It is not a job set, or does not have exactly one container.
        DataError: The file cannot be read.
    """
    with reading(str(manifest), "a YAML file"):
        check_bytes(pathlib.Path(manifest), _MAX_BYTES)
        text = pathlib.Path(manifest).read_text(encoding="utf-8")
        found = parse_yaml(text)
    try:
        container(found)
        found["metadata"]["name"]
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            f"--manifest: {manifest} is not a job set with a name and one container"
        ) from error
    return found


def container(jobset: dict[str, Any]) -> dict[str, Any]:
    """Returns the only container of a job set.

    Raises:
        KeyError, TypeError, ValueError: It has none, or several.
    """
    (job,) = jobset["spec"]["replicatedJobs"]
    (only,) = job["template"]["spec"]["template"]["spec"]["containers"]
    return only


def _name(text: str) -> str:
    """Returns a name that Kubernetes accepts, different for different texts."""
    plain = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
    digest = hashlib.sha256(text.encode()).hexdigest()[:6]
    return f"r-{plain[: _LONGEST - 9]}".rstrip("-") + f"-{digest}"
