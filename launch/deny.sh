#!/usr/bin/env bash
# Licenses, sources and bans of all dependencies, as deny.toml has them.
set -euo pipefail
# shellcheck source=launch/env.sh
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"

deny=$(tool cargo-deny)
cd "$tessera_root"
exec "$deny" --workspace check licenses bans sources
