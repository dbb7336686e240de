#!/usr/bin/env bash
# Runs every test, or those that a filter names.
#
#   launch/test.sh [arguments of cargo nextest run, or of cargo test where that is not installed]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

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
