#!/usr/bin/env bash
# Checks style and types and runs the tests: bash launch/test.sh [flags of pytest]
#
# For instance: bash launch/test.sh -m "not slow"
# Makes .venv as local.sh does. Paths in the flags count from the repository.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
prepare test
cd "$ROOT"
"$VENV_PYTHON" -m ruff check .
"$VENV_PYTHON" -m ruff format --check .
# not the configuration of a folder above
"$VENV_PYTHON" -m basedpyright --project pyproject.toml
exec "$VENV_PYTHON" -m pytest -n auto --maxprocesses 4 --dist loadgroup "$@"
