//! A training as a Slurm job: over two nodes by mpirun, preempted, queued again, resumed, finished; by srun in
//! `./launch/test.sh --full`. The Slurm is real, its nodes are network namespaces of this machine
//! (`launch/test-slurm.sh`).

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::geteuid;
use tempfile::TempDir;

use crate::support::{root, rows, run, steps_logged, tessera, wait_until, write_program};

/// The last of the devices that stand for GPUs, tty10 and tty11.
const LAST_DEVICE: &str = "/dev/tty11";

/// A Slurm that goes away with it.
struct Slurm(PathBuf);

impl Slurm {
    /// A head and two nodes, with two devices each that stand for GPUs where there are such; none, with the reason
    /// printed, where the system has no Slurm.
    fn up(folder: &Path) -> Option<Self> {
        let programs = ["ip", "ssh-keygen", "sshd", "munged", "slurmctld", "slurmd", "sbatch"];
        let missing = programs.into_iter().find(|program| {
            let folders = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"];
            !folders.iter().any(|folder| Path::new(folder).join(program).is_file())
        });
        if let Some(program) = missing {
            println!(
                "skipped: {program} is missing (apt-get install slurmctld slurmd slurm-client munge)"
            );
            return None;
        }
        if !geteuid().is_root() {
            println!("skipped: making network namespaces needs root");
            return None;
        }
        let slurm = Self(folder.join("slurm"));
        let mut up = slurm.script("up", &["head", "n1", "n2"]);
        if Path::new(LAST_DEVICE).exists() {
            up.env("GPUS", "2");
        }
        let (code, _, stderr) = run(&mut up);
        if code != Some(0) {
            println!("skipped: no Slurm here: {stderr}");
            return None;
        }
        Some(slurm)
    }

    /// Slow steps, so that none of the runs ends before it is interrupted.
    fn script(&self, what: &str, words: &[&str]) -> Command {
        let mut command = Command::new(root().join("launch/test-slurm.sh"));
        command.arg(what).arg(&self.0).args(words).current_dir(root()).stdin(Stdio::null());
        let program = tessera();
        command.env("TESSERA_BIN", Path::new(program.get_program()).parent().unwrap());
        command.env("TESSERA_FAULTS", "at=data,do=slow,ms=50");
        command
    }

    /// What a command of Slurm's prints.
    fn says(&self, words: &[&str]) -> String {
        let (code, stdout, stderr) = run(&mut self.script("run", words));
        assert_eq!(code, Some(0), "{words:?}: {stdout}{stderr}");
        stdout.trim().to_owned()
    }

    /// Whether a node still keeps a socket of the job's step, as `n1_3.0` or `stepd.slurm.pmix.3.0`.
    fn holds_a_step(&self, job: &str) -> bool {
        let step = format!("{job}.0");
        ["n1", "n2"].into_iter().any(|node| {
            let mut files = std::fs::read_dir(self.0.join(format!("spool-{node}"))).unwrap();
            files.any(|file| file.unwrap().file_name().to_string_lossy().ends_with(&step))
        })
    }

    /// A job's field, such as `JobState`.
    fn field(&self, job: &str, name: &str) -> String {
        let text = self.says(&["scontrol", "show", "job", job]);
        let words = text.split_whitespace();
        let value = words.filter_map(|word| word.split_once('=')).find(|(key, _)| *key == name);
        value.map_or(String::new(), |(_, value)| value.to_owned())
    }
}

impl Drop for Slurm {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for log in ["slurmctld.log", "slurmd-n1.log", "slurmd-n2.log"] {
                let text = std::fs::read_to_string(self.0.join(log)).unwrap_or_default();
                let lines: Vec<&str> = text.lines().collect();
                println!("{log} ends:\n{}", lines[lines.len().saturating_sub(40)..].join("\n"));
            }
        }
        let _ = self.script("down", &[]).status();
    }
}

/// Submits `launch/slurm.sbatch` for two nodes; the job, and its log.
fn submit(slurm: &Slurm, start: &str, run_dir: &Path) -> (String, PathBuf) {
    let log = run_dir.with_extension("log");
    let (export, output) = (format!("ALL,TESSERA_SLURM_START={start}"), log.to_str().unwrap());
    let job = slurm.says(&[
        "sbatch",
        "--parsable",
        "--export",
        &export,
        "--output",
        output,
        "--time",
        "10",
        "launch/slurm.sbatch",
        "--config",
        "configs/smoke.toml",
        "--run-dir",
        run_dir.to_str().unwrap(),
        "--set",
        "train.steps=200",
        "--set",
        "eval.every=100",
    ]);
    (job, log)
}

fn finishes(slurm: &Slurm, job: &str, log: &Path, run_dir: &Path) {
    // Slurm lets a job that was queued again wait for two minutes. Sooner, a step that still ends would meet that
    // of the next start, which has the same name; and within the same second the nodes take the next start for the
    // one that they have just ended ("already killed").
    wait_until("the job is queued again", || slurm.field(job, "JobState") == "PENDING");
    wait_until("its steps are gone from both nodes", || !slurm.holds_a_step(job));
    slurm.says(&["scontrol", "update", &format!("JobId={job}"), "StartTime=now+2"]);
    let mut state = String::new();
    wait_until("the job has ended", || {
        state = slurm.field(job, "JobState");
        !["PENDING", "RUNNING", "COMPLETING"].contains(&&*state)
    });
    let said = std::fs::read_to_string(log).unwrap();
    assert_eq!(state, "COMPLETED", "{said}");
    assert_eq!(slurm.field(job, "Restarts"), "1");
    assert!(said.contains("queued again") && said.contains("resuming from step"), "{said}");
    println!("{}", said.lines().find(|line| line.contains("resuming from step")).unwrap());
    let steps: Vec<u64> =
        rows(run_dir, "metrics.jsonl").iter().map(|row| row["step"].as_u64().unwrap()).collect();
    assert_eq!(steps, (5..=200).step_by(5).collect::<Vec<_>>(), "no row is lost or written twice");
}

/// By mpirun under the launcher.
#[test]
fn a_job_over_two_nodes_has_all_its_gpus_is_preempted_queued_again_and_finishes() {
    let folder = TempDir::new().unwrap();
    let Some(slurm) = Slurm::up(folder.path()) else { return };
    let all = [(0, "n1", "0,1"), (1, "n1", "0,1"), (2, "n2", "0,1"), (3, "n2", "0,1")];
    see_gpus(&slurm, folder.path(), &[(&["--ntasks-per-node=2", "--gpus-per-task=1"], &all)]);

    // A job of higher priority takes the nodes.
    let run_dir = folder.path().join("launched");
    let (job, log) = submit(&slurm, "mpirun", &run_dir);
    wait_until("it trains", || steps_logged(&run_dir) >= 20);
    let urgent =
        ["sbatch", "--parsable", "-p", "high", "-N", "2", "--exclusive", "-o", "/dev/null"];
    let urgent = slurm.says(&[&urgent[..], &["--wrap", "sleep 1"]].concat());
    finishes(&slurm, &job, &log, &run_dir);
    assert_eq!(slurm.field(&urgent, "JobState"), "COMPLETED");
    let said = std::fs::read_to_string(&log).unwrap();
    assert!(said.contains("2 workers on 2 hosts"), "{said}");
}

/// Words of sbatch, and which GPUs each rank on which node sees then.
type Asked<'a> = (&'a [&'a str], &'a [(usize, &'a str, &'a str)]);

/// mpirun starts the workers of the second node by srun, which would give them what one task was to have.
fn see_gpus(slurm: &Slurm, folder: &Path, jobs: &[Asked<'_>]) {
    if !Path::new(LAST_DEVICE).exists() {
        println!("skipped: no {LAST_DEVICE} to stand for a GPU");
        return;
    }
    let worker = folder.join("worker");
    let says = "echo \"rank $OMPI_COMM_WORLD_RANK on $(hostname) sees $CUDA_VISIBLE_DEVICES\"";
    write_program(&worker, &format!("#!/bin/sh\n{says} >&2\n"));
    let launch = format!("{} launch -- eval", tessera().get_program().to_str().unwrap());
    for (number, (how, expected)) in jobs.iter().enumerate() {
        let log = folder.join(number.to_string());
        let asked = ["sbatch", "--wait", "--nodes=2", "--output", log.to_str().unwrap()];
        let mut job = slurm.script("run", &[&asked[..], how, &["--wrap", &launch]].concat());
        // The job ends as workers that say nothing end.
        run(job.env("TESSERA_WORKER", &worker));
        let said = std::fs::read_to_string(&log).unwrap();
        for (rank, node, gpus) in *expected {
            let line = format!("rank {rank} on {node} sees {gpus}\n");
            assert!(said.contains(&line), "{how:?}: {said}");
        }
    }
}

mod full {
    use super::*;

    #[test]
    fn all_workers_see_all_gpus_of_their_node_however_the_job_asked_for_them() {
        let all = [(0, "n1", "0,1"), (1, "n1", "0,1"), (2, "n2", "0,1"), (3, "n2", "0,1")];
        let uneven = [(0, "n1", "0,1"), (1, "n1", "0,1"), (2, "n2", "0")];
        let folder = TempDir::new().unwrap();
        let Some(slurm) = Slurm::up(folder.path()) else { return };
        let jobs: [Asked<'_>; 3] = [
            (&["--ntasks-per-node=2", "--gpus=4"], &all),
            (&["--ntasks-per-node=2", "--gpus-per-node=2"], &all),
            (&["--ntasks=3", "--gpus-per-task=1"], &uneven),
        ];
        see_gpus(&slurm, folder.path(), &jobs);
    }

    /// By srun and PMIx, without the launcher.
    #[test]
    fn a_job_that_is_warned_before_its_time_is_up_is_queued_again_and_finishes() {
        let folder = TempDir::new().unwrap();
        let Some(slurm) = Slurm::up(folder.path()) else { return };
        let run_dir = folder.path().join("srun");
        let (job, log) = submit(&slurm, "srun", &run_dir);
        wait_until("it trains", || steps_logged(&run_dir) >= 20);
        slurm.says(&["scancel", "--batch", "--signal=USR1", &job]);
        finishes(&slurm, &job, &log, &run_dir);
        let log = std::fs::read_to_string(run_dir.join("logs/rank-0.jsonl")).unwrap();
        assert!(
            log.contains("SLURM_STEP_NUM_TASKS=2") || log.contains("OMPI_COMM_WORLD_SIZE=2"),
            "{log}"
        );
    }
}
