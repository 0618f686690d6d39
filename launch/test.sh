#!/usr/bin/env bash
# Checks style and types and runs the tests: bash launch/test.sh [flags of pytest]
#
# For instance: bash launch/test.sh -m "not slow"
# Tests that take minutes and cover few parts (a run that is killed again and again, a
# SLURM cluster, the wheel, the notebooks) run with --full, or with
# --full-since=REVISION if their part has changed since.
# Creates .venv as local.sh does. Paths in the flags are relative to the repository.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
prepare test
cd "$ROOT"

_check() {
  "$VENV_PYTHON" -m ruff check .
  "$VENV_PYTHON" -m ruff format --check .
  # explicitly, or a configuration in a parent folder might be used
  "$VENV_PYTHON" -m basedpyright --project pyproject.toml
}

# in parallel with the tests, which leave processors idle at their end; printed after
# them
said="$(mktemp)"
_check >"$said" 2>&1 &
checks=$!
trap 'kill "$checks" 2>/dev/null || true; rm -f "$said"' EXIT
code=0
"$VENV_PYTHON" -m pytest -n auto --maxprocesses 4 --dist loadgroup "$@" || code=$?
if ! wait "$checks"; then
  echo "error: style or types, see below" >&2
  if [ "$code" -eq 0 ]; then code=1; fi
fi
trap 'rm -f "$said"' EXIT
cat "$said"
exit "$code"
