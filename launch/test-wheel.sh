#!/usr/bin/env bash
# Installs the wheel in an environment of its own and trains there: what is in it, that it finds its libraries, and that it refuses another
# torch.
#
# With the programs of the target folder, and the libtorch of this machine in the place of torch's; launch/test-roots.sh does it on bare
# systems, with torch from PyPI.
set -euo pipefail
# shellcheck source=launch/env.sh
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"
cd "$tessera_root"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
wheel=$(launch/wheel.sh --profile "${TESSERA_PROFILE:-release}" --out "$work/wheels")
say "wheel: $(basename "$wheel"), $(stat -c %s "$wheel") bytes"
names=$(python3 -m zipfile -l "$wheel" | awk 'NR > 1 { print $1 }' | sed 's/^tessera-[0-9.]*\.//' | sort | tr '\n' ' ')
wanted='data/scripts/tessera data/scripts/tessera-worker dist-info/METADATA dist-info/RECORD dist-info/WHEEL dist-info/licenses/LICENSE-APACHE dist-info/licenses/LICENSE-MIT '
[[ $names == "$wanted" ]] || die "the wheel holds $names"

train=(launch --nproc 2 -- train --config @smoke --set train.steps=20 --set checkpoint.every=10 --set eval.every=20)
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps "$wheel"
packages=$("$work/venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
mkdir "$packages/torch"
libtorch=${LIBTORCH:-$(readlink -f .libtorch)}
ln -s "$libtorch/lib" "$packages/torch/lib"
echo "__version__ = '2.11.0+cpu'" >"$packages/torch/version.py"
cd "$work"
alone=(env -i "PATH=/usr/local/bin:/usr/bin:/bin" "HOME=$work" LANG=C.UTF-8)
"${alone[@]}" "$work/venv/bin/tessera" "${train[@]}" --run-dir "$work/run"
"${alone[@]}" "$work/venv/bin/tessera" eval --run "$work/run" >&2
echo "__version__ = '2.12.0'" >"$packages/torch/version.py"
said=$("${alone[@]}" "$work/venv/bin/tessera" eval --run "$work/run" 2>&1) && die "another torch is taken"
[[ $said == *"is of torch 2.12.0, the worker was built for 2.11"* ]] || die "another torch: $said"
say "wheel: trained and evaluated in an environment of its own; another torch is refused"
