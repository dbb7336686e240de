#!/bin/sh
# One of several hosts of a job, each a container, that mpirun reaches by ssh. All of them have the same ~/.ssh: a
# volume (docker/compose.yaml), or the secret of an MPIJob (launch/kubernetes.yaml). The key pair in it lets them in, and
# is what they show as their own.
#
#   tessera-host serve    lets the others in, on port 2222, until the container ends
#   tessera-host known    prints the key that they show, for ssh
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
    exec /usr/sbin/sshd -D -e -f /dev/null -p 2222 -h "$own" -o AuthorizedKeysFile="$folder/authorized_keys" \
      -o StrictModes=no -o PasswordAuthentication=no -o KbdInteractiveAuthentication=no -o UsePAM=no -o PidFile=none
    ;;
  known) echo "* $(cat "$(key).pub")" ;;
  *)
    echo "usage: tessera-host serve|known" >&2
    exit 2
    ;;
esac
