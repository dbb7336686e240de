#!/usr/bin/env bash
# Stands in for tessera-worker in tests/launch.rs: speaks the launcher's protocol and trains nothing.
# FAKE_RUN is the run folder, FAKE_MODE what to do; ranks leave traces in the folder for the test.
set -u

if [[ $1 == resolve ]]; then
  echo "$*" >"$FAKE_RUN/resolve.args"
  if [[ $FAKE_MODE == refuse ]]; then
    echo 'error: unknown key trian.steps, did you mean train.steps?' >&2
    exit 2
  fi
  printf '{"run_dir":"%s","steps":30,"config":{"note":"it'\''s; a \\"test\\""}}\n' "$FAKE_RUN"
  exit 0
fi

rank=$OMPI_COMM_WORLD_RANK
echo "$*" >"$FAKE_RUN/args.$rank"
echo "${TESSERA_RESOLVED-}" >"$FAKE_RUN/resolved.$rank"
ulimit -Sn >"$FAKE_RUN/files.$rank"
if [[ $FAKE_MODE == crash ]]; then
  echo "rank $rank cannot load its libraries" >&2
  exit 7
fi
if [[ $FAKE_MODE == late ]]; then # without a handler: SIGUSR1 would kill it here
  echo $$ >"$FAKE_RUN/early.$rank"
  until [[ -e $FAKE_RUN/go ]]; do read -r -t 0.02 <> <(:); done
fi

heartbeat='{"type":"heartbeat","phase":"compute","step":20}'
beat=0
stopping=0
trap 'stopping=1' USR1
exec 3<>"/dev/tcp/${TESSERA_CONTROL%:*}/${TESSERA_CONTROL##*:}"
say() { printf '%s\n' "$1" >&3; }
# Waits 0.05 s, or until a signal or a line of the launcher, gives a heartbeat now and then, and ends the worker when
# the launcher is gone.
tick() {
  ((++beat % 10)) || say "$heartbeat"
  read -r -t 0.05 -u 3
  (($? != 1)) || exit 1
}
# The last words, until they were heard: who ends with something unread may take back what is on its way.
outcome() {
  local line=
  say "{\"number\":1,\"type\":\"outcome\",\"code\":$1,\"message\":\"$2\",\"step\":$3}"
  until [[ $line == *heard* && $line == *number* ]]; do read -r -t 5 -u 3 line || return 0; done
}
# All ranks leave together: mpirun ends the others when one leaves with a code.
leave() {
  outcome "$1" "$2" 20
  touch "$FAKE_RUN/left.$rank"
  until (($(compgen -G "$FAKE_RUN/left.*" | wc -l) == TESSERA_WORLD_SIZE)); do tick; done
  exit "$1"
}

say "{\"type\":\"hello\",\"token\":\"$TESSERA_CONTROL_TOKEN\",\"rank\":$rank,\"world_size\":$TESSERA_WORLD_SIZE,\"host\":\"$(uname -n)\",\"pid\":$$}"
say "$heartbeat"
if ((rank == 0)); then
  # The run folder is these workers'.
  printf '{"attempt":"%s","process":{"host":"h","pid":1,"started":1,"place":"p"},"since":0,"beat":0,"released":false}' \
    "$TESSERA_ATTEMPT" >"$FAKE_RUN/run.lock"
  say "{\"type\":\"holds\",\"attempt\":\"$TESSERA_ATTEMPT\"}"
  say '{"type":"notice","text":"resumed from nothing"}'
  for step in 10 20; do
    say "{\"type\":\"progress\",\"step\":$step,\"steps\":30,\"words\":\"loss 0.50000 perplexity 9.5\",\"figures\":{\"loss\":0.5},\"samples_per_second\":100}"
  done
fi
echo "a line of rank $rank" >&2
echo $$ >"$FAKE_RUN/pid.$rank.new" && mv "$FAKE_RUN/pid.$rank.new" "$FAKE_RUN/pid.$rank"

case $FAKE_MODE in
  end)
    ((rank == 0)) && [[ $1 == eval ]] && echo '{"mse":0.25}'
    leave 0 "done after 30 steps"
    ;;
  numeric)
    if ((rank == 1)); then
      outcome 5 "loss is NaN at step 13" 13
      exit 5
    fi
    ;;
  stubborn) trap '' USR1 ;;
esac
until ((stopping)); do tick; done
if [[ $FAKE_MODE == slow ]]; then # saves for longer than mpirun waits after a SIGTERM
  for _ in {1..60}; do tick; done
fi
leave 75 "stopped at step 20"
