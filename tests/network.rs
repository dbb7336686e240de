//! A network between workers and their launcher that forgets connections: both sides see them reset, the run
//! goes on, and what was said meanwhile arrives.

use std::fs::{File, Permissions};
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustix::net::sockopt::set_socket_linger;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::support::{processes_of, steps_logged, tessera, train, wait_until, worker_pid};

/// Whatever goes through it is reset when it is cut.
struct Network {
    address: String,
    cuts: Arc<AtomicUsize>,
    passed: Arc<AtomicUsize>,
}

impl Network {
    /// A way to the address that will stand in the file.
    fn to(target: PathBuf) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (cuts, passed) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (theirs, count) = (Arc::clone(&cuts), Arc::clone(&passed));
        std::thread::spawn(move || {
            for near in listener.incoming().flatten() {
                let target = std::fs::read_to_string(&target).unwrap();
                let Ok(far) = TcpStream::connect(target.trim()) else { continue };
                count.fetch_add(1, Ordering::Release);
                let (near, far) = (Arc::new(near), Arc::new(far));
                for (from, to) in [(&near, &far), (&far, &near)] {
                    let (from, to, cuts) = (Arc::clone(from), Arc::clone(to), Arc::clone(&theirs));
                    std::thread::spawn(move || pass(&from, &to, &cuts));
                }
            }
        });
        Self { address, cuts, passed }
    }

    /// Resets every connection.
    fn cut(&self) {
        self.cuts.fetch_add(1, Ordering::Release);
    }
}

/// Passes bytes on until the end, or until the network is cut.
fn pass(mut from: &TcpStream, mut to: &TcpStream, cuts: &AtomicUsize) {
    let before = cuts.load(Ordering::Acquire);
    from.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    let mut bytes = [0; 4096];
    while cuts.load(Ordering::Acquire) == before {
        match from.read(&mut bytes) {
            Ok(0) => return drop(to.shutdown(std::net::Shutdown::Write)),
            Ok(read) => {
                if to.write_all(&bytes[..read]).is_err() {
                    return;
                }
            }
            Err(error) if [ErrorKind::WouldBlock, ErrorKind::TimedOut].contains(&error.kind()) => {}
            Err(_) => return,
        }
    }
    // The last of the two threads closes both, without a word.
    for stream in [from, to] {
        let _ = set_socket_linger(stream, Some(Duration::ZERO));
    }
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A worker that reaches its launcher through the network alone.
fn through(network: &Network, target: &Path, folder: &Path) -> PathBuf {
    let program = tessera();
    let worker = Path::new(program.get_program()).with_file_name("tessera-worker");
    let (script, target, address) = (folder.join("worker"), target.display(), &network.address);
    let text = format!(
        "#!/bin/sh\nif [ \"$1\" = train ]; then\n  echo \"$TESSERA_CONTROL\" >{target}.$$ && mv {target}.$$ {target}\n  \
         export TESSERA_CONTROL={address}\nfi\nexec {} \"$@\"\n",
        worker.display()
    );
    std::fs::write(&script, text).unwrap();
    std::fs::set_permissions(&script, Permissions::from_mode(0o755)).unwrap();
    script
}

#[test]
fn connections_that_break_are_made_anew_and_a_killed_worker_is_told_at_once() {
    let folder = TempDir::new().unwrap();
    let (run_dir, target) = (folder.path().join("run"), folder.path().join("launcher"));
    let network = Network::to(target.clone());
    let settings = ["train.steps=1000000", "checkpoint.every=0", "eval.every=0", "metrics.every=1"];
    let mut command = train(2, &run_dir, &settings);
    command.env("TESSERA_WORKER", through(&network, &target, folder.path()));
    let log = folder.path().join("stderr");
    command.stderr(File::create(&log).unwrap()).stdout(File::create("/dev/null").unwrap());
    let mut running = Running(command.spawn().unwrap());
    let told = || std::fs::read_to_string(&log).unwrap();
    let back = |rank: u32| {
        let start = format!("rank {rank} on host ");
        let returns = |line: &&str| line.starts_with(&start) && line.contains(" is back: ");
        told().lines().filter(returns).count()
    };
    wait_until("the run makes steps", || steps_logged(&run_dir) >= 3);
    for cut in 1..=3 {
        network.cut();
        wait_until("both are back", || back(0) >= cut && back(1) >= cut);
        assert!(running.0.try_wait().unwrap().is_none(), "{}", told());
    }
    assert_eq!(network.passed.load(Ordering::Acquire), 8, "one a worker, and one for each break");
    let before = steps_logged(&run_dir);
    wait_until("the run goes on", || steps_logged(&run_dir) > before + 3);

    let victim = Pid::from_raw(worker_pid(&run_dir, 1)).unwrap();
    kill_process(victim, Signal::KILL).unwrap();
    let mut status = None;
    wait_until("the run ends", || {
        status = running.0.try_wait().unwrap();
        status.is_some()
    });
    assert_eq!(status.unwrap().code(), Some(3), "{}", told());
    assert!(told().contains("worker lost: rank 1 on host "), "{}", told());
    wait_until("all processes are gone", || processes_of(&run_dir).is_empty());
}
