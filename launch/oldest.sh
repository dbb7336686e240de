#!/usr/bin/env bash
# Makes the wheel (launch/wheel.sh) and the archive (launch/dist.sh) in the oldest system that is served, Debian 11 with glibc 2.31, so that they
# run on it and on whatever is newer. Needs root, debootstrap, Rust, and half an hour of two cores. Prints their paths.
#
#   launch/oldest.sh [--profile PROFILE] [--out DIR]     as of those
set -euo pipefail
# shellcheck source=launch/env.sh
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"
cd "$tessera_root"

profile=dist out=dist
while (($# > 0)); do
  case $1 in
    --profile) profile=$2 ;;
    --out) out=$2 ;;
    *) die "unknown option $1; usage: launch/oldest.sh [--profile PROFILE] [--out DIR]" ;;
  esac
  shift 2
done
mkdir -p "$out"
out=$(realpath "$out")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
make_root_with_rust "$work/root" bullseye
cat >"$work/root/root/make.sh" <<END
set -euo pipefail
cd /root/tessera
apt-get update -qq
apt-get install -y -qq --no-install-recommends binutils git >/dev/null
./launch/setup.sh --cpu
./launch/wheel.sh --profile $profile --out /root/out
./launch/dist.sh --profile $profile --out /root/out
END
in_root "$work/root" bash /root/make.sh >&2
cp "$work"/root/root/out/* "$out/"
ls "$out"/tessera-*
