#!/usr/bin/env bash
# Runs the blocks of a page that are marked `sh`, word for word and in one shell, until one fails.
#
#   launch/follow.sh PAGE [FOLDER]      in FOLDER, a clone of this repository; without it, in this one
#
# SECTIONS, a regular expression, leaves out the blocks below headings that it does not match.
set -euo pipefail

page=$(realpath "${1:?usage: launch/follow.sh PAGE [FOLDER]}")
cd "${2:-$(dirname "${BASH_SOURCE[0]}")/..}"
blocks=$(awk -v sections="${SECTIONS:-.*}" '
  /^## / { wanted = $0 ~ sections }
  /^```sh$/ { inside = 1; next }
  /^```$/ { inside = 0 }
  inside && (wanted || sections == ".*")' "$page")
[[ -n $blocks ]] || {
  echo "follow: $page has no block marked sh" >&2
  exit 2
}
# Each command is shown before what it prints.
exec bash -euvo pipefail -c "$blocks"
