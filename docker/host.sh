#!/bin/sh
# One of several hosts of a job, each a container, that mpirun reaches by ssh. All of them have the same ~/.ssh: a
# volume (docker/compose.yaml), or the secret of an MPIJob (launch/kubernetes.yaml). The key pair in it lets them in, and
# is what they show as their own.
#
#   tessera-host serve    lets the others in, on port 2222, until the container is stopped
#   tessera-host known    prints the key that they show, for ssh
#
# `serve` is the first process of its container, and when that ends the kernel kills all others. So at a SIGTERM it lets
# nobody in any more, asks the workers to stop (SIGUSR1: one checkpoint of all ranks, which end with 75), and stays until
# no process is left. Whoever runs the container kills it when its time is up (terminationGracePeriodSeconds).
set -eu

folder=$HOME/.ssh
key() {
  for name in id_ed25519 id_ecdsa id_rsa; do
    if [ -f "$folder/$name" ]; then
      echo "$folder/$name"
      return
    fi
  done
}

# Whether the container has other processes than this one and its first. What has been started in it from outside, such
# as by `kubectl exec`, has no parent here and does not count. Without a subshell, which would be one of them.
is_alone() {
  for process in /proc/[0-9]*; do
    read -r status <"$process/stat" || continue
    # PID (NAME) STATE PARENT ...
    # shellcheck disable=SC2086
    set -- ${status##*) }
    case ${process#/proc/}:$1:$2 in
      1:* | $$:* | *:Z:* | *:0) ;;
      *) return 1 ;;
    esac
  done 2>/dev/null
}

ask_workers() {
  for process in /proc/[0-9]*; do
    read -r name <"$process/comm" || continue
    [ "$name" != tessera-worker ] || kill -USR1 "${process#/proc/}" || true
  done 2>/dev/null
}

case ${1:-} in
  serve)
    if [ -z "$(key)" ]; then
      # The first host makes it.
      (
        flock 9
        [ -n "$(key)" ] || {
          ssh-keygen -q -t ed25519 -N '' -C tessera -f "$folder/new"
          cp "$folder/new.pub" "$folder/authorized_keys"
          mv "$folder/new.pub" "$folder/id_ed25519.pub"
          mv "$folder/new" "$folder/id_ed25519"
        }
      ) 9>"$folder/lock"
    fi
    # A secret's files are readable by its group, which ssh refuses as a host's key.
    own=$(mktemp)
    cat "$(key)" >"$own"
    /usr/sbin/sshd -D -e -f /dev/null -p 2222 -h "$own" -o AuthorizedKeysFile="$folder/authorized_keys" \
      -o StrictModes=no -o PasswordAuthentication=no -o KbdInteractiveAuthentication=no -o UsePAM=no -o PidFile=none &
    server=$!
    stopping=
    trap 'stopping=1; kill -TERM $server 2>/dev/null || true; ask_workers' TERM INT
    # A signal ends `wait`. It also collects processes whose parents have ended, which come to the first process.
    code=0
    while kill -0 $server 2>/dev/null; do
      code=0
      wait $server || code=$?
    done
    [ -n "$stopping" ] || exit $code
    echo "tessera-host: lets nobody in any more, and waits for the processes that are left" >&2
    until is_alone; do
      sleep 0.5 &
      wait $! || true
    done
    ;;
  known) echo "* $(cat "$(key).pub")" ;;
  *)
    echo "usage: tessera-host serve|known" >&2
    exit 2
    ;;
esac
