#!/bin/sh
# Installs the packages of locks into /opt/venv, each file checked against its hash. Runs while an
# image is built, in a stage that does not stay.
#
#     install.sh packages LOCK...             what locks name
#     install.sh torch cpu|gpu TORCH_LOCK     torch; for cpu only its version is taken from the lock
#     install.sh xcflow FOLDER                the wheel in a folder, whose packages are there already
#     install.sh check                        whether all that was installed agrees
set -eu

fail() {
  echo "install: $*" >&2
  exit 1
}

environment=/opt/venv
# What the builder of the image may hand in: certificates, and files that no index has.
[ ! -f /run/secrets/ca ] || export PIP_CERT=/run/secrets/ca
[ ! -d /wheels ] || export PIP_FIND_LINKS=/wheels
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_ROOT_USER_ACTION=ignore
[ -d $environment ] || python3 -m venv --without-pip $environment

# pip stays outside of the environment, so that no image has it there.
pip() { python3 -m pip --python $environment/bin/python "$@"; }
install() { pip -q install --no-compile --no-deps "$@"; }
# Nothing can be written where it runs. By content, because files' times change with each build.
# Tests are never imported, and some are written for another Python.
compile() {
  $environment/bin/python -m compileall -q -j 0 -x '/(tests?|testing/_internal)/' \
    --invalidation-mode unchecked-hash "$@"
}

task=$1
shift
case $task in
  packages)
    for lock in "$@"; do
      # One package comes as source only: the locked setuptools builds it, not whichever is newest.
      awk '/^[a-z]/ { keep = /^setuptools==/ } keep' "$lock" >/tmp/setuptools.lock
      install --require-hashes -r /tmp/setuptools.lock
      install --require-hashes --no-build-isolation --use-pep517 -r "$lock"
    done
    compile $environment/lib
    ;;
  torch)
    if [ "$1" = gpu ]; then
      install --require-hashes -r "$2"
    else
      # shellcheck disable=SC2086  # several words by design
      install ${TORCH_PIP_ARGS:-} "$(sed -n 's/^\(torch==[^ ]*\).*/\1/p' "$2")"
      if $environment/bin/python -c 'import sys, importlib.metadata as m; sys.exit(not any("nvidia" in r for r in m.requires("torch")))'; then
        fail "pip took the CUDA build of torch; point it to the CPU builds: --build-arg TORCH_PIP_ARGS='--index-url URL', or build with VARIANT=gpu"
      fi
    fi
    compile $environment/lib/python*/site-packages/torch
    ;;
  xcflow)
    install "$1"/*.whl
    compile $environment/lib/python*/site-packages/xcflow*
    ;;
  check) pip check ;;
  *) fail "no task $task" ;;
esac
