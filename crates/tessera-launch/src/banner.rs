//! Keeps mpirun's dashed banners out of the workers' lines.
//!
//! When a rank ends badly `mpirun` prints blocks between two dashed lines that name the rank that
//! fell first in its own order, which is seldom the culprit. The launcher has a verdict of its own,
//! so the blocks are kept for the case that it has none.

use std::collections::VecDeque;

/// Lines held back that are kept for an error without another explanation.
const TAIL: usize = 40;
/// A block of mpirun's is not longer than this; what is longer belongs to a worker.
const LONGEST_BLOCK: usize = 40;
/// Words of which every block of mpirun's has one.
const MARKS: [&str; 9] = [
    "mpirun",
    "MPI",
    "orte",
    "ORTE",
    "prte",
    "PRTE",
    "Primary job",
    "BAD TERMINATION",
    "unable to create the desired directory",
];

/// How the first rank ended, as `mpirun` noticed it.
#[derive(Debug, PartialEq, Eq)]
struct Cause {
    /// The rank, where `mpirun` names it.
    rank: Option<usize>,
    /// `signal 9 (Killed)` or `exit code 7`.
    how: String,
}

/// A filter over one stream of lines.
#[derive(Debug, Default)]
pub(crate) struct BannerFilter {
    block: Vec<String>,
    tail: VecDeque<String>,
    cause: Option<Cause>,
    /// Process id of mpirun, whose own lines begin with `[HOST:PID]`.
    mpirun: Option<u32>,
}

impl BannerFilter {
    /// A filter for what mpirun prints, and the workers through it.
    pub(crate) fn of(mpirun: u32) -> Self {
        Self { mpirun: Some(mpirun), ..Self::default() }
    }

    /// Takes the next line and answers what is to be shown now.
    pub(crate) fn push(&mut self, line: &str) -> Vec<String> {
        let dashed = line.len() >= 60
            && (line.bytes().all(|byte| byte == b'-') || line.bytes().all(|byte| byte == b'='));
        if self.block.is_empty() {
            if dashed {
                self.block.push(line.to_owned());
                return Vec::new();
            }
            if is_noise(line) || self.is_mpiruns_own(line) {
                if self.cause.is_none() {
                    self.cause = cause_in(line);
                }
                self.remember(line);
                return Vec::new();
            }
            return vec![line.to_owned()];
        }
        self.block.push(line.to_owned());
        if dashed || self.block.len() > LONGEST_BLOCK { self.end_of_block() } else { Vec::new() }
    }

    /// The stream has ended: what was held back and is no banner is shown.
    pub(crate) fn finish(&mut self) -> Vec<String> {
        self.end_of_block()
    }

    /// The last lines that were held back.
    pub(crate) fn tail(&self) -> impl Iterator<Item = &str> {
        self.tail.iter().map(String::as_str)
    }

    /// How `rank` ended, if it is the rank that `mpirun` noticed first.
    pub(crate) fn cause(&self, rank: usize) -> Option<&str> {
        let cause = self.cause.as_ref()?;
        cause.rank.is_none_or(|named| named == rank).then_some(cause.how.as_str())
    }

    /// Whether mpirun speaks of itself, as it does where it crashes.
    fn is_mpiruns_own(&self, line: &str) -> bool {
        let start = line.strip_prefix('[').and_then(|rest| rest.split_once(']'));
        let pid = start.and_then(|(start, _)| start.rsplit_once(':')?.1.parse().ok());
        self.mpirun.is_some() && self.mpirun == pid
    }

    fn remember(&mut self, line: &str) {
        if self.tail.len() == TAIL {
            self.tail.pop_front();
        }
        self.tail.push_back(line.to_owned());
    }

    fn end_of_block(&mut self) -> Vec<String> {
        let block = std::mem::take(&mut self.block);
        if !block.iter().any(|line| MARKS.iter().any(|mark| line.contains(mark))) {
            return block;
        }
        for line in &block {
            self.remember(line);
        }
        let text = block.join(" ");
        if self.cause.is_none() {
            self.cause = cause_in(&text);
        }
        Vec::new()
    }
}

/// Lines that the `mpirun`s print outside their blocks.
fn is_noise(line: &str) -> bool {
    const STARTS: [&str; 4] = [
        "mpirun: Forwarding signal",
        "YOUR APPLICATION TERMINATED WITH THE EXIT STRING",
        "This typically refers to a problem with your application.",
        "Please see the FAQ page for debugging suggestions",
    ];
    line.contains("orte_base_help_aggregate")
        || line.starts_with("*** stack smashing detected ***")
        || (line.starts_with('[') && line.contains("sent help message"))
        || STARTS.iter().any(|start| line.starts_with(start))
}

/// Reads who ended how in the words of Open MPI 4 and 5, or of MPICH, which names nobody.
fn cause_in(text: &str) -> Option<Cause> {
    let number = |text: &str| text.split_whitespace().next()?.parse::<usize>().ok();
    if let Some((before, after)) = text.split_once("exited on ") {
        let rank = before.split_once("process rank ").and_then(|(_, rest)| number(rest));
        return Some(Cause { rank, how: after.split('.').next()?.to_owned() });
    }
    if let Some((before, after)) = text.split_once("Exit code:") {
        let code = number(after)?;
        let rank = before.rsplit_once(',').and_then(|(_, rest)| rest.split_once(']'));
        let rank = rank.and_then(|(rank, _)| number(rank));
        return Some(Cause { rank, how: format!("exit code {code}") });
    }
    let (_, how) = text.split_once("EXIT STRING: ")?;
    Some(Cause { rank: None, how: how.trim().to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const DASHES: &str =
        "--------------------------------------------------------------------------";

    fn shown(lines: &[&str]) -> (Vec<String>, BannerFilter) {
        let mut filter = BannerFilter::default();
        let mut out: Vec<String> = lines.iter().flat_map(|line| filter.push(line)).collect();
        out.extend(filter.finish());
        (out, filter)
    }

    #[test]
    fn banners_are_held_back_and_the_workers_lines_are_not() {
        // As Open MPI 4.1.4 prints it when rank 1 gets SIGKILL.
        let (out, filter) = shown(&[
            "before",
            DASHES,
            "Primary job  terminated normally, but 1 process returned",
            "a non-zero exit code. Per user-direction, the job has been aborted.",
            DASHES,
            "between",
            DASHES,
            "mpirun noticed that process rank 1 with PID 0 on node vm exited on signal 9 (Killed).",
            DASHES,
            "[vm:1] 3 more processes have sent help message help-mpi.txt / x",
        ]);
        assert_eq!(out, ["before", "between"]);
        assert_eq!(filter.cause(1), Some("signal 9 (Killed)"));
        assert_eq!(filter.cause(0), None, "nothing is known about another rank");
        assert_eq!(filter.tail().count(), 8);
    }

    #[test]
    fn a_workers_own_dashes_are_shown() {
        let lines = [DASHES, "a table", DASHES, "after", DASHES, "open end"];
        assert_eq!(shown(&lines).0, lines);
    }

    #[test]
    fn what_mpirun_says_of_its_own_crash_is_held_back_and_a_workers_is_not() {
        let mut filter = BannerFilter::of(7);
        let own = "[vm.x:7] [ 1] /lib/libpmix.so.2(pmix_home_directory+0x19)[0x7f]";
        assert_eq!(filter.push(own), [""; 0]);
        assert_eq!(filter.tail().collect::<Vec<_>>(), [own]);
        for theirs in ["[vm:77] *** Process received signal ***", "[7] a list", "no brackets"] {
            assert_eq!(filter.push(theirs), [theirs]);
        }
    }

    #[test]
    fn the_other_mpiruns_are_understood_too() {
        let five = "thus causing the job to be terminated. The first process to do so was:   \
                    Process name: [prterun-vm-28308@1,2]   Exit code:    7 ---";
        let cause = Cause { rank: Some(2), how: "exit code 7".into() };
        assert_eq!(cause_in(five), Some(cause));
        let equals = "=".repeat(83);
        let mpich = [
            equals.as_str(),
            "=   BAD TERMINATION OF ONE OF YOUR APPLICATION PROCESSES",
            "=   EXIT CODE: 9",
            equals.as_str(),
            "YOUR APPLICATION TERMINATED WITH THE EXIT STRING: Killed (signal 9)",
            "This typically refers to a problem with your application.",
        ];
        let (out, filter) = shown(&mpich);
        assert_eq!(out, [""; 0]);
        assert_eq!(filter.cause(5), Some("Killed (signal 9)"));
    }
}
