"""Start-up of a run of several processes, and the place of this process among them."""

import os
from collections.abc import Mapping
from typing import NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils

from mmcl_jax.errors import ConfigError

AUTO = "auto"
ADDRESS, COUNT, INDEX = "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"
# index of a pod in an indexed Kubernetes job
COMPLETION_INDEX = "JOB_COMPLETION_INDEX"


class Cluster(NamedTuple):
    """The place of a process among those of its run.

    Attributes:
        coordinator: Address `host:port` of process 0.
        processes: Number of processes.
        process: Index of this process.
    """

    coordinator: str
    processes: int
    process: int


def detect(environ: Mapping[str, str]) -> Cluster | None:
    """Reads the variables of engines that JAX does not detect, such as a plain job set.

    They are `JAX_COORDINATOR_ADDRESS`, `JAX_NUM_PROCESSES`, and `JAX_PROCESS_ID` or
    the `JOB_COMPLETION_INDEX` of an indexed Kubernetes job.

    Args:
        environ: Environment variables of the process.

    Returns:
        The cluster they describe; None without `JAX_NUM_PROCESSES` and
        `JAX_PROCESS_ID`: then JAX detects SLURM, Open MPI and Cloud TPUs itself.

    Raises:
        ConfigError: Some are missing, not numbers, or contradict each other.

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
        raise ConfigError(f"{own}={process}: must be below {COUNT}={count}")
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
        raise ConfigError(
            f"{name}: missing, although {COUNT if name == INDEX else INDEX} is set"
        )
    if not value.isdecimal():
        raise ConfigError(f"{name}={value}: expected a number")
    return int(value)


def check_cluster(environ: Mapping[str, str]) -> None:
    """Refuses settings that would let JAX wait for processes that were never started.

    Raises:
        ConfigError: This is a SLURM job without `srun`, a step of another size than
            its job states, or a version of Open MPI that does not publish the address
            of process 0.
    """
    if "OMPI_COMM_WORLD_SIZE" in environ:
        if "OMPI_MCA_orte_hnp_uri" not in environ:
            raise ConfigError(
                "Open MPI from version 5 on does not publish where process 0 is; set "
                f"{ADDRESS}=host:port, {COUNT}=$OMPI_COMM_WORLD_SIZE and "
                f"{INDEX}=$OMPI_COMM_WORLD_RANK"
            )
    elif "SLURM_JOB_ID" in environ:
        tasks, step = environ.get("SLURM_NTASKS"), environ.get("SLURM_STEP_NUM_TASKS")
        if step is None:
            raise ConfigError(
                f"SLURM_JOB_ID={environ['SLURM_JOB_ID']}: inside a job, but in none of "
                "its tasks; start the program with srun"
            )
        if tasks != step:
            raise ConfigError(
                f"SLURM_NTASKS={tasks} contradicts SLURM_STEP_NUM_TASKS={step}, the "
                "tasks that srun has started; unset SLURM_NTASKS before srun"
            )


def own_devices(environ: Mapping[str, str]) -> list[int] | None:
    """Returns which visible GPUs are this task's, or None to leave that to JAX.

    JAX takes one GPU per task of SLURM or Open MPI: the one with the task's number on
    its node. That is wrong if each task sees its own GPUs alone, and if a node has one
    task for all of its GPUs.
    """
    shown = environ.get("CUDA_VISIBLE_DEVICES", "")
    alone = environ.get("SLURM_STEP_TASKS_PER_NODE", "").partition("(")[0] == "1"
    if not shown or "JAX_LOCAL_DEVICE_IDS" in environ:
        return None
    if alone or "SLURM_GPUS_PER_TASK" in environ:
        return list(range(len(shown.split(","))))
    return None


def start(coordinator: str | None, processes: int | None, process: int | None) -> None:
    """Joins the processes of one run; does nothing for a run of a single process.

    Args:
        coordinator: Address `host:port` of process 0, or "auto" to read all three from
            the environment: by `detect`, or else by JAX.
        processes: Number of processes; not with "auto".
        process: Index of this process; not with "auto".

    Raises:
        ConfigError: The environment describes no cluster, or contradicts itself.
    """
    if coordinator is None:
        return
    # the service would catch SIGTERM, which has to reach the run's own handler
    jax.config.update("jax_enable_preemption_service", False)
    if coordinator != AUTO:
        jax.distributed.initialize(coordinator, processes, process)
    elif cluster := detect(os.environ):
        # otherwise JAX would query the engine for devices, and Kubernetes for what is
        # known already
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
            f"that JAX detects; give --coordinator=host:port or set {ADDRESS}, {COUNT} "
            f"and {INDEX}"
        ) from error


def synchronize(name: str) -> None:
    """Waits until every process of the run has reached the barrier `name`."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def everywhere(holds: bool) -> bool:
    """Returns whether something holds in every process; all of them have to call it."""
    return bool(np.all(multihost_utils.process_allgather(np.array(holds))))


def shard() -> tuple[int, int]:
    """Returns this process's index and the number of processes."""
    return jax.process_index(), jax.process_count()
