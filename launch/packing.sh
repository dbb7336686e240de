# shellcheck shell=bash
# Sourced by launch/wheel.sh and launch/dist.sh: their options, and the programs that they pack.
#
#   [--profile PROFILE]   how the programs are built, dist unless another is named
#   [--programs DIR]      programs that are built already, such as those of launch/oldest.sh
#   [--out DIR]           where the package goes, dist unless another is named
#
# Sets `built`, the folder of both programs; `out`; `work`, a folder for this package alone; and `version`.
# shellcheck source=launch/env.sh
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"
cd "$tessera_root" || exit 1

profile=dist built='' out=dist
while (($# > 0)); do
  case $1 in
    --profile) profile=$2 ;;
    --programs) built=$2 ;;
    --out) out=$2 ;;
    *) die "unknown option $1; usage: $(basename "$0") [--profile PROFILE] [--programs DIR] [--out DIR]" ;;
  esac
  shift 2
done
mkdir -p "$out"
out=$(realpath "$out")
if [[ -z $built ]]; then
  cargo build --profile "$profile" --locked -p tessera-cli -p tessera-worker >&2
  built=$CARGO_TARGET_DIR/$profile
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -n 1)
export built out work version

# Copies both programs to the folder $1, and lets the worker look for libraries in the places $2, from its own folder on.
pack_programs() {
  local program
  for program in tessera tessera-worker; do
    strip -o "$1/$program" "$built/$program"
  done
  "$(tool patchelf)" --force-rpath --set-rpath "$2" "$1/tessera-worker"
}
