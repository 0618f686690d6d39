"""Which process of a run this is, from faked environments; real errors of real runs."""

import itertools
import pathlib
import subprocess
import sys

import jax
import pytest

from mmcl_jax.errors import ConfigError
from mmcl_jax.parallel import distributed
from mmcl_jax.parallel.distributed import Cluster, check_cluster, detect, own_devices
from tests import helpers

PLAIN = {
    "JAX_COORDINATOR_ADDRESS": "run-0-0.run:8476",
    "JAX_NUM_PROCESSES": "4",
    "JAX_PROCESS_ID": "3",
}
# of a step of 2 tasks, as a cluster of SLURM 22.05 sets them
STEP = {
    "SLURM_JOB_ID": "7",
    "SLURM_NTASKS": "2",
    "SLURM_PROCID": "1",
    "SLURM_LOCALID": "1",
    "SLURM_STEP_NODELIST": "localhost",
    "SLURM_STEP_NUM_TASKS": "2",
    "SLURM_STEP_TASKS_PER_NODE": "2",
}


def _without(environ: dict[str, str], *names: str) -> dict[str, str]:
    return {name: value for name, value in environ.items() if name not in names}


def test_plain_variables_say_all_three() -> None:
    expected = Cluster("run-0-0.run:8476", 4, 3)
    assert detect(PLAIN) == expected
    indexed = _without(PLAIN, "JAX_PROCESS_ID") | {"JOB_COMPLETION_INDEX": "3"}
    assert detect(indexed) == expected
    assert detect(PLAIN | {"JOB_COMPLETION_INDEX": "3"}) == expected
    assert detect(PLAIN | {"JAX_COORDINATOR_ADDRESS": "[::1]:8476"}) == Cluster(
        "[::1]:8476", 4, 3
    )


def test_without_them_the_word_is_left_to_jax() -> None:
    assert detect({}) is None
    assert detect(STEP) is None
    # JAX itself takes an address from there, and the rest from SLURM
    assert detect(STEP | {"JAX_COORDINATOR_ADDRESS": "node:1"}) is None
    assert detect({"JOB_COMPLETION_INDEX": "0", "TPU_WORKER_ID": "0"}) is None


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        (_without(PLAIN, "JAX_COORDINATOR_ADDRESS"), "JAX_COORDINATOR_ADDRESS=: "),
        (PLAIN | {"JAX_COORDINATOR_ADDRESS": "host"}, "=host: expected host:port"),
        (PLAIN | {"JAX_COORDINATOR_ADDRESS": ":84"}, "=:84: expected host:port"),
        (_without(PLAIN, "JAX_NUM_PROCESSES"), "JAX_NUM_PROCESSES: missing"),
        (_without(PLAIN, "JAX_PROCESS_ID"), "JAX_PROCESS_ID: missing"),
        (PLAIN | {"JAX_NUM_PROCESSES": "two"}, "JAX_NUM_PROCESSES=two: expected a"),
        (PLAIN | {"JAX_PROCESS_ID": "-1"}, "JAX_PROCESS_ID=-1: expected a number"),
        (PLAIN | {"JAX_PROCESS_ID": "4"}, "JAX_PROCESS_ID=4: must be below .*=4"),
        (PLAIN | {"JOB_COMPLETION_INDEX": "1"}, "INDEX=1 contradicts .*_ID=3"),
        (PLAIN | {"SLURM_PROCID": "0"}, "SLURM_PROCID=0 contradicts JAX_PROCESS_ID=3"),
        (PLAIN | {"SLURM_STEP_NUM_TASKS": "2"}, "=2 contradicts .*_PROCESSES=4"),
        (PLAIN | {"OMPI_COMM_WORLD_SIZE": "8"}, "=8 contradicts .*_PROCESSES=4"),
    ],
)
def test_what_is_missing_or_contradicts_is_named(
    environ: dict[str, str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        detect(environ)


def test_every_process_of_a_run_is_told_apart() -> None:
    found = [detect(PLAIN | {"JAX_PROCESS_ID": str(i)}) for i in range(4)]
    assert [each and each.process for each in found] == [0, 1, 2, 3]
    for one, other in itertools.combinations(found, 2):
        assert one and other and one[:2] == other[:2]


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        (_without(STEP, "SLURM_STEP_NUM_TASKS"), "SLURM_JOB_ID=7: .* with srun"),
        (STEP | {"SLURM_NTASKS": "4"}, "SLURM_NTASKS=4 contradicts .*TASKS=2"),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, "Open MPI from version 5"),
    ],
)
def test_what_jax_would_wait_for_in_vain_is_refused(
    environ: dict[str, str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        check_cluster(environ)


def test_what_jax_knows_is_let_through() -> None:
    check_cluster(STEP)
    check_cluster({})
    # mpirun inside a job of SLURM: JAX asks Open MPI first
    job = {"SLURM_JOB_ID": "7", "OMPI_COMM_WORLD_SIZE": "2"}
    check_cluster(job | {"OMPI_MCA_orte_hnp_uri": "4096.0;tcp://10.0.0.1:1"})


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, None),
        # all of a node's are shown to each of its tasks: the one of its number
        ({"CUDA_VISIBLE_DEVICES": "0,1"}, None),
        ({"CUDA_VISIBLE_DEVICES": "0", "SLURM_GPUS_PER_TASK": "1"}, [0]),
        ({"CUDA_VISIBLE_DEVICES": "2,3", "SLURM_GPUS_PER_TASK": "2"}, [0, 1]),
        (
            {"CUDA_VISIBLE_DEVICES": "4,5,6", "SLURM_STEP_TASKS_PER_NODE": "1(x2)"},
            [0, 1, 2],
        ),
        (
            {
                "CUDA_VISIBLE_DEVICES": "0,1",
                "SLURM_STEP_TASKS_PER_NODE": "1",
                "JAX_LOCAL_DEVICE_IDS": "1",
            },
            None,
        ),
    ],
)
def test_a_task_takes_the_gpus_that_are_its_own(
    changes: dict[str, str], expected: list[int] | None
) -> None:
    assert own_devices(STEP | changes) == expected


def test_jax_is_asked_and_told_what_it_is_to_know(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = []
    monkeypatch.setattr(
        jax.distributed, "initialize", lambda *a, **k: calls.append((a, k))
    )
    distributed.start(None, None, None)
    distributed.start("host:1", 2, 1)
    for name, value in PLAIN.items():
        monkeypatch.setenv(name, value)
    distributed.start("auto", None, None)
    assert calls == [
        (("host:1", 2, 1), {}),
        (("run-0-0.run:8476", 4, 3), {"cluster_detection_method": "deactivate"}),
    ]


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({}, "--coordinator=auto: no SLURM step"),
        pytest.param(
            {"SLURM_JOB_ID": "7"},
            "start the program with srun",
            marks=pytest.mark.full("slurm"),
        ),
        pytest.param(
            {"JAX_NUM_PROCESSES": "2"},
            "JAX_COORDINATOR_ADDRESS=: expected host:port",
            marks=pytest.mark.full("slurm"),
        ),
    ],
)
def test_a_run_that_finds_no_cluster_says_so_in_one_line(
    environ: dict[str, str], message: str, tmp_path: pathlib.Path
) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "mmcl_jax.main", "--config=configs/demo.py:smoke"),
            *("--coordinator=auto", f"--workdir={tmp_path / 'run'}"),
        ],
        cwd=helpers.REPOSITORY,
        env=helpers.environment() | environ,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert message in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_plain_variables_join_processes() -> None:
    (port,) = helpers.free_ports(1)
    program = (
        "import jax; from mmcl_jax.parallel import distributed;"
        "distributed.start('auto', None, None);"
        "distributed.synchronize('here'); print(distributed.shard())"
    )
    started = [
        subprocess.Popen(
            [sys.executable, "-c", program],
            cwd=helpers.REPOSITORY,
            env=helpers.environment()
            | {
                "JAX_COORDINATOR_ADDRESS": f"localhost:{port}",
                "JAX_NUM_PROCESSES": "2",
                "JOB_COMPLETION_INDEX": str(i),
                # with it and without a package to ask it, JAX would warn
                "KUBERNETES_SERVICE_HOST": "10.0.0.1",
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(2)
    ]
    said = [each.communicate(timeout=120) for each in started]
    assert [each.returncode for each in started] == [0, 0], said
    assert [output.strip().splitlines()[-1] for output, _ in said] == [
        "(0, 2)",
        "(1, 2)",
    ]
    assert not any("kubernetes" in errors.lower() for _, errors in said)
