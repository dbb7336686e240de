#!/usr/bin/env bash
# Trains over MPICH: the worker is built against it, and started by its mpirun, bare and under the launcher. Every figure
# has to be that of a run over Open MPI. Debian's packages of MPICH are unpacked into the cache and not installed:
# installed, they and Open MPI's would share the name mpirun.
#
#   launch/test-mpich.sh [--fetch]        --fetch: only gets MPICH
set -euo pipefail
# shellcheck source=launch/env.sh
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"
cd "$tessera_root"

mpich=$tessera_cache/mpich
libraries=$mpich/usr/lib/$(gcc -print-multiarch)
if [[ ! -x $mpich/usr/bin/mpirun.mpich ]]; then
  command -v apt-get >/dev/null || die "no apt-get here to get MPICH with"
  say "MPICH: unpacking it into $mpich"
  work=$(mktemp -d)
  chmod 755 "$work"
  (
    cd "$work"
    apt-get update -qq
    # With what they need and a plain system has not.
    slurm=$(apt-cache depends mpich | sed -n 's/.*Depends: \(libslurm[0-9]*\).*/\1/p')
    # shellcheck disable=SC2086
    apt-get download -qq mpich libmpich12 libmpich-dev libucx0 libgfortran5 libhwloc15 $slurm
    for package in *.deb; do dpkg -x "$package" unpacked; done
  ) >&2
  rm -rf "$mpich" && mv "$work/unpacked" "$mpich"
  rm -r "$work"
fi
# The one of the package names the folders that it would be installed in.
cat >"$mpich/mpicc" <<END
#!/bin/sh
[ "\$1" = -show ] && exec echo gcc -I$libraries/mpich/include -L$libraries -lmpich
exec gcc -I$libraries/mpich/include "\$@" -L$libraries -lmpich
END
chmod +x "$mpich/mpicc"
[[ ${1:-} != --fetch ]] || exit 0

cargo build --release --locked -p tessera-cli -p tessera-worker
# What does not know of MPI is as in the other folder: linked from there, it is not compiled again.
release=$CARGO_TARGET_DIR/release target=$CARGO_TARGET_DIR/mpich
rm -rf "$target"
mkdir -p "$target/release/deps"
cp -a "$release/.fingerprint" "$release/build" "$target/release"
# Folders in there are those of compilers that were stopped.
find "$release/deps" -maxdepth 1 -name '*.d' -exec cp -a -t "$target/release/deps" {} +
find "$release/deps" -maxdepth 1 \( -name '*.rlib' -o -name '*.rmeta' -o -name '*.a' -o -name '*.so' -o -name 'tessera-*' \) \
  -not -name '*.d' -exec ln -t "$target/release/deps" {} +
cargo clean --quiet --release --locked -p mpi-sys --target-dir "$target"
# Both, as above: the worker alone would be built with other features of what they share. What it computes is
# libtorch's work, so what lies between it and MPI is built in the shortest time.
fast=()
for crate in tessera-apply tessera-comm tessera-train tessera-worker; do
  fast+=(--config "profile.release.package.$crate.opt-level=0" --config "profile.release.package.$crate.debug=false")
done
MPICC=$mpich/mpicc cargo build --release --locked "${fast[@]}" -p tessera-cli -p tessera-worker --target-dir "$target"
# libmpich's own, and those that it needs.
export LD_LIBRARY_PATH=$libraries
# Not through a pipe to grep -q, which hangs up as soon as it has found what it looks for.
[[ $(ldd "$target/release/tessera-worker") == *libmpich* ]] || die "the worker is not linked to MPICH"

runs=$(mktemp -d)
trap 'rm -rf "$runs"' EXIT
train=(train --config configs/smoke.toml --resume never)
tessera=$CARGO_TARGET_DIR/release/tessera
# Three runs side by side. Each writes what it says to a file, which is shown if it fails.
over_open_mpi() {
  LD_LIBRARY_PATH='' "$tessera" launch --nproc 2 -- "${train[@]}" --run-dir "$runs/openmpi"
}
over_mpich_by_its_mpirun_alone() {
  "$mpich/usr/bin/mpirun.mpich" -n 2 "$target/release/tessera-worker" "${train[@]}" --run-dir "$runs/bare"
}
# The launcher names who was killed here too, and goes on.
over_mpich_by_the_launcher_a_worker_killed() {
  TESSERA_FAULTS=rank=1,step=30,at=backward,do=kill TESSERA_WORKER=$target/release/tessera-worker \
    "$tessera" launch --mpirun "$mpich/usr/bin/mpirun.mpich" --nproc 2 --max-restarts 1 -- \
    "${train[@]/never/auto}" --run-dir "$runs/killed"
}
declare -A running
for name in over_open_mpi over_mpich_by_its_mpirun_alone over_mpich_by_the_launcher_a_worker_killed; do
  say "${name//_/ }"
  $name >"$runs/$name.log" 2>&1 &
  running[$name]=$!
done
for name in "${!running[@]}"; do
  wait "${running[$name]}" || die "${name//_/ }: $(cat "$runs/$name.log")"
done
grep -rq 'PMI_SIZE' "$runs/bare/logs" || die "the log does not say that MPICH has started it"
grep -q 'rank 1' "$runs/killed"/failures/*.json || grep -q '"rank": *1' "$runs/killed"/failures/*.json ||
  die "rank 1 was not named: $(cat "$runs/over_mpich_by_the_launcher_a_worker_killed.log")"
for run in bare killed; do
  cmp "$runs/openmpi/eval.jsonl" "$runs/$run/eval.jsonl" || die "$run differs from the run over Open MPI"
done
say "the same figures over MPICH as over Open MPI"
