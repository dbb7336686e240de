//! Several hosts, each with an address, a name and an sshd of its own: a run loses one, goes on with
//! those left, and takes it back at the next restart; workers find their launcher over IPv4, over IPv6, past
//! a network that leads nowhere, and without knowing its name. The hosts are network namespaces of this machine
//! (`launch/test-hosts.sh`); between them is the real mpirun over ssh.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use rustix::process::{Pid, Signal, geteuid, kill_process};
use tempfile::TempDir;

use crate::resume::assert_close;
use crate::support::{
    processes_of, root, rows, run, steps_logged, tessera, wait_until, worker_pid,
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
