#!/bin/sh
# Several hosts on one machine, for tests: network namespaces with addresses and names of their own,
# and an sshd in each. Needs root, iproute2 and openssh-server. The hosts share all files. The switch
# between them is a namespace, too: the machine's own interfaces stay as they are, since an mpirun that
# starts beside can hang where they change.
#
#   launch/test-hosts.sh up DIR NAME...      makes hosts NAME..., keys and settings in DIR
#   launch/test-hosts.sh up6 DIR NAME...     the same with IPv6 alone
#   launch/test-hosts.sh up2 DIR NAME...     with IPv4, after a network of which every host has an address and where none
#                                            reaches another; its addresses come first
#   launch/test-hosts.sh run DIR NAME CMD... runs CMD on a host, with what mpirun needs to reach the others
#   launch/test-hosts.sh cut DIR NAME        takes a host's network away
#   launch/test-hosts.sh join DIR NAME       gives it back
#   launch/test-hosts.sh down DIR            ends every process of the hosts and removes them
set -eu

fail() {
  echo "test-hosts: $1" >&2
  exit 1
}

usage="usage: launch/test-hosts.sh up|up6|up2|run|cut|join|down DIR [NAME...]"
[ $# -ge 2 ] || fail "$usage"
what=$1 dir=$2
shift 2

# Names of namespaces are the machine's; those of links are the switch's.
mark() { cat "$dir/id"; }
namespace() { echo "tessera-$(mark)-$1"; }
link() { echo "port$(cat "$dir/$1.number")"; }
switch() { echo "tessera-$(mark)"; }

# Address of the host of this number: those of IPv6 are the switch's own network, too.
address() { if [ "$network" = ipv6 ]; then echo "fd77::$1"; else echo "10.77.0.$1"; fi; }

up() {
  [ "$(id -u)" = 0 ] || fail "making hosts needs root"
  for program in ip ssh-keygen /usr/sbin/sshd; do
    command -v "$program" >/dev/null || fail "$program is missing: apt-get install iproute2 openssh-server"
  done
  mkdir -p "$dir" /run/sshd
  chmod 700 "$dir"
  echo $$ >"$dir/id"
  ip netns add "$(switch)"
  ip -n "$(switch)" link add bridge type bridge
  ip -n "$(switch)" link set bridge up
  ssh-keygen -q -t ed25519 -N '' -f "$dir/key"
  number=0
  printf '127.0.0.1 localhost\n' >"$dir/hosts"
  for name in "$@"; do
    number=$((number + 1))
    printf '%s %s\n' "$(address "$number")" "$name" >>"$dir/hosts"
  done
  cat >"$dir/ssh_config" <<END
Host *
  User root
  IdentityFile $dir/key
  StrictHostKeyChecking no
  UserKnownHostsFile /dev/null
  LogLevel ERROR
  ConnectTimeout 5
  ServerAliveInterval 2
  ServerAliveCountMax 3
END
  number=0
  for name in "$@"; do
    number=$((number + 1))
    echo "$number" >"$dir/$name.number"
    echo "$name" >>"$dir/names"
    space=$(namespace "$name")
    ip netns add "$space"
    mkdir -p "/etc/netns/$space"
    cp "$dir/hosts" "/etc/netns/$space/hosts"
    if [ "$network" = second ]; then
      # Before the other one, so that its addresses come first; behind its cable is nobody.
      ip -n "$space" link add aux0 type veth peer name aux0-end
      ip -n "$space" addr add "10.78.0.$number/24" dev aux0
      ip -n "$space" link set aux0-end up
      ip -n "$space" link set aux0 up
    fi
    ip -n "$(switch)" link add "$(link "$name")" type veth peer name eth0 netns "$space"
    ip -n "$(switch)" link set "$(link "$name")" master bridge up
    ip -n "$space" link set lo up
    if [ "$network" = ipv6 ]; then
      ip -n "$space" addr add "$(address "$number")/64" dev eth0 nodad
    else
      ip -n "$space" addr add "$(address "$number")/24" dev eth0
    fi
    ip -n "$space" link set eth0 up
    ssh-keygen -q -t ed25519 -N '' -f "$dir/$name.hostkey"
    cat >"$dir/$name.sshd" <<END
HostKey $dir/$name.hostkey
AuthorizedKeysFile $dir/key.pub
PermitRootLogin prohibit-password
StrictModes no
UsePAM no
PidFile $dir/$name.pid
END
    # A name of its own, which Open MPI tells hosts apart by.
    ip netns exec "$space" unshare --uts sh -c \
      "hostname $name; exec /usr/sbin/sshd -f '$dir/$name.sshd'"
  done
}

run() {
  name=$1
  shift
  OMPI_MCA_plm_rsh_agent="ssh -F $dir/ssh_config" \
    exec ip netns exec "$(namespace "$name")" unshare --uts sh -c "hostname $name; exec \"\$@\"" sh "$@"
}

down() {
  [ -f "$dir/names" ] || return 0
  while read -r name; do
    space=$(namespace "$name")
    # All processes of the namespace, and nobody else's.
    for pid in $(ip netns pids "$space"); do kill -9 "$pid" 2>/dev/null || true; done
    ip netns del "$space"
    rm -r "/etc/netns/$space"
    rm -f /dev/shm/vader_segment."$name".* /dev/shm/sm_segment."$name".*
  done <"$dir/names"
  ip netns del "$(switch)"
  rm -r "$dir"
}

case $what in
  up) network=ipv4 && up "$@" ;;
  up6) network=ipv6 && up "$@" ;;
  up2) network=second && up "$@" ;;
  run) run "$@" ;;
  cut) ip -n "$(switch)" link set "$(link "$1")" down ;;
  join) ip -n "$(switch)" link set "$(link "$1")" up ;;
  down) down ;;
  *) fail "$usage" ;;
esac
