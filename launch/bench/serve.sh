#!/usr/bin/env bash
# Tries a server of a tokeniser with other people's clients and under load:
#   launch/bench/serve.sh URL [PID]
# With the PID of the server's process, the last step sends it SIGTERM under load and waits for its end.
# SERVE_STEPS chooses steps (default: "client load hostile fuzz page"), SERVE_REQUESTS the number of requests (10000).
# Needs the network's package registries once; `page` needs Debian's chromium.
set -euo pipefail
url=${1:?"usage: serve.sh URL [PID]"}
pid=${2:-}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/serve" && pwd)
venv=${SERVE_VENV:-${TMPDIR:-/tmp}/tessera-serve-venv}
if [[ ! -x $venv/bin/schemathesis ]]; then
  python3 -m venv "$venv"
  "$venv/bin/pip" install --quiet 'tritonclient[http]==2.73.0' 'schemathesis==4.32.5' numpy pillow websocket-client
fi
python=$venv/bin/python
export SERVE_OUT=${SERVE_OUT:-${TMPDIR:-/tmp}/tessera-serve-out}
mkdir -p "$SERVE_OUT"
for step in ${SERVE_STEPS:-client load hostile fuzz page}; do
  echo "== $step"
  case $step in
    client) "$python" "$here/client.py" "$url" ;;
    load) "$python" "$here/load.py" "$url" --requests "${SERVE_REQUESTS:-10000}" ;;
    hostile) "$python" "$here/hostile.py" "$url" ;;
    fuzz) (cd "$SERVE_OUT" && PYTHONPATH=$here SCHEMATHESIS_HOOKS=hooks \
      "$venv/bin/schemathesis" --config-file "$here/schemathesis.toml" run "$url/openapi.json" \
      --max-examples "${SERVE_EXAMPLES:-50}" --seed 1 --no-color) ;;
    page) "$python" "$here/page.py" "$url" ;;
    *) echo "there is no step $step" >&2 && exit 2 ;;
  esac
done
if [[ -n $pid ]]; then
  echo "== stop"
  "$python" "$here/load.py" "$url" --requests 100000 --stop "$pid"
fi
