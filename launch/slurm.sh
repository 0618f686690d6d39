#!/usr/bin/env bash
#SBATCH --job-name=mmcl_jax
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:TERM@120
# Runs an experiment as a job: sbatch [its flags] launch/slurm.sh [flags of mmcl_jax.main]
#
# Two minutes before its time is up, or when it is taken off its nodes, the run saves its
# state and exits with 75; then the job is queued again and goes on from there. Run
# launch/local.sh once before, where there is a network: it makes the environment.
set -uo pipefail
# a job runs a copy of this script, and starts where it was sent off
ROOT="${MMCL_JAX_ROOT:-$SLURM_SUBMIT_DIR}"
readonly RUN_AGAIN=75

coordinator=()
if [ "${SLURM_NTASKS:-1}" -gt 1 ]; then coordinator=(--coordinator=auto); fi
srun "$ROOT/.venv/bin/python" -m mmcl_jax.main "${coordinator[@]}" "$@" &
run=$!
trap 'kill -TERM "$run"' TERM
wait "$run"
code=$?
# a signal ends the first wait before the run has saved
while kill -0 "$run" 2>/dev/null; do
  wait "$run"
  code=$?
done
if [ "$code" -eq "$RUN_AGAIN" ]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
