#!/usr/bin/env bash
# Builds images: docker/build.sh [IMAGE...], all of train, serve and mlflow by default.
#
# Environment: ENGINE (docker or buildah; by default the first that works), VARIANT (cpu or gpu, of
# train), PYTHON_IMAGE, PREFIX (before the names, as in registry.example/team/), PUSH (yes: to the
# registry instead of this machine's images, and say under which digest; docker only), SOURCE
# (address of the repository, for the label), SOURCE_DATE_EPOCH (by default the time of the commit),
# TORCH_PIP_ARGS, and pip's own: PIP_CONFIG_FILE, PIP_CERT, PIP_FIND_LINKS (a folder). What pip is
# given stays in no image.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() {
  echo "images: $*" >&2
  exit 1
}

engine=${ENGINE:-}
if [ -z "$engine" ]; then
  if docker info >/dev/null 2>&1; then
    engine=docker
  elif command -v buildah >/dev/null; then
    engine=buildah
  else
    fail "neither a running docker nor buildah: install one of them, or name one: ENGINE=docker"
  fi
fi

version=$(sed -n '/^version = /{s/^version = "\(.*\)"$/\1/p;q}' pyproject.toml)
revision=$(git rev-parse HEAD 2>/dev/null || echo unknown)
epoch=${SOURCE_DATE_EPOCH:-$(git show --no-patch --format=%ct HEAD 2>/dev/null || echo 0)}
variant=${VARIANT:-cpu}

options=(
  --file docker/Dockerfile
  --build-arg "VERSION=$version"
  --build-arg "REVISION=$revision"
  --build-arg "CREATED=$(date -u -d "@$epoch" +%Y-%m-%dT%H:%M:%SZ)"
  --build-arg "SOURCE=${SOURCE:-}"
  --build-arg "VARIANT=$variant"
)
[ -z "${PYTHON_IMAGE:-}" ] || options+=(--build-arg "PYTHON_IMAGE=$PYTHON_IMAGE")
[ -z "${TORCH_PIP_ARGS:-}" ] || options+=(--build-arg "TORCH_PIP_ARGS=$TORCH_PIP_ARGS")
[ ! -f "${PIP_CONFIG_FILE:-}" ] || options+=(--secret "id=pip,src=$PIP_CONFIG_FILE")
[ ! -f "${PIP_CERT:-}" ] || options+=(--secret "id=ca,src=$PIP_CERT")
[ ! -d "${PIP_FIND_LINKS:-}" ] || options+=(--build-context "wheels=$PIP_FIND_LINKS")

case $engine in
  docker)
    digests=$(mktemp)
    trap 'rm -f "$digests"' EXIT
    build=(docker buildx build --load)
    [ "${PUSH:-}" != yes ] ||
      build=(docker buildx build --push --provenance=mode=max --sbom=true --metadata-file "$digests")
    ;;
  buildah)
    [ "${PUSH:-}" != yes ] || fail "PUSH=yes needs docker; with buildah: buildah push IMAGE"
    export BUILDAH_LAYERS=${BUILDAH_LAYERS:-true}
    # OCI's own format holds no health check.
    build=(buildah build --format docker --timestamp "$epoch")
    ;;
  *) fail "ENGINE=$engine: expected docker or buildah" ;;
esac

images=("$@")
[ $# -gt 0 ] || images=(train serve mlflow)
for image in "${images[@]}"; do
  case $image in
    train) tag=$version$([ "$variant" = cpu ] || echo "-$variant") ;;
    serve | mlflow) tag=$version ;;
    *) fail "$image: expected train, serve or mlflow" ;;
  esac
  name=${PREFIX:-}xcflow-$image:$tag
  echo "images: $name" >&2
  SOURCE_DATE_EPOCH=$epoch "${build[@]}" "${options[@]}" --target "$image" --tag "$name" .
  if [ "${PUSH:-}" = yes ]; then
    digest=$(sed -n 's/.*"containerimage.digest": "\(.*\)".*/\1/p' "$digests")
    echo "$name@$digest" | tee -a "${GITHUB_STEP_SUMMARY:-/dev/null}"
  fi
done
