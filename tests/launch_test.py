"""Manifests, scripts and sweeps for clusters, without one; slurm_test.py has one."""

import json
import os
import pathlib
import shutil
import subprocess
from collections.abc import Callable
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from mmcl_jax.errors import RUN_AGAIN, ConfigError, DataError
from mmcl_jax.parallel import distributed
from mmcl_jax.sweeps import jobset, runs, slurm
from mmcl_jax.workdir import layout
from tests import helpers
from tests.programs import run_each

LAUNCH = helpers.REPOSITORY / "launch"
MANIFESTS = sorted(LAUNCH.glob("gke_jobset*.yaml"))
SCRIPTS = sorted([*LAUNCH.glob("*.sh"), *LAUNCH.glob("*.sbatch")])
SCHEMA = json.loads(pathlib.Path(__file__).with_name("jobset_schema.json").read_text())
WORLD = helpers.REPOSITORY / "configs" / "world.py"


def _grid() -> tuple[runs.SweepRun, ...]:
    variants = {"ridge": ("ridge", {}), "comm_plus": ("comm_plus", {})}
    return runs.grid(WORLD, variants, ["interleaved"], [0, 1], "smoke")


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_sound(path: pathlib.Path) -> None:
    subprocess.run(["bash", "-n", str(path)], check=True)
    if shutil.which("shellcheck") is None:
        pytest.skip("parsed by bash alone: shellcheck is not installed")
    flags = ["--external-sources", f"--source-path={LAUNCH}"]
    done = subprocess.run(
        ["shellcheck", *flags, str(path)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("fails", "code"), [("none", 0), ("ruff", 1), ("basedpyright", 1), ("pytest", 3)]
)
def test_style_types_and_tests_all_count(
    fails: str, code: int, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "launch").mkdir()
    shutil.copy(LAUNCH / "test.sh", tmp_path / "launch")
    setup = f"prepare() {{ :; }}; ROOT={tmp_path}; VENV_PYTHON={tmp_path}/bin/python"
    (tmp_path / "launch" / "setup.sh").write_text(setup)
    _commands(tmp_path / "bin", python=f'echo "$@"; [ "$2" != {fails} ] || exit 3')
    done = subprocess.run(
        ["bash", str(tmp_path / "launch" / "test.sh"), "-k", "a b"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == code
    assert "loadgroup -k a b\n" in done.stdout
    assert "-m ruff check ." in done.stdout
    assert ("error: style or types" in done.stderr) == (code == 1)


# manifests


def _job(manifest: dict[str, Any]) -> dict[str, Any]:
    (only,) = manifest["spec"]["replicatedJobs"]
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": only["name"]},
        **only["template"],
    }


def _validate(manifest: dict[str, Any]) -> None:
    jsonschema.validate(manifest, SCHEMA)


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_manifests_are_what_jobset_takes(path: pathlib.Path) -> None:
    _validate(jobset.read(path))


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_jobs_and_pods_are_what_kubernetes_takes(path: pathlib.Path) -> None:
    job = _job(jobset.read(path))
    version = kubernetes_validate.latest_version()
    kubernetes_validate.validate(job, version, strict=True)
    job["spec"]["podFailurePolicy"]["rules"][0]["onExitCode"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(job, version, strict=True)


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_a_run_that_asks_for_it_is_started_again_and_nothing_else_forever(
    path: pathlib.Path,
) -> None:
    manifest = jobset.read(path)
    job = _job(manifest)["spec"]
    # pods that fail of these fail the job, by PodFailurePolicy; all others by its limit
    codes, disrupted = job["podFailurePolicy"]["rules"]
    assert codes["action"] == disrupted["action"] == "FailJob"
    assert codes["onExitCodes"] == {
        "containerName": jobset.container(manifest)["name"],
        "operator": "In",
        "values": [RUN_AGAIN],
    }
    assert disrupted["onPodConditions"] == [
        {"type": "DisruptionTarget", "status": "True"}
    ]
    assert job["backoffLimit"] == 0
    # Kubernetes takes podFailurePolicy with this alone
    assert job["template"]["spec"]["restartPolicy"] == "Never"
    (again,) = manifest["spec"]["failurePolicy"]["rules"]
    assert again["action"] == "RestartJobSetAndIgnoreMaxRestarts"
    assert again["onJobFailureReasons"] == ["PodFailurePolicy"]
    assert manifest["spec"]["failurePolicy"]["maxRestarts"] < 10


def test_pods_with_gpus_are_told_who_they_are() -> None:
    manifest = jobset.read(jobset.MANIFEST)
    job, container = _job(manifest)["spec"], jobset.container(manifest)
    assert job["completionMode"] == "Indexed"  # sets JOB_COMPLETION_INDEX
    assert job["completions"] == job["parallelism"]
    (spec,) = manifest["spec"]["replicatedJobs"]
    coordinator = manifest["spec"]["coordinator"]
    assert coordinator == {"replicatedJob": spec["name"], "jobIndex": 0, "podIndex": 0}
    env = {each["name"]: each for each in container["env"]}
    annotation = env["COORDINATOR"]["valueFrom"]["fieldRef"]["fieldPath"]
    assert annotation == "metadata.annotations['jobset.sigs.k8s.io/coordinator']"
    # as Kubernetes fills in variables that stand before
    pod = {
        name: each["value"].replace("$(COORDINATOR)", "mmcl-jax-run-0-0.mmcl-jax")
        for name, each in env.items()
        if "value" in each
    }
    (port,) = [each["containerPort"] for each in container["ports"]]
    for index in range(job["completions"]):
        assert distributed.detect(
            pod | {"JOB_COMPLETION_INDEX": str(index)}
        ) == distributed.Cluster(
            f"mmcl-jax-run-0-0.mmcl-jax:{port}", job["completions"], index
        )


# sweeps


def test_a_job_set_for_every_run(tmp_path: pathlib.Path) -> None:
    out = tmp_path / "World v1"
    out.mkdir()
    path = jobset.write(_grid(), out, str(jobset.MANIFEST), "/runs/world")
    made = list(yaml.safe_load_all(path.read_text()))
    model = jobset.read(jobset.MANIFEST)
    names = {each["metadata"]["name"] for each in made}
    assert len(names) == len(made) == 4
    for each, run in zip(made, _grid(), strict=True):
        _validate(each)
        # <set>-<job>-<index>-<index> is a host
        assert len(f"{each['metadata']['name']}-run-0-999") <= 63
        args = jobset.container(each)["args"]
        assert args == ["--coordinator=auto", f"--workdir=/runs/world/runs/{run.name}"]
        each["metadata"]["name"] = model["metadata"]["name"]
        jobset.container(each)["args"] = jobset.container(model)["args"]
        assert each == model


def test_pods_are_told_where_own_code_is(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MMCL_JAX_MODULES", str(tmp_path / "mine.py"))
    # a path of this machine is none of a pod
    with pytest.raises(ConfigError, match=r"runs need .*mine\.py.* MMCL_JAX_MODULES"):
        jobset.write(_grid(), tmp_path, str(jobset.MANIFEST), "/runs/world")
    manifest = jobset.read(jobset.MANIFEST)
    told = {"name": "MMCL_JAX_MODULES", "value": "/runs/mine.py"}
    jobset.container(manifest)["env"].append(told)
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(manifest))
    path = jobset.write(_grid(), tmp_path, str(tmp_path / "own.yaml"), "/runs/world")
    for each in yaml.safe_load_all(path.read_text()):
        assert told in jobset.container(each)["env"]


def test_manifests_that_are_none_are_named(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("kind: Job\nmetadata: {name: run}\n")
    with pytest.raises(ConfigError, match="mine.yaml is not a job set"):
        jobset.read(path)
    path.write_text("a: [")
    with pytest.raises(DataError, match="mine.yaml"):
        jobset.read(path)
    with pytest.raises(DataError, match="no such file"):
        jobset.read(tmp_path / "none.yaml")


def _commands(folder: pathlib.Path, **programs: str) -> dict[str, str]:
    """Returns an environment in which commands are little scripts."""
    folder.mkdir(exist_ok=True)
    for name, text in programs.items():
        (folder / name).write_text(f"#!/usr/bin/env bash\n{text}\n")
        (folder / name).chmod(0o755)
    return os.environ | {"PATH": f"{folder}:{os.environ['PATH']}"}


def test_the_array_gives_every_job_its_run(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MMCL_JAX_MODULES", "my own.py")
    out = tmp_path / "a sweep"
    made = _grid()
    for run in made:
        runs.prepare_workdir(run, out / "runs")
    options = {"partition": "gpu", "gpus_per_node": "4"}
    path = slurm.write(made, out, options, 2)
    text = path.read_text()
    for line in (
        "--array=0-3%2",
        "--partition=gpu",
        "--gpus-per-node=4",
        "--requeue",
        "--signal=B:TERM@120",
    ):
        assert f"\n#SBATCH {line}\n" in text
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text("")
    python.chmod(0o755)
    environ = _commands(
        tmp_path / "bin",
        srun='echo "$@"; echo "own: $MMCL_JAX_MODULES"; exit 75',
        scontrol='echo "scontrol $*"',
    ) | {"MMCL_JAX_ROOT": str(tmp_path), "SLURM_JOB_ID": "9"}
    environ |= {"SLURM_ARRAY_JOB_ID": "9", "SLURM_JOB_NUM_NODES": "3"}
    # a job has what the script says, whatever it was submitted from
    environ.pop("MMCL_JAX_MODULES")
    for index, run in enumerate(made):
        done = subprocess.run(
            ["bash", str(path)], env=environ | {"SLURM_ARRAY_TASK_ID": str(index)}
        )
        assert done.returncode == RUN_AGAIN
        said = (out / "runs" / run.name / layout.OUTPUT).read_text()
        # one task a node, since nothing else was said; this job alone is queued again
        assert "--ntasks=3 " in said and "--coordinator=auto" in said
        assert f"--workdir={out}/runs/{run.name}\n" in said
        assert f"own: {pathlib.Path('my own.py').absolute()}\n" in said
        assert f"scontrol requeue 9_{index}\n" in said


SWEEP = """
from mmcl_jax.sweeps.runs import Sweep, grid

def get_sweep(argument):
    variants = {{"ridge": ("ridge", {{}}), "comm": ("comm", {{}})}}
    return Sweep(grid({world!r}, variants, ["random"], [0], "smoke"))
"""


@pytest.fixture
def start(tmp_path: pathlib.Path) -> Callable[..., helpers.Finished]:
    """Calls the program on a sweep of two runs."""
    file = tmp_path / "mine.py"
    file.write_text(SWEEP.format(world=str(WORLD)))

    def call(**given: str) -> helpers.Finished:
        given = {"sweep": str(file), "out": str(tmp_path / "out")} | given
        words = [f"--{name}={value}" for name, value in given.items()]
        (done,) = run_each("mmcl_jax.sweep", [words], tmp_path)
        return done

    return call


def test_a_sweep_is_written_for_an_engine_and_submitted_when_asked(
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    start: Callable[..., helpers.Finished],
) -> None:
    program = f'echo "$(basename $0) $*" >>{tmp_path}/said'
    environ = _commands(tmp_path / "bin", sbatch=program, kubectl=program)
    monkeypatch.setenv("PATH", environ["PATH"])
    done = start(engine="slurm", partition="gpu", time="4:00:00")
    file = tmp_path / "out" / slurm.NAME
    assert (done.code, done.errors) == (0, "")
    assert f"to submit: sbatch {file}" in done.output
    assert "#SBATCH --time=4:00:00\n" in file.read_text()
    assert not (tmp_path / "said").exists()
    assert (tmp_path / "out/runs/comm/random/0/config.json").is_file()
    done = start(engine="jobset", submit="true")
    assert (done.code, done.errors) == (0, "")
    made = tmp_path / "out" / jobset.NAME
    assert (tmp_path / "said").read_text() == f"kubectl apply -f {made}\n"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"partition": "gpu"}, "--partition: only with --engine=slurm"),
        ({"engine": "slurm", "pods_out": "/x"}, "--pods_out: only with"),
        ({"submit": "true"}, "--submit: only with --engine=slurm or jobset"),
        ({"engine": "jobset", "manifest": "none.yaml"}, "none.yaml: no such file"),
        ({"engine": "slurm", "submit": "true"}, "--submit: sbatch "),
    ],
)
def test_wrong_flags_are_named(
    given: dict[str, str],
    message: str,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    start: Callable[..., helpers.Finished],
) -> None:
    environ = _commands(tmp_path / "bin", sbatch="exit 3")
    monkeypatch.setenv("PATH", environ["PATH"])
    done = start(**given)
    assert done.code == 2
    assert message in done.errors
    assert len(done.errors.strip().splitlines()) == 1


def test_gathering_names_what_has_not_ended(
    tmp_path: pathlib.Path, start: Callable[..., helpers.Finished]
) -> None:
    start(engine="slurm")
    output = tmp_path / "out" / "runs" / "comm" / "random" / "0" / layout.OUTPUT
    output.write_text("one\nerror: no room\n")
    done = start(gather="true")
    assert (done.code, done.errors) == (0, "")
    assert "2 runs, 0 of them finished" in done.output
    assert "comm/random/0: error: no room" in done.output
    assert "ridge/random/0: no output yet" in done.output


# TPU pods


def test_a_slice_gets_the_project_and_the_flags(tmp_path: pathlib.Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    # a slice of one machine, which is this folder; it makes no environment
    gcloud = f"""cd {home}
local={tmp_path}/bin/local
echo "$@" >>{tmp_path}/said
case "$4" in
  scp) cp "$5" "${{6#*:}}";;
  ssh) command="${{8#--command=}}"; bash -c "${{command/launch\\/local.sh/$local}}";;
esac"""
    local = 'echo "$MMCL_JAX_EXTRA"; printf "%s\\n" "$@"; ls mmcl_jax/main.py'
    words = ["--config=configs/demo.py", "--config.stream.modalities=('image', 'text')"]
    environ = _commands(tmp_path / "bin", gcloud=gcloud, local=local)
    environ.pop("MMCL_JAX_EXTRA", None)
    done = subprocess.run(
        ["/bin/bash", str(LAUNCH / "tpu_pod.sh"), "pod", "us-west4-a", *words],
        env=environ,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "tpu",
        "--coordinator=auto",
        *words,
        "mmcl_jax/main.py",
    ]
    assert (tmp_path / "said").read_text().count("--zone=us-west4-a --worker=all") == 2
