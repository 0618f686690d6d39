#!/usr/bin/env bash
# Runs an experiment on all machines of a TPU slice:
#   bash launch/tpu_pod.sh NAME ZONE [flags of mmcl_jax.main]
#
# Copies the project to each machine, creates .venv there, once, and starts the
# processes of one run, which find each other. --workdir must be on a disk that all
# machines mount. If a slice was preempted, recreate it; the same command resumes the
# run.
set -euo pipefail
ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)"
if [ $# -lt 3 ]; then
  echo "error: give a TPU's name, its zone and flags of mmcl_jax.main, for instance" \
    "my-tpu us-west4-a --config=configs/demo.py --workdir=/mnt/runs/demo" >&2
  exit 2
fi
name="$1" zone="$2"
shift 2

archive="$(mktemp -d)/mmcl_jax.tar.gz"
trap 'rm -r "$(dirname "$archive")"' EXIT
tar -C "$ROOT" -czf "$archive" --exclude='__pycache__' \
  pyproject.toml requirements.txt requirements.lock README.md LICENSE NOTICE \
  configs launch mmcl_jax
gcloud compute tpus tpu-vm scp "$archive" "$name:mmcl_jax.tar.gz" \
  --zone="$zone" --worker=all
# quoted, since the shell of each machine splits these words again
flags="$(printf ' %q' "$@")"
gcloud compute tpus tpu-vm ssh "$name" --zone="$zone" --worker=all --command="
  set -e
  mkdir -p mmcl_jax
  tar -C mmcl_jax -xzf mmcl_jax.tar.gz
  cd mmcl_jax
  MMCL_JAX_EXTRA=tpu exec bash launch/local.sh --coordinator=auto$flags"
