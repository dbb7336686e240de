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
((EUID == 0)) || die "a root folder of its own takes root"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
debian >"$work/base"
mkdir "$work/root"
tar -C "$work/root" -xf "$(cat "$work/base")"
say "empty machine: $(cat "$work/root/etc/debian_version") in $work/root"

# Rust as rustup would leave it, less what is not its own.
cp -r "$(rustc --print sysroot)"/{bin,lib} "$work/root/usr/local/"
# This machine's way to the registries.
for file in /etc/resolv.conf /etc/pip.conf /etc/ssl/certs/ca-certificates.crt; do
  [[ -e $file ]] && install -D -m 644 "$file" "$work/root$file"
done
[[ -e ${CARGO_HOME:-$HOME/.cargo}/config.toml ]] &&
  install -D -m 644 "${CARGO_HOME:-$HOME/.cargo}/config.toml" "$work/root/root/.cargo/config.toml"
cp -n /etc/apt/apt.conf.d/* "$work/root/etc/apt/apt.conf.d/" 2>/dev/null || true
git clone -q . "$work/root/root/tessera"

variables=(HOME=/root TERM=dumb LANG=C.UTF-8 PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin)
for name in SSL_CERT_FILE CARGO_HTTP_CAINFO PIP_CERT http_proxy https_proxy no_proxy; do
  [[ -n ${!name:-} ]] && variables+=("$name=${!name}")
done
# Its own mounts and processes, so that all of them end with it.
unshare --mount --pid --fork --kill-child bash -euc '
  root=$1 page=$2
  shift 2
  mount --rbind /dev "$root/dev"
  mount -t sysfs none "$root/sys"
  mount -t proc none "$root/proc"
  exec chroot "$root" env -i "$@" /root/tessera/launch/follow.sh "/root/tessera/$page"
' bash "$work/root" "$page" "${variables[@]}"
say "empty machine: $page ran to its end, at $(git describe --always)"
