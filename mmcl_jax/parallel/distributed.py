"""Start-up of a run that spans several processes, and which one this is."""

import os
from collections.abc import Mapping
from typing import NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils

from mmcl_jax.errors import ConfigError

AUTO = "auto"
ADDRESS, COUNT, INDEX = "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"
# Kubernetes numbers the pods of an indexed job by it
COMPLETION_INDEX = "JOB_COMPLETION_INDEX"


class Cluster(NamedTuple):
    """Where a process stands among those of its run.

    Attributes:
        coordinator: `host:port` of process 0.
        processes: how many there are.
        process: index of this one.
    """

    coordinator: str
    processes: int
    process: int


def detect(environ: Mapping[str, str]) -> Cluster | None:
    """Reads the variables of engines that JAX does not ask, such as a plain job set.

    They are `JAX_COORDINATOR_ADDRESS`, `JAX_NUM_PROCESSES`, and `JAX_PROCESS_ID` or
    the `JOB_COMPLETION_INDEX` of an indexed Kubernetes job.

    Args:
        environ: variables of the process.

    Returns:
        What they say; None without `JAX_NUM_PROCESSES` and `JAX_PROCESS_ID`, where the
        word is JAX's, which knows SLURM, Open MPI and Cloud TPUs.

    Raises:
        ConfigError: some are missing, no numbers, or contradict each other.

    >>> detect({
    ...     "JAX_COORDINATOR_ADDRESS": "pod-0.run:8476",
    ...     "JAX_NUM_PROCESSES": "4",
    ...     "JOB_COMPLETION_INDEX": "3",
    ... })
    Cluster(coordinator='pod-0.run:8476', processes=4, process=3)
    """
    if COUNT not in environ and INDEX not in environ:
        return None
    address = environ.get(ADDRESS, "")
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise ConfigError(f"{ADDRESS}={address}: expected host:port of process 0")
    count, own = _number(environ, COUNT), COMPLETION_INDEX
    if INDEX in environ or COMPLETION_INDEX not in environ:
        own = INDEX
    process = _number(environ, own)
    if process >= count:
        raise ConfigError(f"{own}={process}: not below {COUNT}={count}")
    others = {
        COMPLETION_INDEX: (own, process),
        "SLURM_PROCID": (own, process),
        "SLURM_STEP_NUM_TASKS": (COUNT, count),
        "OMPI_COMM_WORLD_RANK": (own, process),
        "OMPI_COMM_WORLD_SIZE": (COUNT, count),
    }
    for name, (ours, expected) in others.items():
        if name in environ and environ[name] != str(expected):
            raise ConfigError(
                f"{name}={environ[name]} contradicts {ours}={expected}; unset one"
            )
    return Cluster(address, count, process)


def _number(environ: Mapping[str, str], name: str) -> int:
    value = environ.get(name)
    if value is None:
        raise ConfigError(f"{name}: missing beside {COUNT if name == INDEX else INDEX}")
    if not value.isdecimal():
        raise ConfigError(f"{name}={value}: expected a number")
    return int(value)


def check_cluster(environ: Mapping[str, str]) -> None:
    """Refuses what would let JAX wait for processes that nobody has started.

    Raises:
        ConfigError: a SLURM job without `srun`, a step of another size than the job
            says, or a version of Open MPI that does not say where process 0 is.
    """
    if "OMPI_COMM_WORLD_SIZE" in environ:
        if "OMPI_MCA_orte_hnp_uri" not in environ:
            raise ConfigError(
                "Open MPI from version 5 on does not say where process 0 is; set "
                f"{ADDRESS}=host:port, {COUNT}=$OMPI_COMM_WORLD_SIZE and "
                f"{INDEX}=$OMPI_COMM_WORLD_RANK"
            )
    elif "SLURM_JOB_ID" in environ:
        tasks, step = environ.get("SLURM_NTASKS"), environ.get("SLURM_STEP_NUM_TASKS")
        if step is None:
            raise ConfigError(
                f"SLURM_JOB_ID={environ['SLURM_JOB_ID']}: a job, but none of its "
                "tasks; start the program by srun"
            )
        if tasks != step:
            raise ConfigError(
                f"SLURM_NTASKS={tasks} contradicts SLURM_STEP_NUM_TASKS={step}, the "
                "tasks that srun has started; unset SLURM_NTASKS before srun"
            )


def own_devices(environ: Mapping[str, str]) -> list[int] | None:
    """Returns which visible GPUs are this task's, None to leave it to JAX.

    JAX takes one GPU a task of SLURM or Open MPI, the one that has the task's number on
    its node. That is wrong where every task is shown its own GPUs alone, and where a
    node has one task for all of its GPUs.
    """
    shown = environ.get("CUDA_VISIBLE_DEVICES", "")
    alone = environ.get("SLURM_STEP_TASKS_PER_NODE", "").partition("(")[0] == "1"
    if not shown or "JAX_LOCAL_DEVICE_IDS" in environ:
        return None
    if alone or "SLURM_GPUS_PER_TASK" in environ:
        return list(range(len(shown.split(","))))
    return None


def start(coordinator: str | None, processes: int | None, process: int | None) -> None:
    """Joins the processes of one run; does nothing for a run of a single one.

    Args:
        coordinator: `host:port` of process 0, or "auto" where the environment says all
            three: see `detect`, and what JAX knows by itself.
        processes: how many there are; not with "auto".
        process: index of this one; not with "auto".

    Raises:
        ConfigError: the environment says nothing, or contradicts itself.
    """
    if coordinator is None:
        return
    # it would catch SIGTERM, so that neither a person nor a scheduler could end the run
    jax.config.update("jax_enable_preemption_service", False)
    if coordinator != AUTO:
        jax.distributed.initialize(coordinator, processes, process)
    elif cluster := detect(os.environ):
        # JAX would ask the engine for devices, and Kubernetes for what we know
        jax.distributed.initialize(*cluster, cluster_detection_method="deactivate")
    else:
        _ask_jax()


def _ask_jax() -> None:
    check_cluster(os.environ)
    try:
        jax.distributed.initialize(local_device_ids=own_devices(os.environ))
    except ValueError as error:
        raise ConfigError(
            "--coordinator=auto: no SLURM step, Open MPI, Cloud TPU or Kubernetes job "
            f"that JAX can ask; give --coordinator=host:port or set {ADDRESS}, {COUNT} "
            f"and {INDEX}"
        ) from error


def synchronize(name: str) -> None:
    """Waits until every process of the run has come to the place `name`."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def everywhere(holds: bool) -> bool:
    """Returns whether something holds in every process of the run; all have to ask."""
    return bool(np.all(multihost_utils.process_allgather(np.array(holds))))


def shard() -> tuple[int, int]:
    """Returns this process's index and the number of processes."""
    return jax.process_index(), jax.process_count()
