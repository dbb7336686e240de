#!/usr/bin/env bash
# Makes the Python environment of the tests: what reads our files (TensorBoard's own reader,
# safetensors), an S3 server (moto), Kubernetes' schema. A venv in the cache. launch/env.sh exports it as TESSERA_PYTHON.
set -euo pipefail
# shellcheck source=launch/env.sh
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"

if [[ -n ${TESSERA_PYTHON:-} && $TESSERA_PYTHON != "$tessera_cache/python/bin/python" ]]; then
  say "python: $TESSERA_PYTHON, from the environment"
  exit
fi
python_environment python "tensorboard, safetensors, numpy, moto and kubernetes-validate"
say "python: $venv"
