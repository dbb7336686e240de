#!/usr/bin/env bash
# Makes the Python environment of the tests: what reads our files (TensorBoard's own reader,
# safetensors), an S3 server (moto), Kubernetes' schema. A venv in the cache. launch/env.sh exports it as TESSERA_PYTHON.
set -euo pipefail
# shellcheck source=launch/env.sh
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"

venv=$tessera_cache/python
wanted=$tessera_root/launch/python.txt
if [[ -n ${TESSERA_PYTHON:-} && $TESSERA_PYTHON != "$venv/bin/python" ]]; then
  say "python: $TESSERA_PYTHON, from the environment"
  exit
fi
mkdir -p "$tessera_cache"
exec 9>"$tessera_cache/python.lock"
flock 9
# complete.txt is copied last: it says that all of it is there, and for which list.
if ! cmp -s "$wanted" "$venv/complete.txt" || ! "$venv/bin/python" -c '' 2>/dev/null; then
  say "python: installing tensorboard, safetensors, numpy, moto and kubernetes-validate into $venv"
  python3 -m venv --clear "$venv"
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -r "$wanted" >&2
  cp "$wanted" "$venv/complete.txt"
fi
say "python: $venv"
