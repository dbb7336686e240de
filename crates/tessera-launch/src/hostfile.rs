//! Host files, read as mpirun reads them.
//!
//! Open MPI's grammar: a host a line, with `slots`, `cpu` or `count`, `max_slots` and `username`, blanks around each
//! `=` or not, comments from `#` or `//` to the end of the line and between `/*` and `*/`. MPICH's: `HOST:N`, with
//! `user=NAME`. What neither has, or what means something else than a number of workers on a host (`+n0`, `^host`,
//! `rank 0=host`), is refused by its word: to count otherwise than mpirun would start workers that nobody asked for.

use std::path::Path;

use crate::LaunchError;
use crate::hosts::{Host, add, parse_host};

/// Other names for the number of workers.
const SLOTS: [&str; 3] = ["slots", "cpu", "count"];
/// Other names for the most workers that a host may ever have.
const MAX_SLOTS: [&str; 12] = [
    "max_slots",
    "max-slots",
    "slots_max",
    "slots-max",
    "max_cpu",
    "max-cpu",
    "cpu_max",
    "cpu-max",
    "max_count",
    "max-count",
    "count_max",
    "count-max",
];
/// Other names for the user that ssh logs in as; the last is MPICH's.
const USER: [&str; 4] = ["username", "user_name", "user-name", "user"];

/// Hosts from a file, a line each: `host slots=4` (Open MPI), `host:4` (MPICH), `host` for one.
///
/// A host that has several lines has the sum of their workers.
///
/// # Errors
///
/// [`LaunchError::Hostfile`].
pub fn read_hostfile(path: &Path) -> Result<Vec<Host>, LaunchError> {
    let wrong = |problem: String| LaunchError::Hostfile { path: path.to_owned(), problem };
    let text = std::fs::read_to_string(path)
        .map_err(|error| wrong(format!("cannot be read ({error}): name an existing file")))?;
    let hosts = parse(&text).map_err(wrong)?;
    if hosts.iter().all(|host| host.slots == 0) {
        return Err(wrong("names no host: write one `HOST slots=N` a line, or HOST:N".to_owned()));
    }
    Ok(hosts)
}

fn parse(text: &str) -> Result<Vec<Host>, String> {
    let mut hosts: Vec<Host> = Vec::new();
    for line in without_comments(text).lines() {
        let line = line.trim();
        if line.is_empty() {
            continue;
        }
        let Line { host, is_counted } =
            parse_line(line).map_err(|problem| format!("{problem} in `{line}`"))?;
        let name = host.name.clone();
        if add(&mut hosts, host) && is_counted {
            // Open MPI adds up lines without a number, and refuses these.
            return Err(format!(
                "counts the slots of {name} twice: write it once with all of them"
            ));
        }
    }
    Ok(hosts)
}

/// The same with a line end for each comment.
fn without_comments(text: &str) -> String {
    let mut kept = String::new();
    let mut rest = text;
    loop {
        let starts = ["#", "//", "/*"].map(|mark| rest.find(mark).unwrap_or(rest.len()));
        let start = starts.into_iter().min().unwrap_or(rest.len());
        kept.push_str(&rest[..start]);
        rest = &rest[start..];
        if rest.is_empty() {
            return kept;
        }
        let end = if rest.starts_with("/*") { "*/" } else { "\n" };
        rest = rest.find(end).map_or("", |at| &rest[at + end.len()..]);
        kept.push('\n');
    }
}

struct Line {
    host: Host,
    /// Whether it says how many slots, in Open MPI's words.
    is_counted: bool,
}

fn parse_line(line: &str) -> Result<Line, String> {
    let line = line.replace('=', " = ");
    let mut words = line.split_whitespace();
    let first = words.next().unwrap_or_default();
    if first == "rank" {
        return Err("places single ranks (`rank`), which only a rank file can".to_owned());
    }
    let (mut host, mut slots) = parse_host(first)?;
    let (mut is_counted, mut most) = (false, None);
    while let Some(key) = words.next() {
        let is_number = SLOTS.contains(&key) || MAX_SLOTS.contains(&key);
        if !is_number && !USER.contains(&key) {
            return Err(format!("has `{key}`, which is neither slots, max_slots nor username"));
        }
        let value = match (words.next(), words.next()) {
            (Some("="), Some(value)) => value,
            _ => return Err(format!("has `{key}` without `=` and a value")),
        };
        if USER.contains(&key) {
            host.user = Some(value.to_owned());
            continue;
        }
        let number: usize =
            value.parse().map_err(|_| format!("has no number of slots in `{key}={value}`"))?;
        if MAX_SLOTS.contains(&key) {
            most = Some(number);
        } else if slots.replace(number).is_some() {
            return Err(format!("has two numbers of slots, the second in `{key}={value}`"));
        } else {
            is_counted = true;
        }
    }
    if let (Some(slots), Some(most)) = (slots, most)
        && most < slots
    {
        return Err(format!("has max_slots={most}, fewer than its {slots} slots"));
    }
    host.slots = slots.or(most).unwrap_or(1);
    Ok(Line { host, is_counted })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<String, String> {
        let shown = |host: &Host| format!("{}:{}", host.login(), host.slots);
        parse(text).map(|hosts| hosts.iter().map(shown).collect::<Vec<_>>().join(" "))
    }

    /// The numbers are those of `mpirun --hostfile FILE --display-allocation` of Open MPI 4.1.4.
    #[test]
    fn numbers_of_slots_are_those_of_mpirun() {
        for (text, expected) in [
            ("a slots=3", "a:3"),
            ("a slots = 3", "a:3"),
            ("a slots= 3\n", "a:3"),
            ("a max_slots=4 slots=3", "a:3"),
            ("a slots=3 max_slots=4", "a:3"),
            ("a max-slots = 4", "a:4"),
            ("a cpu_max=4", "a:4"),
            ("a cpu=3", "a:3"),
            ("a count=3", "a:3"),
            ("a", "a:1"),
            ("a\nb\na\n", "a:2 b:1"),
            ("a slots=2\na", "a:3"),
            ("u@a slots=2", "u@a:2"),
            ("a username=u slots=2", "u@a:2"),
            ("u@10.1.2.3 slots=2", "u@10.1.2.3:2"),
            ("fd00::1 slots=2", "fd00::1:2"),
            ("1234 slots=2", "1234:2"),
            ("A slots=2\na slots=2", "A:2 a:2"),
            ("# all\n\n  a slots=2 # some\r\nb slots=1 // one\n/* c\nd */e slots=4", "a:2 b:1 e:4"),
            // MPICH's.
            ("a:4\nb:2 user=u", "a:4 u@b:2"),
            ("[fd00::1]:3", "fd00::1:3"),
        ] {
            assert_eq!(read(text).as_deref(), Ok(expected), "{text:?}");
        }
    }

    #[test]
    fn the_names_of_this_host_are_one_host() {
        assert_eq!(read("localhost slots=2\n127.0.0.1").as_deref(), Ok("localhost:3"));
    }

    /// mpirun refuses most of these too, ignores what follows the slots, and reads the rest as something that is
    /// no number of workers.
    #[test]
    fn what_is_no_number_of_workers_is_refused_by_its_word() {
        for (text, words) in [
            ("a slots=many", "no number of slots in `slots=many`"),
            ("a slots=-1", "`slots=-1`"),
            ("a slots", "`slots` without `=`"),
            ("a slots=", "`slots` without `=`"),
            ("a slots=2 slots=3", "two numbers of slots"),
            ("a:2 slots=3", "two numbers of slots"),
            ("a slots=3 max_slots=2", "max_slots=2, fewer than its 3"),
            ("a slots=3\na slots=2", "counts the slots of a twice"),
            ("a\na slots=2", "counts the slots of a twice"),
            ("a cpus=3", "`cpus`"),
            ("a Slots=3", "`Slots`"),
            ("a slots=2 b", "`b`"),
            ("a sockets=2", "`sockets`"),
            ("a:2 binding=user", "`binding`"),
            ("^a\nb slots=2", "`^a`"),
            ("+n0 slots=2", "`+n0`"),
            ("rank 0=a slot=1", "`rank`"),
            ("\"a\" slots=2", "`\"a\"`"),
            ("a:many", "no number of workers in `a:many`"),
        ] {
            let told = read(text).unwrap_err();
            assert!(told.contains(words), "{text:?}: {told}");
        }
    }

    #[test]
    fn the_example_is_a_host_file() {
        let example = Path::new(&std::env::var("CARGO_MANIFEST_DIR").unwrap())
            .join("../../launch/hostfile.example");
        let hosts = read_hostfile(&example).unwrap();
        assert_eq!(hosts, [Host::new("node1", 4), Host::new("node2", 4)]);
    }
}
