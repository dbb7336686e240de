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
((EUID == 0)) || die "a root folder of its own takes root"
mkdir -p "$out"
out=$(realpath "$out")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
debian bullseye >"$work/base"
mkdir "$work/root"
tar -C "$work/root" -xf "$(cat "$work/base")"
# Rust as rustup would leave it, and this machine's way to the registries.
cp -r "$(rustc --print sysroot)"/{bin,lib} "$work/root/usr/local/"
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
cat >"$work/root/root/make.sh" <<END
set -euo pipefail
cd /root/tessera
apt-get update -qq
apt-get install -y -qq --no-install-recommends binutils git >/dev/null
./launch/setup.sh --cpu
./launch/wheel.sh --profile $profile --out /root/out
./launch/dist.sh --profile $profile --out /root/out
END
unshare --mount --pid --fork --kill-child bash -euc '
  root=$1
  shift
  mount --rbind /dev "$root/dev"
  mount -t sysfs none "$root/sys"
  mount -t proc none "$root/proc"
  exec chroot "$root" env -i "$@" bash /root/make.sh
' bash "$work/root" "${variables[@]}" >&2
cp "$work"/root/root/out/* "$out/"
ls "$out"/tessera-*
