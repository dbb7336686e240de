#!/usr/bin/env bash
# Follows a page on an empty machine, word for word: a Debian that debootstrap makes, certificates, Rust, a clone of what
# is committed here, and nothing else. Needs root and Debian's debootstrap.
#
#   launch/test-empty.sh [PAGE]      docs/tutorial.md where no page is named
set -euo pipefail
# shellcheck source=launch/env.sh
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"
cd "$tessera_root"

page=${1:-docs/tutorial.md}
[[ -f $page ]] || die "no page $page"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
make_root_with_rust "$work/root"
say "empty machine: $(cat "$work/root/etc/debian_version") in $work/root"

in_root "$work/root" /root/tessera/launch/follow.sh "/root/tessera/$page"
say "empty machine: $page ran to its end, at $(git describe --always)"
