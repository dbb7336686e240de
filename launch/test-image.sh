#!/usr/bin/env bash
# Builds the image of docker/Dockerfile.cpu and trains in it: alone, and on two hosts that a third one reaches by ssh, as
# docker/compose.yaml has it. With Docker where an engine is at hand; otherwise (root, Debian's buildah and
# debootstrap) its steps run in a chroot on a base made by debootstrap, and the hosts are network namespaces.
#
#   launch/test-image.sh [--whole] DIR    leaves DIR/runs/alone and DIR/runs/hosts
#
# The programs are those of the target folder; --whole compiles them in the image, which takes minutes.
set -euo pipefail
# shellcheck source=launch/env.sh
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"
cd "$tessera_root"

programs=prebuilt
if [[ ${1:-} == --whole ]]; then
  programs=build
  shift
fi
[[ $# == 1 ]] || die "usage: launch/test-image.sh [--whole] DIR"
mkdir -p "$1"
dir=$(cd "$1" && pwd)

image=localhost/tessera:cpu
train=(train --config configs/smoke.toml --set train.steps=60 --set eval.every=30 --set train.precision=fp64)

# Programs and libtorch as docker/build.sh leaves them.
prebuilt() {
  rm -rf docker/prebuilt
  local programs=docker/prebuilt/usr/local/bin libtorch=docker/prebuilt/opt/tessera/libtorch-2.11.0-cpu/lib
  mkdir -p $programs $libtorch
  strip -o $programs/tessera "$CARGO_TARGET_DIR/release/tessera"
  strip -o $programs/tessera-worker "$CARGO_TARGET_DIR/release/tessera-worker"
  cp "${LIBTORCH:-.libtorch}"/lib/*.so* $libtorch
}

with_docker() {
  [[ $programs == build ]] || prebuilt
  docker build -q -f docker/Dockerfile.cpu --build-arg PROGRAMS=$programs -t $image .
  mkdir -p "$dir/runs" && chmod 777 "$dir/runs"
  docker run --rm --init --shm-size 1g -v "$dir/runs:/home/tessera/runs" $image \
    launch --nproc 2 -- "${train[@]}" --run-dir runs/alone
  local compose=(docker compose -f docker/compose.yaml -p "tessera-$$")
  TESSERA_IMAGE=$image "${compose[@]}" up --exit-code-from head
  "${compose[@]}" cp head:/home/tessera/runs/compose "$dir/runs/hosts"
  "${compose[@]}" down --volumes
}

# Leaves nothing but the runs: no host, no mount, no image.
clean_up() {
  [[ ! -e $dir/hosts ]] || launch/test-hosts.sh down "$dir/hosts"
  # Whoever was killed could not give back its mounts.
  findmnt --raw --noheadings --output TARGET | grep "^$dir/" | sort --reverse | xargs --no-run-if-empty umount
  rm -rf "$dir/store" "$dir/run" "$dir/keys" "$dir/base" "$dir/builder" docker/prebuilt
}

# A base as debootstrap makes it; with this machine's Rust it is the builder, too.
base() {
  local archive
  archive=$(debian)
  printf 'FROM scratch\nADD %s /\n' "$(basename "$archive")" >"$dir/base"
  "${buildah[@]}" bud -q --isolation chroot -f "$dir/base" -t localhost/debian "$(dirname "$archive")"
  if [[ $programs == build ]]; then
    printf 'FROM localhost/debian\nCOPY . /usr/local\n' >"$dir/builder"
    "${buildah[@]}" bud -q --isolation chroot -f "$dir/builder" -t localhost/rust "$(rustc --print sysroot)"
  fi
}

# Runs a command in the image, as its user, in a host's namespace.
on() {
  local host=$1
  shift
  launch/test-hosts.sh run "$dir/hosts" "$host" "${buildah[@]}" run --isolation chroot --user tessera \
    --volume "$dir/keys:/home/tessera/.ssh" --volume "$dir/runs:/home/tessera/runs" \
    --volume "$dir/hosts/hosts:/etc/hosts:ro" --volume /dev/shm:/dev/shm --env HOME=/home/tessera \
    --hostname "$host" "$container" -- "$@"
}

without_docker() {
  local program
  for program in buildah debootstrap ip; do
    command -v $program >/dev/null || die "neither a Docker engine nor $program: apt-get install buildah debootstrap iproute2"
  done
  ((EUID == 0)) || die "no Docker engine; without one this needs root"
  # vfs copies every layer, and works everywhere.
  local driver=overlay
  buildah --root "$dir/store" --runroot "$dir/run" --storage-driver overlay info >/dev/null 2>&1 || driver=vfs
  buildah=(buildah --root "$dir/store" --runroot "$dir/run" --storage-driver $driver)
  trap clean_up EXIT
  [[ $programs == build ]] || prebuilt
  base
  # Certificates of this machine, for its way to the registries.
  "${buildah[@]}" bud -q --isolation chroot --volume /etc/ssl/certs:/etc/ssl/certs:ro -f docker/Dockerfile.cpu \
    --build-arg BUILDER=localhost/rust --build-arg BASE=localhost/debian --build-arg PROGRAMS=$programs -t $image .
  container=$("${buildah[@]}" from $image)

  mkdir -p "$dir/keys" "$dir/runs"
  chmod 700 "$dir/keys"
  chown 1000:1000 "$dir/keys" "$dir/runs"
  launch/test-hosts.sh up "$dir/hosts" head host1 host2
  on head id -un | grep -qx tessera || die "the image's user is not tessera"
  on head tessera launch --nproc 2 -- "${train[@]}" --run-dir runs/alone
  local host
  for host in host1 host2; do
    (exec >"$dir/$host.log" 2>&1 </dev/null && on $host tessera-host serve) &
  done
  for host in host1 host2; do
    local tries=0
    until on head ssh $host true; do
      ((++tries < 60)) || die "no ssh to $host: $(cat "$dir/$host.log")"
      sleep 0.5
    done
  done
  on head tessera launch --hosts host1:1,host2:1 --max-restarts 3 --min-workers 1 -- "${train[@]}" --run-dir runs/hosts
}

if docker info >/dev/null 2>&1; then
  say "image: by Docker"
  with_docker
else
  say "image: no Docker engine; by buildah, in a chroot"
  without_docker
fi

