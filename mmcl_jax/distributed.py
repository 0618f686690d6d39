"""Start-up of a run that spans several processes."""

import jax
from jax.experimental import multihost_utils


def start(coordinator: str | None, processes: int | None, process: int | None) -> None:
    """Joins the processes of one run; does nothing for a run of a single one.

    Args:
        coordinator: `host:port` of process 0, or "auto" where a cluster's scheduler
            (SLURM, TPU pods, Kubernetes job sets) tells JAX all three.
        processes: how many there are; not with "auto".
        process: index of this one; not with "auto".
    """
    if coordinator is None:
        return
    # it would catch SIGTERM, so that neither a person nor a scheduler could end the run
    jax.config.update("jax_enable_preemption_service", False)
    if coordinator == "auto":
        jax.distributed.initialize()
        return
    jax.distributed.initialize(coordinator, processes, process)


def synchronize(name: str) -> None:
    """Waits until every process of the run has come to the place `name`."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def shard() -> tuple[int, int]:
    """Returns this process's index and the number of processes."""
    return jax.process_index(), jax.process_count()
