//! The hosts of a run, and which of them answer.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::listener::host_name;
use crate::{LaunchError, Vendor};

/// How long a host may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Open MPI's name for the program with which it reaches hosts, and its options.
const AGENT: &str = "OMPI_MCA_plm_rsh_agent";

/// A host and how many workers it takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Its name, as ssh and mpirun know it.
    pub name: String,
    /// Workers.
    pub slots: usize,
}

impl Host {
    /// Whether it is the launcher's own host, which needs neither ssh nor a network.
    pub(crate) fn is_here(&self) -> bool {
        is_name_of(&self.name, &host_name())
    }
}

fn is_name_of(name: &str, own: &str) -> bool {
    ["localhost", "127.0.0.1", "::1", own].contains(&name) || own.split('.').next() == Some(name)
}

/// Hosts as a person types them: `h1:4,h2:4`.
///
/// # Errors
///
/// [`LaunchError::Hosts`].
pub fn parse_hosts(text: &str) -> Result<Vec<Host>, LaunchError> {
    let hosts: Result<Vec<Host>, &str> =
        text.split(',').filter_map(|word| parse_host(word).transpose()).collect();
    let wrong = |problem: String| LaunchError::Hosts { problem };
    let hosts = hosts.map_err(|word| wrong(format!("has no number of workers in `{word}`")))?;
    check(&hosts).map_err(wrong)?;
    Ok(hosts)
}

/// Hosts from a file, a line each: `host slots=4` (Open MPI), `host:4` (MPICH), `host` for one.
///
/// # Errors
///
/// [`LaunchError::Hostfile`].
pub fn read_hostfile(path: &Path) -> Result<Vec<Host>, LaunchError> {
    let wrong = |problem: String| LaunchError::Hostfile { path: path.to_owned(), problem };
    let text = std::fs::read_to_string(path)
        .map_err(|error| wrong(format!("cannot be read ({error}): name an existing file")))?;
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default());
    let hosts: Result<Vec<Host>, &str> =
        lines.filter_map(|line| parse_host(line).transpose()).collect();
    let hosts = hosts
        .map_err(|line| wrong(format!("has no number of slots in `{line}`: write HOST slots=N")))?;
    check(&hosts).map_err(wrong)?;
    Ok(hosts)
}

/// A host in either spelling; none in an empty line.
fn parse_host(text: &str) -> Result<Option<Host>, &str> {
    let text = text.trim();
    let Some(name) = text.split([' ', '\t', ':']).next().filter(|name| !name.is_empty()) else {
        return Ok(None);
    };
    let given = text.split_once("slots=").map(|(_, rest)| rest);
    let given = given.or_else(|| text.split_once(':').map(|(_, rest)| rest));
    let slots = given.map_or("1", |rest| rest.split_whitespace().next().unwrap_or_default());
    let slots = slots.parse().map_err(|_| text)?;
    Ok(Some(Host { name: name.to_owned(), slots }))
}

fn check(hosts: &[Host]) -> Result<(), String> {
    if hosts.iter().map(|host| host.slots).sum::<usize>() == 0 {
        return Err("names no host: write one `HOST slots=N` a line, or HOST:N".to_owned());
    }
    for (at, host) in hosts.iter().enumerate() {
        if host.name.starts_with('-') {
            return Err(format!("has {:?}, which is no name of a host", host.name));
        }
        if hosts[..at].iter().any(|other| other.name == host.name) {
            return Err(format!("names {} twice: write it once with all its slots", host.name));
        }
    }
    Ok(())
}

/// The hosts that answer now. They are asked all at once, in the way that mpirun reaches them; the launcher's
/// own is there.
pub(crate) fn reachable(hosts: &[Host]) -> Vec<Host> {
    let ask = |host: &Host| {
        let connect = format!("ConnectTimeout={}", PATIENCE.as_secs());
        let agent = std::env::var(AGENT).unwrap_or_default();
        let mut words = agent.split_whitespace();
        let mut ssh = Command::new(words.next().unwrap_or("ssh"));
        ssh.args(words).args([
            "-x",
            "-o",
            "BatchMode=yes",
            "-o",
            &connect,
            "--",
            &host.name,
            "true",
        ]);
        ssh.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().ok()
    };
    let ask = |host| if Host::is_here(host) { None } else { ask(host) };
    let mut asked: Vec<_> = hosts.iter().map(|host| (host, ask(host))).collect();
    let deadline = Instant::now() + PATIENCE + Duration::from_secs(1);
    let mut found = Vec::new();
    for (host, child) in &mut asked {
        let Some(child) = child else {
            found.extend(host.is_here().then(|| (*host).clone()));
            continue;
        };
        let status = loop {
            match child.try_wait() {
                Ok(None) if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                Ok(status) => break status,
                Err(_) => break None,
            }
        };
        if status.is_none() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if status.is_some_and(|status| status.success()) {
            found.push((*host).clone());
        }
    }
    found
}

/// Writes a host file for this `mpirun`.
pub(crate) fn write_hostfile(
    path: PathBuf,
    hosts: &[Host],
    vendor: Vendor,
) -> Result<PathBuf, LaunchError> {
    let line = |host: &Host| match vendor {
        Vendor::OpenMpi { .. } => format!("{} slots={}\n", host.name, host.slots),
        Vendor::Mpich => format!("{}:{}\n", host.name, host.slots),
    };
    let text: String = hosts.iter().filter(|host| host.slots > 0).map(line).collect();
    std::fs::File::create(&path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(LaunchError::system("write a host file"))?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(name: &str, slots: usize) -> Host {
        Host { name: name.to_owned(), slots }
    }

    #[test]
    fn hosts_are_read_in_every_spelling() {
        let expected = [host("a", 4), host("b", 2), host("c", 1)];
        assert_eq!(parse_hosts("a:4,b:2,c").unwrap(), expected);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hosts");
        std::fs::write(&path, "# cluster\na slots=4 max_slots=8\nb:2\n\nc # the last\n").unwrap();
        assert_eq!(read_hostfile(&path).unwrap(), expected);
        let written = write_hostfile(folder.path().join("w"), &expected, Vendor::Mpich).unwrap();
        assert_eq!(std::fs::read_to_string(written).unwrap(), "a:4\nb:2\nc:1\n");
    }

    #[test]
    fn a_host_knows_itself() {
        for name in ["localhost", "127.0.0.1", "::1", "n1", "n1.cluster"] {
            assert!(is_name_of(name, "n1.cluster"), "{name}");
        }
        for name in ["n", "n2", "n1.other", ""] {
            assert!(!is_name_of(name, "n1.cluster"), "{name}");
        }
        // Without asking over the network.
        let here = [host("localhost", 2)];
        assert_eq!(reachable(&here), here);
    }

    #[test]
    fn the_example_is_a_host_file() {
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../launch/hostfile.example");
        assert_eq!(read_hostfile(&example).unwrap(), [host("node1", 4), host("node2", 4)]);
    }

    #[test]
    fn what_is_no_list_of_hosts_is_refused_with_what_to_do() {
        for (text, words) in [
            ("a:many", "no number of workers in `a:many`"),
            ("", "names no host"),
            ("a:0", "names no host"),
            ("a:1,a:2", "names a twice"),
            ("-oProxyCommand=x:1", "no name of a host"),
        ] {
            let error = parse_hosts(text).unwrap_err().to_string();
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
