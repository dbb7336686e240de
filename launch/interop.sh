#!/usr/bin/env bash
# Makes the Python environment of the tests that open our exports with the libraries that they are for: diffusers,
# transformers, PyTorch, ONNX Runtime. A venv in the cache: 2.6 GB to download, 4.4 GB on disk, three to six minutes.
# launch/env.sh exports it as TESSERA_INTEROP; only launch/test.sh --full asks for it.
set -euo pipefail
# shellcheck source=launch/env.sh
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"

venv=$tessera_cache/interop
wanted=$tessera_root/launch/interop.txt
if [[ -n ${TESSERA_INTEROP:-} && $TESSERA_INTEROP != "$venv/bin/python" ]]; then
  say "interop: $TESSERA_INTEROP, from the environment"
  exit
fi
mkdir -p "$tessera_cache"
exec 9>"$tessera_cache/interop.lock"
flock 9
# complete.txt is copied last: it says that all of it is there, and for which list.
if ! cmp -s "$wanted" "$venv/complete.txt" || ! "$venv/bin/python" -c '' 2>/dev/null; then
  python3 -c 'import sys; exit(sys.version_info < (3, 11))' || die "interop: Python 3.11 or newer is needed, python3 is $(python3 -V)"
  say "interop: installing PyTorch, diffusers, transformers and ONNX Runtime into $venv: 2.6 GB to download"
  python3 -m venv --clear "$venv"
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-cache-dir --no-deps --only-binary=:all: -r "$wanted" >&2
  cp "$wanted" "$venv/complete.txt"
fi
say "interop: $venv"
