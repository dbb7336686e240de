#!/bin/bash
# Builds the programs in an image and puts them, with their libtorch, into /out as they shall lie in the other.
#
#   docker/build.sh cpu|cuda
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# libtorch goes where it shall lie, since programs are linked to its place.
XDG_CACHE_HOME=/opt launch/setup.sh "--$1"
cargo build --profile dist --locked -p tessera-cli -p tessera-worker
install -D -t /out/usr/local/bin target/dist/tessera target/dist/tessera-worker
prefix=/opt/tessera/libtorch-2.11.0-$1
mkdir -p "/out$prefix"
if [[ $1 == cpu ]]; then
  cp -r "$prefix/lib" "/out$prefix"
else
  # torch/lib finds nvidia/*/lib beside it. Programs that run need no headers.
  mkdir "/out$prefix/torch"
  cp -r "$prefix/torch/lib" "/out$prefix/torch"
  cp -r "$prefix/nvidia" "/out$prefix"
  find "/out$prefix" -name include -prune -exec rm -r {} +
fi
