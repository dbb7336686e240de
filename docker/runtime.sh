#!/bin/sh
# What an image needs besides the programs: a user, and an ssh by which hosts reach each other.
set -eu

useradd --create-home --uid 1000 --shell /bin/bash tessera
mkdir -p /run/sshd
install -d -o tessera -g tessera -m 700 /home/tessera/.ssh
install -d -o tessera -g tessera /home/tessera/runs /home/tessera/data
# Keys are made when a host starts, never in an image: see docker/host.sh.
rm -f /etc/ssh/ssh_host_*
cat >/etc/ssh/ssh_config.d/tessera.conf <<'END'
# Hosts are containers of one job, which share one key pair: it is their own key, too.
Host *
  Port 2222
  LogLevel ERROR
  StrictHostKeyChecking yes
  UserKnownHostsFile none
  KnownHostsCommand /usr/local/bin/tessera-host known
END
ldconfig
# The day of a build is no part of it.
chage -d 2026-01-01 tessera
rm -f /etc/passwd- /etc/group- /etc/shadow- /etc/gshadow- /etc/subuid- /etc/subgid- /var/log/lastlog /var/log/faillog
