#!/bin/sh
# A small Slurm on one machine, for tests: the hosts of launch/test-hosts.sh, a controller on the first and a daemon
# on each other one. Needs root, and Debian's slurmctld, slurmd, slurm-client and munge.
#
#   launch/test-slurm.sh up DIR HEAD NODE...   starts it; partitions low (preempted, queued again) and high. With
#                                              GPUS=N in the environment each node has N devices that stand for GPUs
#   launch/test-slurm.sh run DIR CMD...        runs CMD on the head, with the Slurm of DIR
#   launch/test-slurm.sh down DIR              ends every process of it
set -eu

fail() {
  echo "test-slurm: $1" >&2
  exit 1
}

here=$(dirname "$0")
[ $# -ge 2 ] || fail "usage: launch/test-slurm.sh up|run|down DIR [...]"
what=$1 dir=$2
shift 2

on() {
  host=$1
  shift
  # A node has files of its own, since PMIx on two nodes would meet in one /tmp.
  conf=$dir/$host/slurm.conf
  [ -f "$conf" ] || conf=$dir/slurm.conf
  SLURM_CONF=$conf "$here/test-hosts.sh" run "$dir/hosts" "$host" "$@"
}

up() {
  for program in slurmctld slurmd munged sbatch; do
    command -v $program >/dev/null || fail "$program is missing: apt-get install slurmctld slurmd slurm-client munge"
  done
  mkdir -p "$dir/state" /run/munge
  chmod 755 "$dir"
  head=$1
  "$here/test-hosts.sh" up "$dir/hosts" "$@"
  shift
  echo "$head" >"$dir/head"
  (umask 077 && head -c 1024 /dev/urandom >"$dir/munge.key")
  nodes=$(echo "$*" | tr ' ' ',')
  cat >"$dir/slurm.conf" <<END
ClusterName=tessera
SlurmctldHost=$head
SlurmUser=root
AuthInfo=socket=$dir/munge.socket
MpiDefault=pmix
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/builtin
SchedulerParameters=batch_sched_delay=0,sched_interval=1
SlurmdParameters=config_overrides
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
JobRequeue=1
KillWait=30
MinJobAge=300
SlurmctldTimeout=30
SlurmdTimeout=30
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool-%n
SlurmctldPidFile=$dir/slurmctld.pid
SlurmdPidFile=$dir/slurmd-%n.pid
SlurmctldLogFile=$dir/slurmctld.log
SlurmdLogFile=$dir/slurmd-%n.log
NodeName=$nodes CPUs=4 State=UNKNOWN
PartitionName=low Nodes=ALL Default=YES PriorityTier=1 PreemptMode=REQUEUE GraceTime=60
PartitionName=high Nodes=ALL PriorityTier=9 PreemptMode=OFF
END
  if [ -n "${GPUS:-}" ]; then
    sed -i "s/^NodeName=.*/GresTypes=gpu\n& Gres=gpu:$GPUS/" "$dir/slurm.conf"
    echo "Name=gpu File=/dev/tty[10-$((9 + GPUS))]" >"$dir/gres.conf"
    for node in "$@"; do mkdir -p "$dir/$node" && cp "$dir/gres.conf" "$dir/$node"; done
  fi
  # Nothing here is held by control groups, but slurmd looks for them.
  printf 'CgroupPlugin=cgroup/v1\nCgroupAutomount=yes\nCgroupMountpoint=%s\n' "$dir/cgroup" >"$dir/cgroup.conf"
  mkdir -p "$dir/cgroup"
  for node in "$@"; do
    mkdir -p "$dir/spool-$node" "$dir/$node/tmp"
    cp "$dir/slurm.conf" "$dir/cgroup.conf" "$dir/$node"
    echo "PMIxCliTmpDirBase=$dir/$node/tmp" >"$dir/$node/mpi.conf"
  done
  munged --force --key-file="$dir/munge.key" --socket="$dir/munge.socket" --pid-file="$dir/munged.pid" \
    --log-file="$dir/munged.log" --seed-file="$dir/munged.seed" >/dev/null 2>&1
  # With the hosts, by whose namespaces they end. `exec`, since a redirected function keeps the old files open.
  (exec </dev/null >/dev/null 2>&1 && on "$head" slurmctld -D) &
  # A core for each node, as far as there are any.
  core=0
  for node in "$@"; do
    (exec </dev/null >/dev/null 2>&1 && on "$node" taskset -c $core slurmd -D -N "$node") &
    core=$(((core + 1) % $(nproc)))
  done
  wanted=$#
  tries=0
  while [ "$(on "$head" sinfo -h -p low -t idle -o %D 2>/dev/null | head -1)" != "$wanted" ]; do
    tries=$((tries + 1))
    [ $tries -lt 60 ] || fail "the nodes do not come up: see $dir/*.log"
    sleep 0.5
  done
}

down() {
  [ -f "$dir/munged.pid" ] && kill "$(cat "$dir/munged.pid")" 2>/dev/null || true
  "$here/test-hosts.sh" down "$dir/hosts"
  rm -rf "$dir"
}

case $what in
  up) up "$@" ;;
  run) on "$(cat "$dir/head")" "$@" ;;
  down) down ;;
  *) fail "usage: launch/test-slurm.sh up|run|down DIR [...]" ;;
esac
