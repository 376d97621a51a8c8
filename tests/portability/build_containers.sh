#!/usr/bin/env bash
# Build both container files on a root of Debian 12 for this machine, and stream a bundle in each as its user.
#
#     sudo tests/portability/build_containers.sh build/containers
#
# It needs mmdebstrap and buildah, but no registry of images. The base images are replaced: NVIDIA's is not asked for, so
# the aarch64 file is built without the extra `tensorrt`, for the processor of this machine, with Debian's Python 3.11 and
# OpenCV. All other steps are those of the file. A certificate that pip needs: PIP_CERT.
set -euo pipefail
cd "$(dirname "$0")/../.."
folder="$(realpath -m "${1:?the folder for images}")"
export STORAGE_DRIVER=vfs BUILDAH_ISOLATION=chroot
mkdir -p "$folder"
buildah() { command buildah --root "$folder/images" --runroot "$folder/run" "$@"; }
trap 'buildah rm --all > /dev/null' EXIT

if ! buildah inspect --type image localhost/base &> /dev/null; then
  mmdebstrap --quiet --variant=minbase bookworm "$folder/base.tar" < /dev/null
  base="$(buildah from scratch)"
  buildah add -q "$base" "$folder/base.tar" / > /dev/null
  buildah commit -q "$base" localhost/base > /dev/null
fi
options=(--quiet --layers --network host --format docker --build-arg BASE=localhost/base)
if [ -n "${PIP_CERT:-}" ]; then
  options+=(--volume "$(realpath "$PIP_CERT"):/run/pip.crt:ro" --env PIP_CERT=/run/pip.crt --env REQUESTS_CA_BUNDLE=/run/pip.crt)
fi
for machine in x86_64 aarch64; do
  buildah build "${options[@]}" --build-arg EXTRAS=metrics -f "containers/Containerfile.$machine" -t "edge-hal-$machine" . > /dev/null
  container="$(buildah from "localhost/edge-hal-$machine")"
  echo "$machine:"
  buildah run --volume "$PWD/tests/data/0.1.0:/data:ro" "$container" -- /opt/edge-hal/bin/edge-hal run \
    --bundle /data/bundle --camera features:/data/stream.npy@20 --pace asap --json
  buildah run "$container" -- /opt/edge-hal/bin/edge-hal doctor || true # no camera here: it may say so and fail
done
