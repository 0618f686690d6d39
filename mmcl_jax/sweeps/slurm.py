"""Runs of a sweep as an array of SLURM jobs."""

import pathlib
import shlex
from collections.abc import Mapping, Sequence

from mmcl_jax import plugins
from mmcl_jax.files import write_text
from mmcl_jax.sweeps import runs
from mmcl_jax.training import remote_names
from mmcl_jax.workdir.layout import OUTPUT

NAME = "sweep.sbatch"
SUBMIT = "sbatch"
_ROOT = pathlib.Path(__file__).parents[2]
_SCRIPT = _ROOT / "launch" / "slurm.sbatch"


def write(
    todo: Sequence[runs.SweepRun],
    out: pathlib.Path,
    options: Mapping[str, str],
    at_a_time: int | None,
) -> pathlib.Path:
    """Writes an array with one job per run, for `sbatch`.

    The list of the runs is part of the file, of which SLURM keeps a copy: later sweeps
    do not change what a waiting job will do. User-defined code is named in it; its
    files are read when a job starts.

    Args:
        todo: Runs whose configs are in `<out>/runs`.
        out: Folder of the sweep, which all nodes see.
        options: Options of sbatch by name, `_` for `-`; `SBATCH_*` variables and the
            script set the rest.
        at_a_time: Number of jobs that may run at once, None for all.

    Returns:
        The file.
    """
    out = out.resolve()
    limit = "" if at_a_time is None else f"%{at_a_time}"
    given = {
        "job-name": out.name,
        "array": f"0-{len(todo) - 1}{limit}",
        "output": str(out / "slurm-%A_%a.txt"),
    } | {name.replace("_", "-"): value for name, value in options.items()}
    # the job's own directives; #SBATCH lines of a script that it calls are not read
    lines = _SCRIPT.read_text(encoding="utf-8").splitlines()
    directives = [line for line in lines if line.startswith("#SBATCH")]
    directives = [line for line in directives if "--job-name" not in line]
    directives += [f"#SBATCH --{name}={shlex.quote(given[name])}" for name in given]
    allowed = sorted({flag for run in todo for flag in remote_names.flags(run.config)})
    flags = " ".join(['--workdir="$workdir"', *allowed])
    text = f"""#!/usr/bin/env bash
{chr(10).join(directives)}
# Made by launch/sweep.py: the runs of a sweep, one job each.
runs=(
{chr(10).join(f"  {shlex.quote(run.name)}" for run in todo)}
)
workdir={shlex.quote(str(out / "runs"))}/"${{runs[SLURM_ARRAY_TASK_ID]}}"
exec >"$workdir/{OUTPUT}" 2>&1
{_exported()}export MMCL_JAX_ROOT="${{MMCL_JAX_ROOT:-{shlex.quote(str(_ROOT))}}}"
exec bash {shlex.quote(str(_SCRIPT))} {flags}
"""
    path = out / NAME
    write_text(path, text)
    return path


def _exported() -> str:
    """Returns a line by which jobs find user-defined code, if there is any."""
    files = plugins.exported()
    return f"export {plugins.VARIABLE}={shlex.quote(files)}\n" if files else ""
