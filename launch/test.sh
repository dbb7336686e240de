#!/usr/bin/env bash
# Runs every test, or those that a filter names.
#
#   launch/test.sh [arguments of cargo nextest run, or of cargo test where that is not installed]
#   launch/test.sh --full     every test, then the whole fault matrix three times and 300 kills of one run
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

full=
if [[ ${1:-} == --full ]]; then
  full=1
  shift
fi

TESSERA_TESTS=1 ./launch/setup.sh
./launch/python.sh
# shellcheck source=launch/env.sh
. launch/env.sh

# The tests that start processes take the programs from the target folder.
cargo build --release --locked -p tessera-cli -p tessera-worker
if cargo nextest --version >/dev/null 2>&1; then
  cargo nextest run --workspace --release --locked "$@"
else
  cargo test --workspace --release --locked --lib --bins --tests "$@"
fi
# A filter asks for some tests, and examples in documentation have no names to go by.
if (($# == 0)); then
  cargo test --doc --workspace --release --locked
fi

if [[ -n $full ]]; then
  tessera=$CARGO_TARGET_DIR/release/tessera
  "$tessera" chaos --config configs/smoke.toml --rounds 3 --seed "$RANDOM"
  "$tessera" chaos --config configs/smoke.toml --faults many-kills --kills 300 --limit 4000 --seed "$RANDOM" \
    --set train.steps=3000 --set checkpoint.every=10 --set eval.every=500
fi
