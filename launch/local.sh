#!/usr/bin/env bash
# Runs an experiment on this machine: bash launch/local.sh [flags of mmcl_jax.main]
#
# Creates .venv in the repository with $PYTHON, by default python3, and installs the
# dependencies, once: about 2 minutes and 1.4 GB. Paths in the flags are relative to the current folder. Without
# flags the demo runs, and writes runs/demo in the repository.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
prepare run
if [ $# -eq 0 ]; then
  cd "$ROOT"
  set -- --config=configs/demo.py --workdir=runs/demo
fi
exec "$VENV_PYTHON" -m mmcl_jax.main "$@"
