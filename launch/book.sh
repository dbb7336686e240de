#!/usr/bin/env bash
# Builds the book out of docs/, into target/book.
set -euo pipefail
# shellcheck source=launch/env.sh
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"

mdbook=$(tool mdbook)
exec "$mdbook" build "$tessera_root/docs"
