//! Several hosts, each with an address, a name and an sshd of its own: a run loses one, goes on with
//! those left, and takes it back at the next restart; workers find their launcher over IPv4, over IPv6, past
//! a network that leads nowhere, and without knowing its name. The hosts are network namespaces of this machine
//! (`launch/test-hosts.sh`); between them is the real mpirun over ssh.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use rustix::process::{Pid, Signal, geteuid, kill_process};
use tempfile::TempDir;

use crate::resume::assert_close;
use crate::support::{
    processes_of, root, rows, run, steps_logged, tessera, wait_until, worker_pid, write_program,
};

/// Hosts that go away with it.
struct Hosts(PathBuf);

impl Hosts {
    /// A head and two hosts for workers; none, with the reason printed, where the system has no such
    /// thing.
    fn up(folder: &Path) -> Option<Self> {
        Self::with("up", folder)
    }

    /// The same, made by this command of the script.
    fn with(up: &str, folder: &Path) -> Option<Self> {
        let missing = ["ip", "ssh", "sshd", "ssh-keygen"].into_iter().find(|program| {
            let folders = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"];
            !folders.iter().any(|folder| Path::new(folder).join(program).is_file())
        });
        if let Some(program) = missing {
            println!("skipped: {program} is missing (apt-get install iproute2 openssh-server)");
            return None;
        }
        if !geteuid().is_root() {
            println!("skipped: making network namespaces needs root");
            return None;
        }
        let hosts = Self(folder.join("hosts"));
        let (code, _, stderr) = run(&mut hosts.script(up, &["head", "h1", "h2"]));
        if code != Some(0) {
            println!("skipped: no network namespaces here: {stderr}");
            return None;
        }
        Some(hosts)
    }

    fn script(&self, what: &str, words: &[&str]) -> Command {
        let mut command = Command::new(root().join("launch/test-hosts.sh"));
        command.arg(what).arg(&self.0).args(words).current_dir(root()).stdin(Stdio::null());
        command
    }

    fn set(&self, what: &str, host: &str) {
        let (code, _, stderr) = run(&mut self.script(what, &[host]));
        assert_eq!(code, Some(0), "{stderr}");
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        let _ = self.script("down", &[]).status();
    }
}

impl Hosts {
    /// Takes the head's name from what the workers' hosts know.
    fn forget_head(&self) {
        let id = std::fs::read_to_string(self.0.join("id")).unwrap();
        for host in ["h1", "h2"] {
            let path = format!("/etc/netns/tessera-{}-{host}/hosts", id.trim());
            let known = std::fs::read_to_string(&path).unwrap();
            let known = known.lines().filter(|line| !line.ends_with(" head"));
            let known: String = known.map(|line| format!("{line}\n")).collect();
            // In place: the host has this file mounted.
            std::fs::write(&path, known).unwrap();
        }
    }

    /// A short run on these hosts from the head, which has to end well.
    fn train(&self, hosts: &str, folder: &Path, options: &[&str], mca: &[(&str, &str)]) {
        let program = tessera().get_program().to_str().unwrap().to_owned();
        let mut command = self.script("run", &["head", &program, "launch", "--hosts", hosts]);
        command.args(options).args(["--", "train", "--config", "configs/smoke.toml"]);
        command.args(["--set", "train.steps=10", "--set", "eval.every=0", "--run-dir"]);
        command.arg(folder.join("run"));
        for (name, value) in mca {
            command.env(format!("OMPI_MCA_{name}"), value);
        }
        let begun = Instant::now();
        let (code, stdout, stderr) = run(&mut command);
        assert_eq!(code, Some(0), "{stdout}{stderr}");
        println!("trained on {hosts} within {:.1} s", begun.elapsed().as_secs_f64());
    }
}

#[test]
fn workers_that_do_not_know_the_launchers_name_reach_it_over_ipv4() {
    let folder = TempDir::new().unwrap();
    let Some(hosts) = Hosts::up(folder.path()) else { return };
    hosts.forget_head();
    hosts.train("h1:1,h2:1", folder.path(), &[], &[]);
}

#[test]
fn workers_reach_the_launcher_where_there_is_ipv6_alone() {
    let folder = TempDir::new().unwrap();
    let Some(hosts) = Hosts::with("up6", folder.path()) else { return };
    hosts.forget_head();
    // Open MPI 4 has IPv6 and does not use it unless it is told.
    let mca = [("oob_tcp_disable_ipv6_family", "0"), ("btl_tcp_disable_family", "4")];
    hosts.train("head:1,h1:1", folder.path(), &[], &mca);
}

#[test]
fn a_network_that_leads_nowhere_keeps_no_worker_from_its_launcher() {
    let folder = TempDir::new().unwrap();
    let Some(hosts) = Hosts::with("up2", folder.path()) else { return };
    hosts.forget_head();
    // Which of the networks MPI may use is the user's to say; the control connection finds out.
    let networks = "10.77.0.0/24";
    let mca = [("btl_tcp_if_include", networks), ("oob_tcp_if_include", networks)];
    hosts.train("head:1,h1:1,h2:1", folder.path(), &[], &mca);
    let again = TempDir::new().unwrap();
    hosts.train("h1:1,h2:1", again.path(), &["--control-address", "10.77.0.1:4477"], &mca);
}

/// A launch that a failed test ends too.
struct Launch(Child);

impl Drop for Launch {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_run_loses_a_host_goes_on_without_it_and_takes_it_back() {
    let folder = TempDir::new().unwrap();
    let Some(hosts) = Hosts::up(folder.path()) else { return };
    let settings =
        ["train.precision=fp64", "train.steps=400", "eval.every=0", "checkpoint.every=20"];
    let (alone, run_dir) = (folder.path().join("alone"), folder.path().join("run"));
    let mut expected = tessera();
    expected.args(["train", "--config", "configs/smoke.toml", "--run-dir"]).arg(&alone);
    let program = tessera().get_program().to_str().unwrap().to_owned();
    let launch = ["head", &program, "launch", "--hosts", "h1:2,h2:2", "--silence", "4"];
    let mut command = hosts.script("run", &launch);
    command.args(["--max-restarts", "3", "--min-workers", "2", "--", "train", "--config"]);
    command.args(["configs/smoke.toml", "--run-dir"]).arg(&run_dir);
    for setting in settings {
        expected.args(["--set", setting]);
        command.args(["--set", setting]);
    }
    let (code, _, stderr) = run(&mut expected);
    assert_eq!(code, Some(0), "{stderr}");

    // Slow enough that there is something left to do.
    let slow = [0, 1].map(|start| format!("start={start},at=data,do=slow,ms=100")).join(";");
    command.env("TESSERA_FAULTS", slow).stdout(Stdio::null());
    let log = folder.path().join("stderr");
    command.stderr(File::create(&log).unwrap());
    let mut launch = Launch(command.spawn().unwrap());
    let told = || std::fs::read_to_string(&log).unwrap();
    let says = |words: &str| {
        wait_until(words, || told().contains(words) || told().contains("error:"));
        assert!(told().contains(words), "{}", told());
    };
    wait_until("the run makes steps", || steps_logged(&run_dir) >= 45);
    hosts.set("cut", "h2");
    let cut = Instant::now();
    // Of its two workers, the one that was silent first.
    says(" on host h2");
    assert!(
        ["from rank 2 on", "from rank 3 on"].iter().any(|who| told().contains(who)),
        "{}",
        told()
    );
    println!("the loss of a host was told after {:.1} s", cut.elapsed().as_secs_f64());
    says("without h2: 2 workers");
    let before = steps_logged(&run_dir);
    wait_until("it goes on with one host", || steps_logged(&run_dir) > before + 10);
    println!("and the next row came after {:.1} s", cut.elapsed().as_secs_f64());
    // Workers that were cut off leave by themselves: nobody takes their heartbeats.
    let orphans = || {
        processes_of(&run_dir).iter().filter(|line| line.contains("tessera-worker train")).count()
    };
    wait_until("the workers that were cut off are gone", || orphans() <= 3);
    println!("no orphan {:.1} s after the cut", cut.elapsed().as_secs_f64());

    hosts.set("join", "h2");
    let victim = worker_pid(&run_dir, 1);
    kill_process(Pid::from_raw(victim).unwrap(), Signal::KILL).unwrap();
    says("all 2 hosts answer: 4 workers");
    let mut code = None;
    wait_until("the run ends", || {
        code = launch.0.try_wait().unwrap();
        code.is_some()
    });
    assert_eq!(code.unwrap().code(), Some(0), "{}", told());
    wait_until("all processes are gone", || processes_of(&run_dir).is_empty());

    // The same samples in the same order on four, two and four workers.
    let (ours, theirs) = (rows(&alone, "metrics.jsonl"), rows(&run_dir, "metrics.jsonl"));
    assert_eq!((ours.len(), theirs.len()), (80, 80));
    for (ours, theirs) in ours.iter().zip(&theirs) {
        assert_close(ours, theirs);
    }
}

/// The worker says what it finds of its environment, what the launcher sends it, and in which command lines of all
/// hosts a secret stands: their processes have one `/proc`.
const TELLS_ITS_ENVIRONMENT: &str = r#"#!/usr/bin/env python3
import glob, hashlib, hmac, json, os, socket, sys

mine = os.environ
secret, attempt, rank = mine["TESSERA_CONTROL_TOKEN"], mine["TESSERA_ATTEMPT"], int(mine["OMPI_COMM_WORLD_RANK"])
for address in mine["TESSERA_CONTROL"].split(","):
    host, port = address.rsplit(":", 1)
    try:
        lines = socket.create_connection((host.strip("[]"), port), 5).makefile("rw")
        break
    except OSError:
        pass
challenge = json.loads(lines.readline())["challenge"]
words = f"{challenge} {attempt} {rank}".encode()
hello = dict(type="hello", proof=hmac.new(secret.encode(), words, hashlib.sha256).hexdigest(), attempt=attempt,
             rank=rank, world_size=2, host=socket.gethostname(), pid=os.getpid())
print(json.dumps(hello), file=lines, flush=True)
sent = json.loads(lines.readline())["environment"]
seen = []
for path in glob.glob("/proc/[0-9]*/cmdline"):
    try:
        text = open(path, "rb").read()
    except OSError:
        continue
    seen += [path for value in (secret, sent["AWS_SECRET_ACCESS_KEY"]) if value.encode() in text]
found = [mine.get(name, "none") for name in ("NCCL_SOCKET_IFNAME", "CHOSEN", "INHERITED", "LEFT_AT_HOME")]
found.append(mine.get("AWS_SECRET_ACCESS_KEY", "none"))
found += [json.dumps(sent), mine["TESSERA_FORWARDED"], f"seen in {seen}"]
print(f"rank {rank} on {socket.gethostname()}: {'; '.join(found)}", file=sys.stderr)
"#;

#[test]
fn settings_and_secrets_reach_workers_on_all_hosts_and_no_command_line_or_log() {
    let folder = TempDir::new().unwrap();
    let Some(hosts) = Hosts::up(folder.path()) else { return };
    let worker = folder.path().join("worker");
    write_program(&worker, TELLS_ITS_ENVIRONMENT);
    let program = tessera().get_program().to_str().unwrap().to_owned();
    let mut launch = hosts.script("run", &["head", &program, "launch", "--hosts", "head:1,h1:1"]);
    launch.args(["--env", "CHOSEN=a b", "--env", "INHERITED", "--verbose", "--", "eval"]);
    launch.env("NCCL_SOCKET_IFNAME", "eth0").env("AWS_SECRET_ACCESS_KEY", "hidden-value");
    launch.env("INHERITED", "c,d").env("LEFT_AT_HOME", "e").env("TESSERA_WORKER", &worker);
    let (_, _, stderr) = run(&mut launch);
    // What is a secret comes from the launcher alone, where it is not inherited.
    for (rank, host, left, inherited) in
        [(0, "head", "e", "hidden-value"), (1, "h1", "none", "none")]
    {
        let mine = format!("rank {rank} on {host}: eth0; a b; c,d; {left}; {inherited};");
        let line = stderr.lines().find(|line| line.contains(&mine));
        let line = line.unwrap_or_else(|| panic!("{mine} in {stderr}"));
        let parts: Vec<&str> = line.rsplitn(4, "; ").collect();
        assert_eq!(parts[0], "seen in []", "{line}");
        let forwarded: Vec<&str> = parts[1].split(',').collect();
        assert!(forwarded.contains(&"CHOSEN") && forwarded.contains(&"NCCL_SOCKET_IFNAME"));
        assert!(!forwarded.contains(&"AWS_SECRET_ACCESS_KEY"), "{line}");
        assert!(parts[2].contains(r#""AWS_SECRET_ACCESS_KEY": "hidden-value""#), "{line}");
    }
    let told = stderr.lines().find(|line| line.contains("environment of all workers: ")).unwrap();
    assert!(told.contains("NCCL_SOCKET_IFNAME") && told.contains("AWS_SECRET_ACCESS_KEY"));
    let by_launcher =
        stderr.lines().filter(|line| !line.contains(" on head: ") && !line.contains(" on h1: "));
    assert!(!by_launcher.collect::<String>().contains("hidden-value"), "{stderr}");
}

/// `tessera-host serve` as the first process of a container, as in a pod that is deleted.
#[test]
fn a_host_that_is_stopped_asks_its_workers_and_stays_until_they_have_left() {
    let folder = TempDir::new().unwrap();
    let missing = ["unshare", "ssh", "sshd", "ssh-keygen"].into_iter().find(|program| {
        let folders = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"];
        !folders.iter().any(|folder| Path::new(folder).join(program).is_file())
    });
    if missing.is_some() || !geteuid().is_root() {
        println!("skipped: needs root, unshare and openssh-server");
        return;
    }
    let home = folder.path().join("home");
    std::fs::create_dir_all(home.join(".ssh")).unwrap();
    std::fs::create_dir_all("/run/sshd").unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let script = std::fs::read_to_string(root().join("docker/host.sh")).unwrap();
    assert!(script.contains("-p 2222"));
    let host = folder.path().join("tessera-host");
    write_program(&host, &script.replace("-p 2222", &format!("-p {port}")));
    // A worker that takes a second for its checkpoint.
    let worker = folder.path().join("tessera-worker");
    let saves =
        "trap 'sleep 1; echo saved; exit 0' USR1\necho ready\nwhile :; do sleep 0.05; done\n";
    write_program(&worker, &format!("#!/bin/sh\n{saves}"));

    let mut container = Command::new("unshare");
    container.args(["--pid", "--fork", "--kill-child", "--mount-proc"]).arg(&host).arg("serve");
    container.env("HOME", &home).env("TMPDIR", folder.path()).stdin(Stdio::null());
    let log = File::create(folder.path().join("log")).unwrap();
    let mut container = Launch(container.stderr(log).spawn().unwrap());
    let told = || std::fs::read_to_string(folder.path().join("log")).unwrap();
    wait_until("it lets others in", || told().contains("Server listening"));

    let ssh = || {
        let mut ssh = Command::new("ssh");
        ssh.args(["-p", &port, "-o", "StrictHostKeyChecking=no", "-o", "LogLevel=ERROR"]);
        ssh.args(["-o", "UserKnownHostsFile=/dev/null", "-o", "BatchMode=yes", "-i"]);
        ssh.arg(home.join(".ssh/id_ed25519")).arg("localhost").stdin(Stdio::null());
        ssh
    };
    let mut session = Launch(ssh().arg(&worker).stdout(Stdio::piped()).spawn().unwrap());
    let mut lines = BufReader::new(session.0.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "ready", "{}", told());

    // The first process inside is the only child of unshare.
    let parent = container.0.id();
    let children = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"));
    let first: i32 = children.unwrap().trim().parse().unwrap();
    kill_process(Pid::from_raw(first).unwrap(), Signal::TERM).unwrap();
    wait_until("it says so", || told().contains("lets nobody in any more"));
    let (code, _, stderr) = run(ssh().arg("true"));
    assert_eq!(code, Some(255), "{stderr}");
    assert_eq!(lines.next().map(Result::unwrap).as_deref(), Some("saved"), "{}", told());
    assert_eq!(session.0.wait().unwrap().code(), Some(0));
    assert_eq!(container.0.wait().unwrap().code(), Some(0), "{}", told());
}
