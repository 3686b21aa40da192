#!/usr/bin/env bash
# Installs the programs that some service tests use and Python's packages cannot bring: a browser,
# PostgreSQL, and what builds images. Needs root and apt; elsewhere those tests skip with a reason.
set -euo pipefail

programs=(
  chromium                # the server's page
  postgresql              # the tracking server's database
  buildah runc mmdebstrap # images
)
missing=()
for program in "${programs[@]}"; do
  dpkg-query --show --showformat='${Status}' "$program" 2>/dev/null | grep -q 'ok installed' ||
    missing+=("$program")
done
[ "${#missing[@]}" -gt 0 ] || exit 0
if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
  echo "programs: not installed, tests that need them skip: ${missing[*]}" >&2
  exit 0
fi
export DEBIAN_FRONTEND=noninteractive
apt-get -qq update
apt-get -qq install --yes --no-install-recommends "${missing[@]}" >/dev/null
