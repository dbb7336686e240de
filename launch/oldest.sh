#!/usr/bin/env bash
# Makes the wheel (launch/wheel.sh) and the archive (launch/dist.sh) in the oldest system that is served, Debian 11 with glibc 2.31, so that they
# run on it and on whatever is newer. Needs root, debootstrap, Rust, and at first half an hour of two cores. Prints their paths.
#
#   launch/oldest.sh [--out DIR]     as in launch/packing.sh; TESSERA_PROFILE says how the programs are built, dist unless another is named
set -euo pipefail
# shellcheck source=launch/env.sh
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"
cd "$tessera_root"

profile=${TESSERA_PROFILE:-dist}
# The root stays in the cache, so that the next wheel takes minutes.
root=$tessera_cache/oldest
if [[ ! -e $root/complete ]]; then
  rm -rf "$root"
  make_root_with_rust "$root" bullseye
  touch "$root/complete"
fi
git -C "$root/root/tessera" fetch -q "$tessera_root" HEAD
git -C "$root/root/tessera" reset -q --hard FETCH_HEAD
cat >"$root/root/make.sh" <<END
set -euo pipefail
cd /root/tessera
apt-get update -qq
apt-get install -y -qq --no-install-recommends binutils git >/dev/null
git config --global --add safe.directory /root/tessera
./launch/setup.sh --cpu
. launch/env.sh
cargo build --profile $profile --locked -p tessera-cli -p tessera-worker
END
in_root "$root" bash /root/make.sh >&2
programs=$root/root/tessera/target/$profile
launch/wheel.sh --programs "$programs" "$@"
launch/dist.sh --programs "$programs" "$@"
