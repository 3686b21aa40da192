#!/usr/bin/env bash
# Builds .venv from requirements.lock, or returns at once when it already stands.
#
# torch is installed apart: the lock cannot name both its CPU and its CUDA build. Everything else
# is pinned by hash. The stamp is written last, so an interrupted set-up is done again.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() {
  echo "setup: $*" >&2
  exit 1
}

stamp=.venv/.complete
# A virtual environment holds absolute paths, so a moved one counts as another.
state() { pwd -P && cat requirements.lock pyproject.toml | cksum; }
is_complete() { [ -f "$stamp" ] && [ "$(state)" = "$(cat "$stamp")" ] && .venv/bin/python -c '' 2>/dev/null; }

is_complete && exit 0
if command -v flock >/dev/null; then
  exec 9>.venv.lock
  flock 9
  is_complete && exit 0
fi

python=
old=
for candidate in ${PYTHON:+"$PYTHON"} $([ -n "${PYTHON:-}" ] || echo python3.11 python3.12 python3.13 python3); do
  version=$("$candidate" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || continue
  if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    python=$candidate
    break
  fi
  old=$version
done
[ -n "$python" ] || fail "needs Python 3.11 or newer${old:+, found $old}; install it, or name it: make setup PYTHON=/path/to/python3.11"
"$python" -c 'import venv, ensurepip' 2>/dev/null ||
  fail "$python has no venv module; on Debian or Ubuntu: apt-get install python$version-venv"

export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_USER=0 PYTHONNOUSERSITE=1
unset PYTHONPATH PYTHONHOME PYTHONDONTWRITEBYTECODE
# Compiling 20,000 modules would take two thirds of the time; those in use are compiled at the end.
install() { .venv/bin/python -m pip -qq install --no-compile --no-deps "$@"; }

if [ "$(head -n 1 "$stamp" 2>/dev/null)" != "$(pwd -P)" ] || ! .venv/bin/python -c '' 2>/dev/null; then
  echo "setup: new environment in .venv with Python $version; some 2 GB on disk, a few minutes"
  "$python" -m venv --clear .venv || fail "$python could not create .venv"
fi
rm -f "$stamp"

torch=$(sed -n 's/^ *"\(torch==[0-9.]*\)",$/\1/p' pyproject.toml)
echo "setup: [1/3] $torch"
# shellcheck disable=SC2086  # several words by design
install ${TORCH_PIP_ARGS:-} "$torch" || fail "pip could not install $torch"
if .venv/bin/python -c 'import sys, importlib.metadata as m; sys.exit(not any("nvidia" in r for r in m.requires("torch") or ()))'; then
  fail "pip took the CUDA build of $torch; point it to the CPU builds: make setup TORCH_PIP_ARGS='--index-url URL'"
fi
echo "setup: [2/3] $(grep -c '^[a-zA-Z]' requirements.lock) locked packages"
# One package comes as source only: the locked setuptools builds it, not whichever is newest.
awk '/^[a-z]/ { keep = /^setuptools==/ } keep' requirements.lock >.venv/build.lock
install --require-hashes -r .venv/build.lock &&
  install --require-hashes --use-pep517 --no-build-isolation -r requirements.lock ||
  fail "pip could not install requirements.lock"
if compgen -G '.venv/lib/python*/site-packages/nvidia*' >/dev/null; then
  fail "requirements.lock brought nvidia packages into a CPU environment; find who asks for them: make lock"
fi
echo "setup: [3/3] xcflow itself, compiling what it imports"
install --no-build-isolation --editable . || fail "pip could not install xcflow itself"
# Compiled now, so that first calls are quick, and all calls where Python is to write no bytecode.
.venv/bin/python tools/compile_imports.py >/dev/null 2>&1 || fail "what was installed cannot be imported: .venv/bin/python tools/compile_imports.py says why"
state >"$stamp"
echo "setup: done"
