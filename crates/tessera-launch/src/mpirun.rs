//! Which mpirun there is, and its command line.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::hosts::agent_for_5;
use crate::worker::{on_path, sibling};
use crate::{Host, LaunchError};

/// Who made an `mpirun`: they share the name and little else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Vendor {
    /// Open MPI.
    OpenMpi {
        /// Major version; from 5 on the run-time is PRRTE.
        major: u32,
    },
    /// MPICH and its descendants, with the Hydra process manager.
    Mpich,
}

/// An `mpirun` that answered to `--version`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mpirun {
    /// Path of the program.
    pub path: PathBuf,
    /// Who made it.
    pub vendor: Vendor,
    /// The first line that tells its version.
    pub version: String,
}

/// What `mpirun` is asked for.
#[derive(Debug)]
pub(crate) struct Job<'a> {
    pub(crate) world_size: usize,
    pub(crate) hostfile: Option<&'a Path>,
    pub(crate) bind_to: &'a str,
    /// Names of the environment variables that remote workers get.
    pub(crate) exported: &'a [String],
    /// More arguments, of `--mpirun-args`.
    pub(crate) more: &'a [OsString],
    /// The worker and its arguments.
    pub(crate) command: &'a [OsString],
}

impl Mpirun {
    /// Takes the `mpirun` named, or the one beside this program, whose libraries a program of a Python wheel is linked to, or the first
    /// one on the path, and asks who made it.
    ///
    /// # Errors
    ///
    /// [`LaunchError::NoMpirun`] or [`LaunchError::BrokenMpirun`].
    pub fn find(named: Option<&Path>) -> Result<Self, LaunchError> {
        let path = match named {
            Some(path) if path.is_file() => path.to_owned(),
            Some(path) => {
                return Err(LaunchError::NoMpirun { looked_for: path.display().to_string() });
            }
            None => sibling("mpirun")
                .or_else(|| on_path("mpirun"))
                .ok_or_else(|| LaunchError::NoMpirun { looked_for: "mpirun".into() })?,
        };
        let broken = |problem: String| LaunchError::BrokenMpirun { path: path.clone(), problem };
        let output = Command::new(&path)
            .arg("--version")
            .envs(as_root())
            .envs(home())
            .stdin(Stdio::null())
            .output()
            .map_err(|error| broken(format!("cannot run ({error})")))?;
        let text = String::from_utf8_lossy(&output.stdout);
        let (vendor, version) =
            parse_version(&text).map_err(|problem| broken(problem.to_owned()))?;
        Ok(Self { path, vendor, version })
    }

    /// Signals to keep from this `mpirun`.
    ///
    /// A batch system that ends a job sends SIGTERM to every process of it, and Open MPI's mpirun
    /// would kill, a second later, ranks that are still saving. `odls_base_sigkill_timeout` is no
    /// way out: mpirun sleeps for all of it, deaf to output, after any rank's code other than 0.
    /// Open MPI clears the mask for its ranks; Hydra does not, so it hears everything.
    pub(crate) fn blocked_signals(&self) -> &'static [i32] {
        match self.vendor {
            Vendor::OpenMpi { .. } => &[SIGHUP, SIGINT, SIGTERM],
            Vendor::Mpich => &[],
        }
    }

    /// Settings of its own that this `mpirun` is started with where the user has set none: as variables, since
    /// Open MPI refuses an option that a user's arguments have, too.
    pub(crate) fn settings(&self, hosts: &[Host]) -> Vec<(&'static str, OsString)> {
        match self.vendor {
            Vendor::OpenMpi { major } => {
                let mut settings = vec![YIELDS];
                if major < 5 {
                    // openib warns wherever there is InfiniBand.
                    settings.push(("OMPI_MCA_btl", "^openib"));
                    if hosts.iter().any(Host::is_ipv6) {
                        settings.push(("OMPI_MCA_regx", "naive")); // only this one takes colons in names
                    }
                }
                settings.retain(|(name, _)| std::env::var_os(name).is_none());
                let agent = (major >= 5).then(|| agent_for_5(|name| std::env::var_os(name)));
                let settings = settings.into_iter().map(|(name, value)| (name, value.into()));
                settings.chain(agent.flatten()).collect()
            }
            Vendor::Mpich => Vec::new(),
        }
    }

    /// The arguments that start `job`.
    pub(crate) fn arguments(&self, job: &Job<'_>) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = vec!["-n".into(), job.world_size.to_string().into()];
        let mut push = |words: &[&str]| arguments.extend(words.iter().map(OsString::from));
        match self.vendor {
            Vendor::OpenMpi { .. } => {
                push(&["--bind-to", job.bind_to, "--map-by", "slot:OVERSUBSCRIBE"]);
                for name in job.exported {
                    push(&["-x", name]);
                }
            }
            Vendor::Mpich => {
                push(&["-bind-to", job.bind_to]);
                if !job.exported.is_empty() {
                    push(&["-genvlist", &job.exported.join(",")]);
                }
            }
        }
        if let Some(hostfile) = job.hostfile {
            let flag = if self.vendor == Vendor::Mpich { "-f" } else { "--hostfile" };
            arguments.extend([flag.into(), hostfile.into()]);
        }
        arguments.extend(job.more.iter().cloned());
        arguments.extend(job.command.iter().cloned());
        arguments
    }
}

/// A rank of Open MPI that waits for another lets others have its core, which it would do by itself only where
/// there are more ranks than cores: with as many it burns what another program, or another run, needs. On a quiet
/// machine it costs nothing that can be measured (docs/results/2026-11-26-ranks.md). MPICH's ranks do so anyway.
const YIELDS: (&str, &str) = ("OMPI_MCA_mpi_yield_when_idle", "1");

/// Variables without which Open MPI refuses to run as root, as it would in any container.
pub(crate) fn as_root() -> Vec<(&'static str, &'static str)> {
    if !rustix::process::geteuid().is_root() {
        return Vec::new();
    }
    vec![
        ("OMPI_ALLOW_RUN_AS_ROOT", "1"),
        ("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1"),
        ("PRTE_ALLOW_RUN_AS_ROOT", "1"),
        ("PRTE_ALLOW_RUN_AS_ROOT_CONFIRM", "1"),
    ]
}

/// How threads of a worker are to wait for one another, where the user has not said so: asleep after a
/// thousand looks. libgomp looks 300,000 times, and where others take cores from the threads, those that wait
/// burn the time that the one they wait for needs; asleep at once, a small step on a quiet machine takes 1.7
/// times as long (docs/results/2026-11-26-threads.md).
///
/// It has to be in the environment before the program starts: libgomp reads it when it is loaded.
pub fn waiting_of_threads() -> Option<(&'static str, &'static str)> {
    const SAYS_SO: [&str; 3] = ["OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"];
    let said = SAYS_SO.iter().any(|name| std::env::var_os(name).is_some());
    (!said).then_some(("GOMP_SPINCOUNT", "1000"))
}

/// A home for an mpirun without one: the PMIx in Open MPI crashes where `HOME` is not set and the user has no
/// entry in the list of users, as in a container with `--user 12345`.
pub(crate) fn home() -> Option<(&'static str, &'static str)> {
    std::env::var_os("HOME").is_none().then_some(("HOME", "/"))
}

/// The words of `--mpirun-args`, split and unquoted as a shell does.
///
/// # Errors
///
/// [`LaunchError::MpirunArgs`] if a quote is not closed.
pub fn split_arguments(text: &str) -> Result<Vec<OsString>, LaunchError> {
    let words = shell_words::split(text)
        .map_err(|error| LaunchError::MpirunArgs { problem: error.to_string() })?;
    Ok(words.into_iter().map(OsString::from).collect())
}

/// Who it is; or why it is nobody that workers can be started with.
fn parse_version(text: &str) -> Result<(Vendor, String), &'static str> {
    if text.contains("Intel(R) MPI") {
        return Err("says that it is Intel MPI, with which Tessera has not been tried");
    }
    known_version(text).ok_or("names neither Open MPI nor MPICH")
}

fn known_version(text: &str) -> Option<(Vendor, String)> {
    let line = |word: &str| text.lines().find(|line| line.contains(word)).map(str::trim);
    if let Some(line) = line("Open MPI").or_else(|| line("OpenRTE")) {
        let number = line.rsplit(' ').next()?;
        let major = number.split('.').next()?.parse().ok()?;
        return Some((Vendor::OpenMpi { major }, line.to_owned()));
    }
    if text.contains("HYDRA") || text.contains("MPICH") {
        let version = line("Version:").unwrap_or("MPICH");
        let version: Vec<&str> = version.split_whitespace().collect();
        return Some((Vendor::Mpich, format!("MPICH {}", version.join(" "))));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(vendor: Vendor, hostfile: Option<&Path>) -> String {
        let mpirun = Mpirun { path: "mpirun".into(), vendor, version: String::new() };
        let job = Job {
            world_size: 3,
            hostfile,
            bind_to: "none",
            exported: &["TESSERA_CONTROL".into(), "RUST_LOG".into()],
            more: &["--mca".into(), "btl".into(), "self,tcp".into()],
            command: &["w".into(), "train".into(), "--config".into(), "c d".into()],
        };
        let arguments = mpirun.arguments(&job);
        arguments.iter().map(|word| word.to_str().unwrap()).collect::<Vec<_>>().join("|")
    }

    #[test]
    fn vendors_are_told_apart_by_their_own_words() {
        let open = "mpirun (Open MPI) 4.1.4\n\nReport bugs to http://www.open-mpi.org/\n";
        assert_eq!(parse_version(open).unwrap().0, Vendor::OpenMpi { major: 4 });
        assert_eq!(
            parse_version("mpirun (Open MPI) 5.0.11\n").unwrap().0,
            Vendor::OpenMpi { major: 5 }
        );
        let mpich = "HYDRA build details:\n    Version:                4.0.2\n";
        assert_eq!(parse_version(mpich).unwrap(), (Vendor::Mpich, "MPICH Version: 4.0.2".into()));
        assert!(parse_version("srun 23.1").unwrap_err().contains("neither"));
        let intel = "Intel(R) MPI Library for Linux* OS, Version 2021.8 Build 20221129\n";
        assert!(parse_version(intel).unwrap_err().contains("Intel MPI"));
    }

    #[test]
    fn open_mpi_is_told_not_to_bind_and_may_oversubscribe() {
        assert_eq!(
            words(Vendor::OpenMpi { major: 4 }, None),
            "-n|3|--bind-to|none|--map-by|slot:OVERSUBSCRIBE|-x|TESSERA_CONTROL|-x|RUST_LOG|\
             --mca|btl|self,tcp|w|train|--config|c d"
        );
    }

    #[test]
    fn mpich_gets_its_own_spelling() {
        assert_eq!(
            words(Vendor::Mpich, Some(Path::new("hosts"))),
            "-n|3|-bind-to|none|-genvlist|TESSERA_CONTROL,RUST_LOG|-f|hosts|--mca|btl|self,tcp|\
             w|train|--config|c d"
        );
    }

    #[test]
    fn arguments_for_mpirun_are_split_as_in_a_shell() {
        let words = split_arguments(r#"--mca btl "self,tcp" -x 'A B' c\ d"#).unwrap();
        assert_eq!(words, ["--mca", "btl", "self,tcp", "-x", "A B", "c d"]);
        assert_eq!(split_arguments("").unwrap(), [""; 0]);
        let told = split_arguments("--mca 'btl").unwrap_err().to_string();
        assert!(told.contains("--mpirun-args") && told.contains("quote"), "{told}");
    }

    #[test]
    fn addresses_of_ipv6_are_kept_from_what_takes_names_apart() {
        let open = |major| Vendor::OpenMpi { major };
        let names = |vendor, host: &str| {
            let mpirun = Mpirun { path: "mpirun".into(), vendor, version: String::new() };
            mpirun.settings(&[Host::new(host, 1)]).into_iter().map(|(name, _)| name).collect()
        };
        let is = |found: Vec<&str>, expected: &[&str]| assert_eq!(found, expected);
        is(names(open(4), "fd00::1"), &[YIELDS.0, "OMPI_MCA_btl", "OMPI_MCA_regx"]);
        is(names(open(4), "n1"), &[YIELDS.0, "OMPI_MCA_btl"]);
        is(names(open(5), "fd00::1"), &[YIELDS.0]);
        is(names(Vendor::Mpich, "n1"), &[]);
    }
}
