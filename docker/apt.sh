#!/bin/sh
# Installs packages in an image, as they were on the day that its base was made: Debian's images name that
# day's archive in a comment of their sources. A base without one gives what its sources have today.
#
#   docker/apt.sh PACKAGE...
set -eu

sources=/etc/apt/sources.list.d/debian.sources
if grep -qs '^# http.*/archive/.*Z$' "$sources"; then
  # The comment stands right before the line that it takes the place of.
  sed -i '/^# http.*\/archive\/.*Z$/ { s/^#/URIs:/; n; d }' "$sources"
else
  echo "docker/apt.sh: $sources names no archive of a day: packages of today" >&2
fi
apt-get -o Acquire::Check-Valid-Until=false update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@"
# Nothing that differs from one build to the next.
rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/cache/debconf/*-old /var/cache/ldconfig/* /var/log/*
