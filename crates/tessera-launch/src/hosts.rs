//! The hosts of a run, and which of them answer.

use std::ffi::OsString;
use std::io::Write;
use std::net::Ipv6Addr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tessera_control::ended_by;

use crate::addresses::host_name;
use crate::{LaunchError, Vendor};

/// How long a host may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Names for the program with which an mpirun reaches hosts, and its options: as variables, the first that is set
/// counts, and as words on its command line.
struct AgentNames {
    variables: &'static [&'static str],
    words: &'static [&'static str],
}

const OPEN_MPI_4: AgentNames = AgentNames {
    variables: &[AGENT_OF_4, "OMPI_MCA_orte_rsh_agent"],
    words: &["plm_rsh_agent", "orte_rsh_agent"],
};
/// The launcher hands the variables of 4, which 5 does not know, on to it ([`agent_for_5`]).
const OPEN_MPI_5: AgentNames = AgentNames {
    variables: &[AGENT_OF_5, AGENT_OF_4, "OMPI_MCA_orte_rsh_agent"],
    words: &["plm_ssh_agent", "plm_rsh_agent"],
};
const MPICH: AgentNames = AgentNames {
    variables: &["HYDRA_LAUNCHER_EXEC", "HYDRA_BOOTSTRAP_EXEC"],
    words: &["-launcher-exec", "--launcher-exec", "-bootstrap-exec", "--bootstrap-exec"],
};
const AGENT_OF_4: &str = "OMPI_MCA_plm_rsh_agent";
const AGENT_OF_5: &str = "PRTE_MCA_plm_ssh_agent";

/// A host and how many workers it takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Its name, as ssh and mpirun know it.
    pub name: String,
    /// The user to log in as, where it is another one than here.
    pub user: Option<String>,
    /// Workers.
    pub slots: usize,
}

impl Host {
    /// A host with so many workers of the same user.
    pub fn new(name: impl Into<String>, slots: usize) -> Self {
        Self { name: name.into(), user: None, slots }
    }

    /// Whether it is the launcher's own host, which needs neither ssh nor a network.
    pub(crate) fn is_here(&self) -> bool {
        is_name_of(&self.name, &host_name())
    }

    /// What ssh connects to.
    pub(crate) fn login(&self) -> String {
        match &self.user {
            Some(user) => format!("{user}@{}", self.name),
            None => self.name.clone(),
        }
    }

    /// Whether it is named by an address of IPv6.
    pub(crate) fn is_ipv6(&self) -> bool {
        self.name.parse::<Ipv6Addr>().is_ok()
    }
}

fn is_name_of(name: &str, own: &str) -> bool {
    ["localhost", "127.0.0.1", "::1", own].contains(&name) || own.split('.').next() == Some(name)
}

/// Hosts as a person types them: `h1:4,user@h2:4,[fd00::3]:4`. Those of a host that is named twice add up, as
/// mpirun has it.
///
/// # Errors
///
/// [`LaunchError::Hosts`].
pub fn parse_hosts(text: &str) -> Result<Vec<Host>, LaunchError> {
    let wrong = |problem: String| LaunchError::Hosts { problem };
    let mut hosts = Vec::new();
    for word in text.split(',').map(str::trim).filter(|word| !word.is_empty()) {
        let (mut host, slots) = parse_host(word).map_err(wrong)?;
        host.slots = slots.unwrap_or(1);
        add(&mut hosts, host);
    }
    if hosts.iter().all(|host| host.slots == 0) {
        return Err(wrong("names no host with a worker".to_owned()));
    }
    Ok(hosts)
}

/// Adds a host, or its workers to those of the same one; whether it was there.
pub(crate) fn add(hosts: &mut Vec<Host>, host: Host) -> bool {
    let is_same =
        |other: &&mut Host| other.name == host.name || (other.is_here() && host.is_here());
    if let Some(other) = hosts.iter_mut().find(is_same) {
        other.slots += host.slots;
        return true;
    }
    hosts.push(host);
    false
}

/// `NAME`, `NAME:N` or `[ADDRESS]:N`, each with `USER@` before it or not: the host and N, where there is one.
pub(crate) fn parse_host(word: &str) -> Result<(Host, Option<usize>), String> {
    if word.starts_with('^') {
        return Err(format!("leaves out `{word}`: name the hosts that there are to be"));
    }
    if word.starts_with('+') {
        return Err(format!("has `{word}`, which only a batch system's hosts have: name them"));
    }
    let (user, rest) = match word.split_once('@') {
        Some((user, rest)) => (Some(user), rest),
        None => (None, word),
    };
    let (name, number) = match rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((name, "")) => (name, None),
        Some((name, rest)) => (name, Some(rest.strip_prefix(':').unwrap_or(rest))),
        // An address without brackets has no number of workers.
        None if rest.parse::<Ipv6Addr>().is_ok() => (rest, None),
        None => match rest.split_once(':') {
            Some((name, number)) => (name, Some(number)),
            None => (rest, None),
        },
    };
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let is_name = |name: &str| {
        let begins = name.bytes().next().is_some_and(|byte| byte != b'-');
        begins && name.bytes().all(is_part)
    };
    let is_host = is_name(name) || name.parse::<Ipv6Addr>().is_ok();
    if !is_host || user.is_some_and(|user| !is_name(user)) {
        return Err(format!("has `{word}`, which is no name of a host"));
    }
    let slots = match number {
        Some(text) => match text.parse() {
            Ok(slots) => Some(slots),
            Err(_) => return Err(format!("has no number of workers in `{word}`")),
        },
        None => None,
    };
    Ok((Host { name: name.to_owned(), user: user.map(str::to_owned), slots: 0 }, slots))
}

/// The hosts that answer now. They are asked all at once, in the way that this mpirun with these arguments
/// reaches them; the launcher's own is there.
pub(crate) fn reachable(hosts: &[Host], vendor: Vendor, arguments: &[OsString]) -> Vec<Host> {
    let agent = agent(vendor, arguments, |name| std::env::var(name).ok());
    let ask = |host: &Host| {
        let connect = format!("ConnectTimeout={}", PATIENCE.as_secs());
        let mut ssh = Command::new(&agent[0]);
        ssh.args(&agent[1..]).args(["-x", "-o", "BatchMode=yes", "-o", &connect, "--"]);
        ssh.args([&host.login(), "true"]);
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
        let status = ended_by(child, deadline).ok().flatten();
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

/// The program with which mpirun reaches hosts, and its first arguments.
fn agent(
    vendor: Vendor,
    arguments: &[OsString],
    variable: impl Fn(&str) -> Option<String>,
) -> Vec<String> {
    let names = match vendor {
        Vendor::OpenMpi { major: ..5 } => OPEN_MPI_4,
        Vendor::OpenMpi { .. } => OPEN_MPI_5,
        Vendor::Mpich => MPICH,
    };
    let is_option = |word: &OsString| word.to_str().is_some_and(|word| names.words.contains(&word));
    let given = arguments.windows(2).find(|pair| is_option(&pair[0]));
    let found = given
        .map(|pair| pair[1].to_string_lossy().into_owned())
        .or_else(|| names.variables.iter().find_map(|name| variable(name)));
    // Open MPI takes the first that there is of several, with colons between.
    let first = found.as_deref().and_then(|agents| agents.split(':').next()).unwrap_or_default();
    let agent: Vec<String> = first.split_whitespace().map(str::to_owned).collect();
    if agent.is_empty() { vec!["ssh".to_owned()] } else { agent }
}

/// The variable that Open MPI 5 is to get where a user has set that of Open MPI 4 alone.
pub(crate) fn agent_for_5(
    variable: impl Fn(&str) -> Option<OsString>,
) -> Option<(&'static str, OsString)> {
    let [of_5, of_4 @ ..] = OPEN_MPI_5.variables else { return None };
    if variable(of_5).is_some() {
        return None;
    }
    of_4.iter().find_map(|name| variable(name)).map(|agent| (*of_5, agent))
}

/// Writes a host file for this `mpirun`.
pub(crate) fn write_hostfile(
    path: PathBuf,
    hosts: &[Host],
    vendor: Vendor,
) -> Result<PathBuf, LaunchError> {
    if let (Vendor::Mpich, Some(host)) = (vendor, hosts.iter().find(|host| host.is_ipv6())) {
        let problem =
            format!("name {}, which MPICH's mpirun cannot read: give the host a name", host.name);
        return Err(LaunchError::Hosts { problem });
    }
    let line = |host: &Host| match (vendor, &host.user) {
        (Vendor::OpenMpi { .. }, _) => format!("{} slots={}\n", host.login(), host.slots),
        (Vendor::Mpich, None) => format!("{}:{}\n", host.name, host.slots),
        (Vendor::Mpich, Some(user)) => format!("{}:{} user={user}\n", host.name, host.slots),
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

    #[test]
    fn hosts_are_read_in_every_spelling_and_written_for_every_mpirun() {
        let user = Some("u".to_owned());
        let expected = [
            Host::new("a", 4),
            Host { user, ..Host::new("b.c", 2) },
            Host::new("fd00::1", 3),
            Host::new("fd00::2", 1),
        ];
        assert_eq!(parse_hosts("a:3,u@b.c:2,[fd00::1]:3, fd00::2,a").unwrap(), expected);
        let folder = tempfile::tempdir().unwrap();
        let write = |hosts: &[Host], vendor| {
            let path = write_hostfile(folder.path().join("w"), hosts, vendor)?;
            Ok::<_, LaunchError>(std::fs::read_to_string(path).unwrap())
        };
        let written = write(&expected, Vendor::OpenMpi { major: 4 }).unwrap();
        assert_eq!(written, "a slots=4\nu@b.c slots=2\nfd00::1 slots=3\nfd00::2 slots=1\n");
        assert_eq!(write(&expected[..2], Vendor::Mpich).unwrap(), "a:4\nb.c:2 user=u\n");
        let told = write(&expected, Vendor::Mpich).unwrap_err().to_string();
        assert!(told.contains("fd00::1"), "{told}");
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
        let here = [Host::new("localhost", 2)];
        assert_eq!(reachable(&here, Vendor::Mpich, &[]), here);
    }

    #[test]
    fn hosts_are_asked_by_the_program_that_mpirun_takes() {
        let ask = |vendor, arguments: &[&str], variables: &[(&str, &str)]| {
            let arguments: Vec<OsString> = arguments.iter().map(OsString::from).collect();
            let find = |name: &str| {
                let found = variables.iter().find(|(known, _)| *known == name);
                found.map(|(_, value)| (*value).to_owned())
            };
            agent(vendor, &arguments, find).join(" ")
        };
        let [older, open_mpi] = [4, 5].map(|major| Vendor::OpenMpi { major });
        assert_eq!(ask(open_mpi, &[], &[]), "ssh");
        let variable = ("OMPI_MCA_plm_rsh_agent", "ssh -F f : rsh");
        assert_eq!(ask(older, &[], &[variable]), "ssh -F f");
        assert_eq!(ask(open_mpi, &[], &[variable]), "ssh -F f");
        let newer = ("PRTE_MCA_plm_ssh_agent", "myssh");
        assert_eq!(ask(open_mpi, &[], &[variable, newer]), "myssh");
        assert_eq!(ask(older, &[], &[variable, newer]), "ssh -F f");
        let arguments = ["--mca", "plm_rsh_agent", "/opt/ssh -q"];
        assert_eq!(ask(open_mpi, &arguments, &[variable, newer]), "/opt/ssh -q");
        assert_eq!(ask(open_mpi, &["--prtemca", "plm_ssh_agent", "a"], &[newer]), "a");
        assert_eq!(ask(Vendor::Mpich, &[], &[variable]), "ssh");
        let hydra = ("HYDRA_LAUNCHER_EXEC", "/opt/ssh");
        assert_eq!(ask(Vendor::Mpich, &[], &[hydra]), "/opt/ssh");
        assert_eq!(ask(Vendor::Mpich, &["-launcher-exec", "rsh"], &[hydra]), "rsh");
    }

    #[test]
    fn open_mpi_5_gets_what_was_set_for_4() {
        let of = |set: &[&'static str]| {
            let set = set.to_vec();
            agent_for_5(move |name| set.contains(&name).then(|| OsString::from(name)))
        };
        let expected = ("PRTE_MCA_plm_ssh_agent", OsString::from("OMPI_MCA_plm_rsh_agent"));
        assert_eq!(of(&["OMPI_MCA_plm_rsh_agent"]), Some(expected));
        assert_eq!(of(&["OMPI_MCA_plm_rsh_agent", "PRTE_MCA_plm_ssh_agent"]), None);
        assert_eq!(of(&[]), None);
    }

    #[test]
    fn what_is_no_list_of_hosts_is_refused_with_what_to_do() {
        for (text, words) in [
            ("a:many", "no number of workers in `a:many`"),
            ("", "names no host"),
            ("a:0", "names no host"),
            ("^a,b:2", "leaves out `^a`"),
            ("+n0:2", "`+n0:2`"),
            ("a b:2", "no name of a host"),
            ("@a:2", "no name of a host"),
            ("-l@a:2", "no name of a host"),
            ("-oProxyCommand=x:1", "no name of a host"),
        ] {
            let error = parse_hosts(text).unwrap_err().to_string();
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
