//! Keeps mpirun's dashed banners out of the workers' lines.
//!
//! When a rank ends badly `mpirun` prints blocks between two dashed lines that name the rank that
//! fell first in its own order, which is seldom the culprit. The launcher has a verdict of its own,
//! so the blocks are kept for the case that it has none.

use std::collections::VecDeque;

/// Lines held back that are kept for an error without another explanation.
const TAIL: usize = 20;
/// A block of mpirun's is not longer than this; what is longer belongs to a worker.
const LONGEST_BLOCK: usize = 40;
/// Words of which every block of mpirun's has one.
const MARKS: [&str; 8] = ["mpirun", "MPI", "orte", "ORTE", "prte", "PRTE", "Primary job", "Hydra"];

/// A filter over one stream of lines.
#[derive(Debug, Default)]
pub(crate) struct BannerFilter {
    block: Vec<String>,
    tail: VecDeque<String>,
    killed_by: Option<String>,
}

impl BannerFilter {
    /// Takes the next line and answers what is to be shown now.
    pub(crate) fn push(&mut self, line: &str) -> Vec<String> {
        let dashed = line.len() >= 60 && line.bytes().all(|byte| byte == b'-');
        if self.block.is_empty() {
            if dashed {
                self.block.push(line.to_owned());
                return Vec::new();
            }
            if is_noise(line) {
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

    /// How the first rank ended, as `mpirun` noticed it: `signal 9 (Killed)`.
    pub(crate) fn killed_by(&self) -> Option<&str> {
        self.killed_by.as_deref()
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
        if let Some((_, after)) = text.split_once("exited on ")
            && let Some((signal, _)) = after.split_once('.')
        {
            self.killed_by.get_or_insert_with(|| signal.to_owned());
        }
        Vec::new()
    }
}

/// Lines that `mpirun` prints outside its blocks and that tell nothing.
fn is_noise(line: &str) -> bool {
    line.contains("orte_base_help_aggregate")
        || line.starts_with("mpirun: Forwarding signal")
        || (line.starts_with('[') && line.contains("sent help message"))
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
        assert_eq!(filter.killed_by(), Some("signal 9 (Killed)"));
        assert_eq!(filter.tail().count(), 8);
    }

    #[test]
    fn a_workers_own_dashes_are_shown() {
        let lines = [DASHES, "a table", DASHES, "after", DASHES, "open end"];
        assert_eq!(shown(&lines).0, lines);
    }
}
