#!/usr/bin/env bash
# README's first command from the sources on an empty machine: a Debian that debootstrap makes, certificates, Rust, a clone of what is
# committed here, and nothing else. Needs root and Debian's debootstrap. What README and tutorial say of the wheel: launch/test-roots.sh.
set -euo pipefail
# shellcheck source=launch/env.sh
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"
cd "$tessera_root"

grep -q '^\./launch/demo\.sh ' README.md || die "README has another first command"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
make_root_with_rust "$work/root"
say "empty machine: $(cat "$work/root/etc/debian_version") in $work/root"
in_root "$work/root" bash -c "cd /root/tessera && TESSERA_DEMO_STEPS=${TESSERA_DEMO_STEPS:-40} ./launch/demo.sh"
say "empty machine: ./launch/demo.sh ran to its end, at $(git describe --always)"
