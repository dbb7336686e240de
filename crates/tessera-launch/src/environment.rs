//! What of the launcher's environment the workers on all hosts get, and how it gets there.
//!
//! Workers on the launcher's host inherit everything. Those on other hosts get settings from mpirun, which is given the
//! names on its command line, takes the values from its own environment and sends them to its daemons; and secrets
//! from the launcher itself, in the welcome that answers their hello on the control connection. So no value
//! stands in a command line, a file or a log.
//!
//! What is about one host alone stays there: `PATH`, `HOME`, `CUDA_VISIBLE_DEVICES`, and `LD_LIBRARY_PATH`, since
//! libraries that another host has elsewhere would be lost by it. `--env` sends these too.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::OsStrExt;

use tessera_control::{Secrets, variables};

use crate::LaunchError;

/// Beginnings of the names that go to all hosts: settings of NCCL, OpenMP, MKL, UCX and libfabric, keys of
/// buckets, and our own.
const PREFIXES: [&str; 10] =
    ["NCCL_", "OMP_", "GOMP_", "KMP_", "MKL_", "UCX_", "FI_", "AWS_", "GOOGLE_", OURS];

/// Names that go to all hosts, in any case of their letters.
const NAMES: [&str; 6] =
    ["RUST_LOG", "RUST_BACKTRACE", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"];

const OURS: &str = "TESSERA_";

/// Beginnings of names that are settings whatever else they say: a partition key of InfiniBand is no secret.
const SETTINGS: [&str; 7] = ["NCCL_", "OMP_", "GOMP_", "KMP_", "MKL_", "UCX_", "FI_"];

/// Words in the name of a secret.
const SECRET_WORDS: [&str; 6] = ["TOKEN", "SECRET", "PASSWORD", "PASSWD", "KEY", "AUTHORIZATION"];

/// Variables that the launcher sets itself.
const OF_THE_LAUNCHER: [&str; 8] = [
    variables::CONTROL,
    variables::CONTROL_TOKEN,
    variables::WORLD_SIZE,
    variables::RECORDS,
    variables::ATTEMPT,
    variables::RESTART,
    variables::RESOLVED,
    variables::FORWARDED,
];

/// A variable that a person asked for with `--env`.
#[derive(Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Its name.
    pub name: String,
    /// Its value; `None`: that of the launcher's environment.
    pub value: Option<OsString>,
}

/// Without the value, which may be nobody's business.
impl fmt::Debug for Wanted {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Wanted({})", self.name)
    }
}

/// `NAME` or `NAME=VALUE`, as `--env` has it.
///
/// # Errors
///
/// [`LaunchError::Variable`] if it is no name, one that the launcher sets itself, or the value of a secret, which
/// everybody on this host could read in the list of processes.
pub fn parse_variable(text: &OsStr) -> Result<Wanted, LaunchError> {
    let bytes = text.as_bytes();
    let (name, value) = match bytes.iter().position(|byte| *byte == b'=') {
        Some(at) => (&bytes[..at], Some(OsStr::from_bytes(&bytes[at + 1..]).to_owned())),
        None => (bytes, None),
    };
    let shown = String::from_utf8_lossy(name).into_owned();
    let refused = |problem: &str| {
        let problem = problem.to_owned();
        Err(LaunchError::Variable { name: shown.clone(), problem })
    };
    if !is_name(&shown) {
        return refused("is no name of a variable: write NAME or NAME=VALUE");
    }
    if OF_THE_LAUNCHER.contains(&shown.as_str()) {
        return refused("is set by the launcher itself: leave it out");
    }
    if let Some(value) = &value
        && is_secret(&shown, value)
    {
        return refused(
            "names a secret, which the list of processes would show: set it in the environment, \
             and give its name alone",
        );
    }
    Ok(Wanted { name: shown, value })
}

/// What goes to all hosts.
#[derive(Debug, Default)]
pub(crate) struct Forwarded {
    /// Variables that mpirun is started with besides those that it inherits.
    pub(crate) set: Vec<(OsString, OsString)>,
    /// Names of a person's settings, in order.
    pub(crate) settings: Vec<String>,
    /// A person's secrets.
    pub(crate) secrets: Secrets,
    /// Names of our own variables that a person has set, in order.
    ours: Vec<String>,
}

impl Forwarded {
    /// What this process inherited and what was asked for.
    ///
    /// # Errors
    ///
    /// [`LaunchError::Variable`] if one is asked for that is not there.
    pub(crate) fn collect(wanted: &[Wanted]) -> Result<Self, LaunchError> {
        Self::of(std::env::vars_os(), wanted)
    }

    fn of(
        inherited: impl Iterator<Item = (OsString, OsString)>,
        wanted: &[Wanted],
    ) -> Result<Self, LaunchError> {
        let mut all: Vec<(String, OsString)> = inherited
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
            .filter(|(name, _)| is_name(name))
            .collect();
        let mut this = Self::default();
        let mut asked_for = Vec::new();
        for Wanted { name, value } in wanted {
            asked_for.push(name.as_str());
            let known = all.iter().position(|(known, _)| known == name);
            match (value, known) {
                (Some(value), known) => {
                    this.set.push((name.into(), value.clone()));
                    known.map(|at| all.swap_remove(at));
                    all.push((name.clone(), value.clone()));
                }
                (None, Some(_)) => {}
                (None, None) => {
                    let problem = "is not set here: set it, or write NAME=VALUE".to_owned();
                    return Err(LaunchError::Variable { name: name.clone(), problem });
                }
            }
        }
        all.sort();
        for (name, value) in all {
            if !goes_everywhere(&name) && !asked_for.contains(&name.as_str()) {
                continue;
            }
            if name.starts_with(OURS) {
                this.ours.push(name);
            } else if !is_secret(&name, &value) {
                this.settings.push(name);
            } else if let Ok(value) = value.into_string() {
                this.secrets.0.insert(name, value);
            } else {
                let problem = "is a secret and not UTF-8: only UTF-8 can be sent".to_owned();
                return Err(LaunchError::Variable { name, problem });
            }
        }
        Ok(this)
    }

    /// The names that mpirun passes on, with those that the launcher sets itself.
    pub(crate) fn names(&self, launcher: &[(OsString, OsString)]) -> Vec<String> {
        let launcher = launcher.iter().filter_map(|(name, _)| name.to_str());
        let launcher = launcher.filter(|name| goes_everywhere(name)).map(str::to_owned);
        let mut names: Vec<String> =
            [&self.settings, &self.ours].into_iter().flatten().cloned().collect();
        names.extend(launcher);
        names.sort();
        names.dedup();
        names
    }

    /// Names for a person, and never a value; none where there are none.
    pub(crate) fn told(&self) -> Option<String> {
        let settings = self.settings.join(", ");
        let secrets: Vec<&str> = self.secrets.0.keys().map(String::as_str).collect();
        match (settings.is_empty(), secrets.is_empty()) {
            (true, true) => None,
            (false, true) => Some(settings),
            (true, false) => Some(format!("secrets {}", secrets.join(", "))),
            (false, false) => Some(format!("{settings}, and secrets {}", secrets.join(", "))),
        }
    }
}

fn is_name(name: &str) -> bool {
    let is_letter = |byte: &u8| byte.is_ascii_alphabetic() || *byte == b'_';
    name.as_bytes().first().is_some_and(is_letter)
        && name.bytes().all(|byte| is_letter(&byte) || byte.is_ascii_digit())
}

fn goes_everywhere(name: &str) -> bool {
    PREFIXES.iter().any(|prefix| name.starts_with(prefix))
        || NAMES.contains(&name.to_ascii_uppercase().as_str())
}

/// Whether a value is to be kept secret: by the variable's name, or since a password stands in it.
fn is_secret(name: &str, value: &OsStr) -> bool {
    if SETTINGS.iter().any(|prefix| name.starts_with(prefix)) {
        return false;
    }
    let name = name.to_ascii_uppercase();
    let value = value.to_string_lossy();
    if name == "AWS_ACCESS_KEY_ID" {
        return false; // Says whose key it is; AWS logs it.
    }
    let is_path = name.ends_with("_FILE") || name.ends_with("_PATH");
    let says_so = !is_path && SECRET_WORDS.iter().any(|word| name.contains(word));
    // Credentials as JSON, where others have the path of a file with them.
    let is_json = name.contains("CREDENTIALS") && value.trim_start().starts_with('{');
    says_so || is_json || holds_password(&name, &value)
}

/// Whether it is an address with a password in it, as `http://user:password@proxy:3128`.
fn holds_password(name: &str, value: &str) -> bool {
    let authority = match value.split_once("://") {
        Some((_, rest)) => rest,
        None if name.ends_with("_PROXY") => value,
        None => return false,
    };
    authority.split(['/', '?', '#']).next().is_some_and(|authority| authority.contains('@'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(text: &str) -> Result<Wanted, String> {
        parse_variable(OsStr::new(text)).map_err(|error| error.to_string())
    }

    fn forwarded(inherited: &[(&str, &str)], asked_for: &[&str]) -> Result<Forwarded, String> {
        let inherited = inherited.iter().map(|(name, value)| (name.into(), value.into()));
        let asked_for: Vec<Wanted> = asked_for.iter().map(|text| wanted(text).unwrap()).collect();
        Forwarded::of(inherited, &asked_for).map_err(|error| error.to_string())
    }

    #[test]
    fn settings_of_libraries_and_keys_of_buckets_go_to_all_hosts_and_nothing_else_does() {
        let environment = [
            ("NCCL_SOCKET_IFNAME", "eth0"),
            ("NCCL_IB_PKEY", "1"),
            ("AWS_ACCESS_KEY_ID", "AKIA"),
            ("AWS_SECRET_ACCESS_KEY", "s"),
            ("AWS_SESSION_TOKEN", "t"),
            ("AWS_WEB_IDENTITY_TOKEN_FILE", "/run/token"),
            ("GOOGLE_APPLICATION_CREDENTIALS", "/home/a/key.json"),
            ("GOOGLE_SERVICE_ACCOUNT_KEY", "{}"),
            ("OMP_NUM_THREADS", "2"),
            ("MKL_CBWR", "COMPATIBLE"),
            ("UCX_TLS", "tcp"),
            ("FI_PROVIDER", "efa"),
            ("https_proxy", "http://proxy:3128"),
            ("HTTP_PROXY", "http://user:password@proxy:3128"),
            ("all_proxy", "user:password@proxy:3128"),
            ("no_proxy", "10.0.0.0/8"),
            ("TESSERA__TRAIN__STEPS", "3"),
            ("PATH", "/bin"),
            ("LD_LIBRARY_PATH", "/lib"),
            ("CUDA_VISIBLE_DEVICES", "0"),
            ("HF_TOKEN", "u"),
            ("NCCL_BAD%%", "no name"),
        ];
        let forwarded = forwarded(&environment, &[]).unwrap();
        assert_eq!(
            forwarded.settings.join(" "),
            "AWS_ACCESS_KEY_ID AWS_WEB_IDENTITY_TOKEN_FILE FI_PROVIDER GOOGLE_APPLICATION_CREDENTIALS \
             MKL_CBWR NCCL_IB_PKEY NCCL_SOCKET_IFNAME OMP_NUM_THREADS UCX_TLS https_proxy no_proxy"
        );
        assert_eq!(
            forwarded.secrets.0.keys().cloned().collect::<Vec<_>>().join(" "),
            "AWS_SECRET_ACCESS_KEY AWS_SESSION_TOKEN GOOGLE_SERVICE_ACCOUNT_KEY HTTP_PROXY all_proxy"
        );
        let launcher = [("TESSERA_CONTROL".into(), "a".into()), ("HOME".into(), "/".into())];
        let names = forwarded.names(&launcher);
        assert_eq!(names.len(), 11 + 2, "no secret goes through mpirun: {names:?}");
        assert!(names.contains(&"TESSERA__TRAIN__STEPS".to_owned()), "{names:?}");
        assert!(names.contains(&"TESSERA_CONTROL".to_owned()), "{names:?}");
    }

    #[test]
    fn what_a_person_asks_for_goes_too_with_the_value_given_or_that_of_the_environment() {
        let environment = [("HF_TOKEN", "hidden"), ("OMP_NUM_THREADS", "2")];
        let asked_for = ["HF_TOKEN", "LD_LIBRARY_PATH=/opt/lib", "OMP_NUM_THREADS=4", "EMPTY="];
        let forwarded = forwarded(&environment, &asked_for).unwrap();
        assert_eq!(forwarded.settings, ["EMPTY", "LD_LIBRARY_PATH", "OMP_NUM_THREADS"]);
        assert_eq!(forwarded.secrets.0["HF_TOKEN"], "hidden");
        let set: Vec<_> = forwarded.set.iter().map(|(name, value)| (&**name, &**value)).collect();
        let expected = [("LD_LIBRARY_PATH", "/opt/lib"), ("OMP_NUM_THREADS", "4"), ("EMPTY", "")];
        assert_eq!(set, expected.map(|(name, value)| (OsStr::new(name), OsStr::new(value))));
        let told = forwarded.told().unwrap();
        assert_eq!(told, "EMPTY, LD_LIBRARY_PATH, OMP_NUM_THREADS, and secrets HF_TOKEN");
        let shown = format!("{forwarded:?}{:?}", wanted("A=value").unwrap());
        assert!(!told.contains("hidden") && !shown.contains("hidden"), "{shown}");
        assert!(shown.ends_with("Wanted(A)"), "{shown}");
    }

    #[test]
    fn names_that_cannot_be_sent_are_refused_with_what_to_do() {
        for (text, words) in [
            ("", "is no name"),
            ("A B=1", "is no name"),
            ("1A", "is no name"),
            ("=a", "is no name"),
            ("TESSERA_CONTROL_TOKEN", "set by the launcher"),
            ("AWS_SECRET_ACCESS_KEY=abc", "give its name alone"),
            ("https_proxy=http://u:p@proxy", "give its name alone"),
        ] {
            let told = wanted(text).unwrap_err();
            assert!(told.contains(words) && !told.contains("abc"), "{text}: {told}");
        }
        let told = forwarded(&[], &["HF_HOME"]).unwrap_err();
        assert!(told.contains("--env HF_HOME is not set here"), "{told}");
    }
}
