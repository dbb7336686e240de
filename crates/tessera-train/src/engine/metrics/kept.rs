//! What is still to be written, a queue for each sink, and what has to be given up when it becomes too much.
//!
//! Knows no files: [`reporter`](super::reporter) takes from here and puts back what a sink refuses.

use std::collections::VecDeque;
use std::sync::Arc;

use super::histogram::Histogram;
use super::picture::Exhibit;
use crate::engine::figures::Row;

/// About what a row takes in memory.
const ROW_BYTES: usize = 1024;

/// Something that rank 0 reports.
#[derive(Debug, Clone)]
pub(super) enum Entry {
    Row(Arc<Row>),
    Evaluation(Arc<Row>),
    Exhibit(u64, Arc<Exhibit>),
    Histograms(u64, Arc<Vec<Histogram>>),
    Done(u64),
}

impl Entry {
    fn num_bytes(&self) -> usize {
        match self {
            Self::Row(_) | Self::Evaluation(_) | Self::Done(_) => ROW_BYTES,
            Self::Exhibit(_, exhibit) => ROW_BYTES + exhibit.bytes().len(),
            Self::Histograms(_, histograms) => {
                ROW_BYTES + histograms.iter().map(Histogram::num_bytes).sum::<usize>()
            }
        }
    }
}

/// Whether a sink has any use for an entry.
pub(super) type Takes = fn(&Entry) -> bool;

/// Entries that sinks have not taken yet, in order, within a bound on their bytes.
#[derive(Debug)]
pub(super) struct Kept {
    takes: Vec<Takes>,
    queues: Vec<VecDeque<Entry>>,
    /// Entries given up, for each sink.
    lost: Vec<u64>,
    bytes: usize,
    most_bytes: usize,
}

impl Kept {
    /// For sinks that take such entries, the dearest sink first.
    pub(super) fn new(takes: Vec<Takes>, most_bytes: usize) -> Self {
        let (queues, lost) = (vec![VecDeque::new(); takes.len()], vec![0; takes.len()]);
        Self { takes, queues, lost, bytes: 0, most_bytes }
    }

    /// Keeps an entry for each sink that takes it; whether others had to be given up for it.
    pub(super) fn push(&mut self, entry: &Entry) -> bool {
        let queues = self.queues.iter_mut().zip(&self.takes);
        for (queue, _) in queues.filter(|(_, takes)| takes(entry)) {
            queue.push_back(entry.clone());
            self.bytes += entry.num_bytes();
        }
        let mut is_full = false;
        while self.bytes > self.most_bytes && self.give_one_up() {
            is_full = true;
        }
        is_full
    }

    /// The next entry for a sink.
    pub(super) fn pop(&mut self, sink: usize) -> Option<Entry> {
        let entry = self.queues[sink].pop_front()?;
        self.bytes -= entry.num_bytes();
        Some(entry)
    }

    /// Puts back what a sink has refused.
    pub(super) fn put_back(&mut self, sink: usize, entry: Entry) {
        self.bytes += entry.num_bytes();
        self.queues[sink].push_front(entry);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queues.iter().all(VecDeque::is_empty)
    }

    /// Entries that wait, for each sink.
    pub(super) fn waiting(&self) -> Vec<u64> {
        self.queues.iter().map(|queue| queue.len() as u64).collect()
    }

    /// Entries that were given up, for each sink.
    pub(super) fn lost(&self) -> &[u64] {
        &self.lost
    }

    /// Gives up the oldest picture, or where there is none the oldest entry of the least dear sink that has
    /// any; whether there was one.
    fn give_one_up(&mut self) -> bool {
        let pictures = self.queues.iter().enumerate().filter_map(|(sink, queue)| {
            let step = |entry: &Entry| match entry {
                Entry::Exhibit(step, _) | Entry::Histograms(step, _) => Some(*step),
                _ => None,
            };
            queue.iter().enumerate().find_map(|(at, entry)| Some((step(entry)?, sink, at)))
        });
        let others = || {
            let sink = self.queues.iter().rposition(|queue| !queue.is_empty())?;
            Some((0, sink, 0))
        };
        let Some((_, sink, at)) = pictures.min().or_else(others) else { return false };
        if let Some(entry) = self.queues[sink].remove(at) {
            self.bytes -= entry.num_bytes();
            self.lost[sink] += 1;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::metrics::picture::{EncodedPng, ImageShape};
    use crate::engine::metrics::tests::row;

    /// Sinks as of a run: rows; events, which take all; pictures.
    fn kept(most_bytes: usize) -> Kept {
        let takes: Vec<Takes> = vec![|entry| matches!(entry, Entry::Row(_)), |_| true, |entry| {
            matches!(entry, Entry::Exhibit(..))
        }];
        Kept::new(takes, most_bytes)
    }

    fn picture(step: u64) -> Entry {
        let shape = ImageShape { height: 1, width: 1, channels: 1 };
        Entry::Exhibit(
            step,
            Arc::new(Exhibit::Picture(EncodedPng {
                png: vec![0; 9 * ROW_BYTES],
                shape,
                shows: "samples",
            })),
        )
    }

    fn row_of(step: u64) -> Entry {
        Entry::Row(Arc::new(row(step)))
    }

    /// Steps that wait for a sink.
    fn steps(kept: &mut Kept, sink: usize) -> Vec<u64> {
        let entries = std::iter::from_fn(|| kept.pop(sink));
        entries
            .map(|entry| match entry {
                Entry::Row(row) => row.step,
                Entry::Evaluation(figures) => figures.step,
                Entry::Exhibit(step, _) | Entry::Histograms(step, _) | Entry::Done(step) => step,
            })
            .collect()
    }

    #[test]
    fn the_oldest_pictures_are_given_up_before_any_row() {
        // A picture is 10 rows' worth, twice; a row is kept twice too: 2 + 20 + 2 + 20 rows.
        let mut kept = kept(50 * ROW_BYTES);
        for entry in [row_of(1), picture(1), row_of(2), picture(2)] {
            assert!(!kept.push(&entry));
        }
        assert!(kept.push(&picture(3)), "14 rows' worth too much: both copies of the first");
        assert_eq!(kept.waiting(), [2, 4, 2]);
        assert_eq!(kept.lost(), [0, 1, 1]);
        assert_eq!(steps(&mut kept, 0), [1, 2]);
        assert_eq!(steps(&mut kept, 1), [1, 2, 2, 3]);
        assert_eq!(steps(&mut kept, 2), [2, 3]);
        assert!(kept.is_empty() && kept.bytes == 0);
    }

    #[test]
    fn rows_outlive_events_and_stay_in_order() {
        let mut kept = kept(4 * ROW_BYTES);
        for step in 1..=4 {
            kept.push(&row_of(step));
        }
        assert_eq!((kept.waiting(), kept.lost()), (vec![4, 0, 0], &[0, 4, 0][..]));
        let first = kept.pop(0).unwrap();
        kept.put_back(0, first);
        assert_eq!(steps(&mut kept, 0), [1, 2, 3, 4]);
        for step in 5..=20 {
            kept.push(&row_of(step));
        }
        assert_eq!(steps(&mut kept, 0), [17, 18, 19, 20]);
        assert_eq!(kept.lost(), [12, 20, 0]);
    }
}
