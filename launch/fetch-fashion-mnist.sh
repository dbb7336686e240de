#!/usr/bin/env bash
# Fetches Fashion-MNIST (31 MB, MIT licence) once and prints the folder of its four IDX files.
#
#   launch/fetch-fashion-mnist.sh [DIR]
#
# DIR is a folder in the cache unless given. Debian's package goes first, the data set's public
# address second. Needs no other file: `tessera data fetch fashion_mnist` has this one in it.
set -euo pipefail

say() { printf '%s\n' "$*" >&2; }
die() {
  say "error: $*"
  exit 1
}

dir=${1:-${XDG_CACHE_HOME:-$HOME/.cache}/tessera/fashion-mnist}
address=http://fashion-mnist.s3-website.eu-central-1.amazonaws.com
names=({train,t10k}-{images-idx3,labels-idx1}-ubyte.gz)

# Debian compressed the files again: only the bytes inside are the same everywhere.
check() {
  local sum
  sum=$(gzip -dc "$1" | sha256sum)
  [[ ${sum%% *} == "$2" ]] || die "$1 is not the file it should be (sha256 of its content)"
}

# Runs after ||, where bash does not stop at a failure by itself.
from_apt() (
  cd "$1" && apt_download >&2 &&
    dpkg-deb -x dataset-fashion-mnist_*.deb package &&
    mv package/usr/share/datasets/fashion-mnist/*.gz . &&
    rm -r package dataset-fashion-mnist_*.deb
)

apt_download() {
  command -v apt-get >/dev/null || return 1
  apt-get download -qq dataset-fashion-mnist 2>/dev/null && return
  ((EUID == 0)) && apt-get update -qq && apt-get download -qq dataset-fashion-mnist
}

from_address() {
  local name
  command -v curl >/dev/null || die "neither apt-get nor curl could fetch Fashion-MNIST"
  for name in "${names[@]}"; do
    curl --fail --silent --show-error --retry 3 --output "$1/$name" "$address/$name"
  done
}

if [[ ! -d $dir ]]; then
  mkdir -p "$(dirname "$dir")"
  unfinished=$(mktemp -d "$dir.XXXXXX")
  trap 'rm -rf "$unfinished"' EXIT
  chmod 755 "$unfinished"
  say "fashion-mnist: downloading 31 MB"
  from_apt "$unfinished" || from_address "$unfinished"
  check "$unfinished/train-images-idx3-ubyte.gz" \
    c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888
  check "$unfinished/t10k-images-idx3-ubyte.gz" \
    5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b
  # When two run at once, the first to finish wins and both have the same files.
  mv -T "$unfinished" "$dir" 2>/dev/null || [[ -d $dir ]]
fi
for name in "${names[@]}"; do
  [[ -e $dir/$name ]] || die "$dir is there but holds no $name; remove it and run this again"
done
printf '%s\n' "$dir"
