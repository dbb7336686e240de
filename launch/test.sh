#!/usr/bin/env bash
# Runs the tests: all that CI runs, those that a filter names, or everything.
#
#   launch/test.sh [arguments of cargo nextest run]
#   launch/test.sh --full     also what takes long: the tests named `full`, the whole fault matrix three
#                             times, 300 kills of one run (docs/testing.md)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

full=
if [[ ${1:-} == --full ]]; then
  full=1
  shift
  set -- --profile full "$@"
  export TESSERA_FUZZ_SECONDS=${TESSERA_FUZZ_SECONDS:-60}
fi

if [[ -n $full ]]; then wanted=full; else wanted=short; fi
TESSERA_TESTS=$wanted ./launch/setup.sh
./launch/python.sh
if [[ -n $full ]]; then ./launch/interop.sh; fi
# shellcheck source=launch/env.sh
. launch/env.sh
nextest=$(tool cargo-nextest)
# As the launcher sets it for workers: threads of libtorch that spin beside other tests make those ten times slower.
export GOMP_SPINCOUNT=${GOMP_SPINCOUNT:-1000}

# The tests that start processes take the programs from the target folder. All at once, so that no core waits for the last
# crate of the programs before it begins with the tests.
if [[ $# == 0 || -n $full ]]; then
  cargo build --release --locked --workspace --bins --tests
else
  cargo build --release --locked -p tessera-cli -p tessera-worker
fi
if [[ $# == 0 || -n $full ]]; then
  # Nextest gives each test a process of its own, and libtorch takes a quarter of a second to load: unit tests, which need
  # no process, share one a crate. --lib asks for those of crates that have none, too.
  # One thread of libtorch for each test: six tests at a time have no use for more, and products come out alike every time.
  OMP_NUM_THREADS=1 timeout 600 cargo test --lib --workspace --exclude tessera-resample --release --locked --no-fail-fast -- --test-threads 6
  "$nextest" nextest run --workspace --release --locked --filterset 'not kind(lib)' "$@"
  cargo test --doc --workspace --release --locked
else # What a filter names; examples in documentation have no names to go by.
  "$nextest" nextest run --workspace --release --locked "$@"
fi

if [[ -n $full ]]; then
  tessera=$CARGO_TARGET_DIR/release/tessera
  "$tessera" chaos --config configs/smoke.toml --rounds 3 --seed "$RANDOM"
  "$tessera" chaos --config configs/smoke.toml --faults many-kills --kills 300 --limit 4000 --seed "$RANDOM" \
    --set train.steps=3000 --set checkpoint.every=10 --set eval.every=500
  "$tessera" chaos --config configs/smoke.toml --faults many-rivals --kills 60 --limit 1000 --seed "$RANDOM" \
    --set train.steps=600 --set checkpoint.every=10 --set eval.every=100
  # Debians with nothing on them, by what oldest.sh makes.
  if ((EUID == 0)); then launch/test-roots.sh; else say "test-roots.sh: left out, it takes root"; fi
fi
