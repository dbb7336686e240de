#!/usr/bin/env bash
# Makes the Python environment of the tests that open our exports with the libraries that they are for: diffusers,
# transformers, PyTorch, ONNX Runtime. A venv in the cache: 2.6 GB to download, 4.4 GB on disk, three to six minutes.
# launch/env.sh exports it as TESSERA_INTEROP; only launch/test.sh --full asks for it.
set -euo pipefail
# shellcheck source=launch/env.sh
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"

if [[ -n ${TESSERA_INTEROP:-} && $TESSERA_INTEROP != "$tessera_cache/interop/bin/python" ]]; then
  say "interop: $TESSERA_INTEROP, from the environment"
  exit
fi
python3 -c 'import sys; exit(sys.version_info < (3, 11))' || die "interop: Python 3.11 or newer is needed, python3 is $(python3 -V)"
python_environment interop "PyTorch, diffusers, transformers and ONNX Runtime, 2.6 GB to download," --no-cache-dir --no-deps --only-binary=:all:
say "interop: $venv"
