"""A SLURM cluster of one node, of the real daemons, for the length of a test."""

import contextlib
import getpass
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

from tests import helpers

DAEMONS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol")
_PATIENCE = 240.0  # seconds

_CONF = """\
ClusterName=test
SlurmctldHost=localhost
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
SchedulerParameters=batch_sched_delay=0,sched_min_interval=0,sched_interval=1,bf_interval=1
KillWait=60
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
ReturnToService=2
NodeName=localhost NodeAddr=127.0.0.1 NodeHostname={host} CPUs=4 State=UNKNOWN
PartitionName=main Nodes=localhost Default=YES PriorityTier=1 GraceTime=60
PartitionName=urgent Nodes=localhost PriorityTier=2
"""


def missing() -> list[str]:
    """Returns which programs of SLURM and MUNGE are not on this machine."""
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    return [name for name in DAEMONS if shutil.which(name, path=path) is None]


class Cluster:
    """The commands of a cluster that is up."""

    def __init__(self, folder: pathlib.Path) -> None:
        """Makes a folder to submit from, which has an environment and the scripts."""
        self.folder, self.root = folder, folder / "repository"
        python = self.root / ".venv" / "bin" / "python"
        python.parent.mkdir(parents=True)
        python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
        python.chmod(0o755)
        for name in ("configs", "launch"):
            (self.root / name).symlink_to(helpers.REPOSITORY / name)
        self.environment = helpers.environment() | {
            "SLURM_CONF": str(folder / "slurm.conf"),
            "PYTHONPATH": str(helpers.REPOSITORY),
            "MMCL_JAX_ROOT": str(self.root),
            "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin",
        }

    def command(self, *words: str) -> str:
        """Runs a command in the repository and returns what it prints."""
        done = subprocess.run(
            words,
            cwd=self.root,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, f"{words}: {done.stdout}\n{self.logs()}"
        return done.stdout.strip()

    def submit(self, *words: str) -> str:
        """Submits a job and returns its number."""
        output = f"--output={self.folder}/job-%j.txt"
        return self.command("sbatch", "--parsable", output, *words)

    def job(self, number: str) -> dict[str, str]:
        """Returns what the controller knows of a job."""
        text = self.command("scontrol", "show", "job", "--oneliner", number)
        return dict(word.split("=", 1) for word in text.split() if "=" in word)

    def wait(self, number: str, *states: str) -> dict[str, str]:
        """Waits until a job is in one of some states; returns what is known of it."""
        end = time.monotonic() + _PATIENCE
        while (job := self.job(number))["JobState"] not in states:
            assert time.monotonic() < end, f"{job}\n{self.logs()}"
            time.sleep(0.1)
        return job

    def hasten(self, number: str) -> None:
        """Lets a job that was requeued start in seconds, and not in two minutes."""
        self.wait(number, "PENDING")
        self.command("scontrol", "update", f"JobId={number}", "StartTime=now+3")

    def logs(self) -> str:
        """Returns what daemons and jobs have said."""
        paths = [*self.folder.glob("*.log"), *self.folder.glob("job-*.txt")]
        return "\n".join(f"== {path}\n{path.read_text()}" for path in paths)


@contextlib.contextmanager
def cluster(folder: pathlib.Path) -> Iterator[Cluster]:
    """Starts the daemons in a folder, and ends them."""
    for name in ("state", "spool"):
        (folder / name).mkdir()
    conf = _CONF.format(
        ports=helpers.free_ports(2),
        user=getpass.getuser(),
        folder=folder,
        host=socket.gethostname().partition(".")[0],
    )
    (folder / "slurm.conf").write_text(conf)
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o600)
    made = Cluster(folder)
    munged = ["munged", "--foreground", "--force", f"--key-file={key}"]
    munged += [
        f"--{name}-file={folder}/munge.{name}" for name in ("pid", "log", "seed")
    ]
    daemons = [
        [*munged, f"--socket={folder}/munge.socket"],
        ["slurmctld", "-D", "-i"],
        ["slurmd", "-D", "-N", "localhost"],
    ]
    with contextlib.ExitStack() as stack:
        for words in daemons:
            log = stack.enter_context((folder / f"{words[0]}.out.log").open("w"))
            process = subprocess.Popen(
                words, env=made.environment, stdout=log, stderr=log
            )
            stack.callback(process.wait)
            stack.callback(process.terminate)
        end = time.monotonic() + 30
        while _state(made) != "idle":
            assert time.monotonic() < end, made.logs()
            time.sleep(0.2)
        yield made
        subprocess.run(
            ["scancel", "--full", "--user", getpass.getuser()],
            env=made.environment,
            check=False,
        )


def _state(made: Cluster) -> str:
    done = subprocess.run(
        ["sinfo", "--noheader", "--partition=main", "--format=%t"],
        env=made.environment,
        capture_output=True,
        text=True,
    )
    return done.stdout.strip()
