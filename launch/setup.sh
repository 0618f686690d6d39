# shellcheck shell=bash
# Sourced by the scripts beside it. `prepare run` or `prepare test` makes a virtual
# environment with the dependencies of the project: $ROOT is the repository,
# $VENV_PYTHON the Python of the environment. MMCL_JAX_EXTRA selects the platform of JAX
# by an extra of pyproject.toml; the default is CUDA if there is a GPU. Stamps inside
# the environment make a second call return at once; they are written last, so that an
# interrupted installation is repeated.

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)"
VENV="$ROOT/.venv"
VENV_PYTHON="$VENV/bin/python"

_fail() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

_supported() {
  "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
    >/dev/null 2>&1
}

_version() {
  "$1" -c 'import platform; print(platform.python_version())' 2>/dev/null ||
    echo "not a working Python"
}

# Prints the Python to create the environment with.
_find_python() {
  local candidate
  if [ -n "${PYTHON:-}" ]; then
    _supported "$PYTHON" ||
      _fail "PYTHON=$PYTHON is $(_version "$PYTHON"); expected Python 3.11, 3.12 or 3.13"
    echo "$PYTHON"
    return
  fi
  for candidate in python3 python3.13 python3.12 python3.11; do
    if _supported "$candidate"; then
      echo "$candidate"
      return
    fi
  done
  _fail "python3 is $(_version python3); expected Python 3.11, 3.12 or 3.13. Install" \
    "one, or name it: PYTHON=/path/to/python3.12 bash $0"
}

_make_venv() {
  local python
  python="$(_find_python)" || exit 1
  "$python" -c 'import ensurepip, venv' 2>/dev/null ||
    _fail "$python lacks the module venv or ensurepip; on Debian and Ubuntu:" \
      "apt install python3-venv"
  echo "creating $VENV with Python $(_version "$python")" >&2
  mkdir -p "$VENV"
  : >"$VENV/unfinished"
  "$python" -m venv "$VENV" >&2
  rm "$VENV/unfinished"
}

_check_venv() {
  _supported "$VENV_PYTHON" ||
    _fail "$VENV is $(_version "$VENV_PYTHON"); expected Python 3.11, 3.12 or 3.13." \
      "Remove it and run this again"
  if [ -n "${PYTHON:-}" ] && [ "$(_version "$PYTHON")" != "$(_version "$VENV_PYTHON")" ]
  then
    _fail "$VENV was made with Python $(_version "$VENV_PYTHON"), PYTHON=$PYTHON is" \
      "$(_version "$PYTHON"). Remove .venv, or leave PYTHON out"
  fi
}

# Prints what should be installed: if it differs from the stamp, install again.
_wanted() {
  (
    cd "$ROOT" || exit
    echo "$ROOT $1 $(_version "$VENV_PYTHON")"
    cksum pyproject.toml requirements.txt requirements.lock
  )
}

prepare() {
  local extras="${MMCL_JAX_EXTRA:-}" wanted
  # only an environment that an interrupted call left unfinished is removed
  if [ -e "$VENV/unfinished" ]; then rm -rf "$VENV"; fi
  if [ ! -e "$VENV" ]; then _make_venv; fi
  _check_venv
  if [ -z "$extras" ] && [ "$(uname -s)" = Linux ] && nvidia-smi -L >/dev/null 2>&1
  then
    extras="cuda12"
  fi
  wanted="$(_wanted "$extras")"
  if [ "$(cat "$VENV/installed-$1" 2>/dev/null)" = "$wanted" ]; then return; fi
  "$VENV_PYTHON" -m pip --version >/dev/null 2>&1 ||
    _fail "$VENV has no pip. Remove it and run this again"
  rm -f "$VENV"/installed-*
  if [ "$1" = test ]; then extras="test${extras:+,$extras}"; fi
  echo "installing dependencies into $VENV, once: about 2 minutes and" \
    "1.4 GB${extras:+, more with $extras}" >&2
  # of the modules that are installed a fraction is imported, and compiled then: compiling
  # all of them would take as long as all else
  "$VENV_PYTHON" -m pip install --disable-pip-version-check --no-compile \
    --constraint "$ROOT/requirements.lock" --editable "$ROOT${extras:+[$extras]}" >&2
  # the dependencies of tests include those of runs
  if [ "$1" = test ]; then echo "$wanted" >"$VENV/installed-test"; fi
  echo "$wanted" >"$VENV/installed-run"
}
