//! Which samples share the next batch.
//!
//! The oldest turn decides the kind of work. All requests of that kind then get an equal part of the batch, and what
//! is left of it goes to them in order. Whoever is not finished goes to the end of the line, so a request of thousand
//! samples delays one of a single sample by a batch, and one kind of work does not lock out another.

use std::collections::VecDeque;
use std::time::Instant;

use super::{Item, Kind, Submission};
use crate::refusal::Refusal;

/// Requests that are not finished, by turn.
#[derive(Debug, Default)]
pub(super) struct Line {
    waiting: VecDeque<Submission>,
}

/// A batch, and whose it is.
pub(super) struct Batch {
    pub(super) kind: Kind,
    pub(super) items: Vec<Item>,
    /// Requests in the batch, with their number of items there, in the order of `items`.
    pub(super) parts: Vec<(Submission, usize)>,
}

impl Line {
    pub(super) fn push(&mut self, submission: Submission) {
        self.waiting.push_back(submission);
    }

    /// Forgets requests whose client has gone.
    pub(super) fn drop_gone(&mut self) {
        self.waiting.retain(|submission| !submission.reply.is_closed());
    }

    /// When the request whose turn it is came; `None`: nobody waits.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.waiting.front().map(|submission| submission.arrived)
    }

    /// Samples that could share the next batch.
    pub(super) fn num_ready(&self) -> usize {
        let Some(first) = self.waiting.front() else { return 0 };
        self.waiting.iter().filter(|one| one.kind == first.kind).map(|one| one.items.len()).sum()
    }

    /// Takes the next batch of at most `tile` samples.
    pub(super) fn take(&mut self, tile: usize) -> Option<Batch> {
        let kind = self.waiting.front()?.kind;
        let (mut chosen, others): (VecDeque<_>, VecDeque<_>) =
            std::mem::take(&mut self.waiting).into_iter().partition(|one| one.kind == kind);
        // At most one request for each place; the rest keeps its turn.
        let unserved = chosen.split_off(chosen.len().min(tile));
        self.waiting = unserved.into_iter().chain(others).collect();
        let share = tile / chosen.len();
        let mut counts: Vec<usize> = chosen.iter().map(|one| one.items.len().min(share)).collect();
        let mut left = tile - counts.iter().sum::<usize>();
        for (count, one) in counts.iter_mut().zip(&chosen) {
            let more = (one.items.len() - *count).min(left);
            *count += more;
            left -= more;
        }
        let mut items = Vec::new();
        let mut parts = Vec::new();
        for (mut one, count) in chosen.into_iter().zip(counts) {
            items.extend(one.items.drain(..count));
            parts.push((one, count));
        }
        Some(Batch { kind, items, parts })
    }

    /// Answers all with a refusal.
    pub(super) fn refuse(&mut self, refusal: &Refusal) {
        for submission in self.waiting.drain(..) {
            // A client that has gone needs no answer.
            let _ = submission.reply.send(Err(refusal.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Bytes;
    use tokio::sync::oneshot;

    use super::super::Answer;
    use super::*;

    type Reply = oneshot::Receiver<Result<Vec<Answer>, Refusal>>;

    fn submission(kind: Kind, num: usize) -> (Submission, Reply) {
        let (reply, receiver) = oneshot::channel();
        let items = (0..num).map(|_| Item::Sample(Bytes::new())).collect();
        let arrived = Instant::now();
        (Submission { kind, items, answers: Vec::new(), reply, arrived, _permit: None }, receiver)
    }

    fn take(line: &mut Line, tile: usize) -> (Kind, Vec<usize>) {
        let batch = line.take(tile).unwrap();
        let counts = batch.parts.iter().map(|(_, count)| *count).collect();
        for (one, _) in batch.parts {
            if !one.items.is_empty() {
                line.push(one);
            }
        }
        (batch.kind, counts)
    }

    #[test]
    fn a_large_request_leaves_room_for_small_ones_and_for_other_kinds() {
        let mut line = Line::default();
        let mut keep = Vec::new();
        for (kind, num) in [(Kind::Encode, 10), (Kind::Encode, 1), (Kind::Decode, 2)] {
            let (one, reply) = submission(kind, num);
            line.push(one);
            keep.push(reply);
        }
        // Shares of 2 for each of two requests; the second needs one, so the first gets three.
        assert_eq!(line.num_ready(), 11);
        assert_eq!(take(&mut line, 4), (Kind::Encode, vec![3, 1]));
        assert_eq!(take(&mut line, 4), (Kind::Decode, vec![2]));
        assert_eq!(take(&mut line, 4), (Kind::Encode, vec![4]));
        assert_eq!(take(&mut line, 4), (Kind::Encode, vec![3]));
        assert!(line.take(4).is_none());
    }

    #[test]
    fn more_requests_than_places_wait_for_the_next_batch_in_order() {
        let mut line = Line::default();
        let mut keep = Vec::new();
        for _ in 0..5 {
            let (one, reply) = submission(Kind::Encode, 1);
            line.push(one);
            keep.push(reply);
        }
        assert_eq!(take(&mut line, 3).1, [1, 1, 1]);
        assert_eq!(take(&mut line, 3).1, [1, 1]);
    }

    #[test]
    fn a_request_whose_client_has_gone_is_forgotten() {
        let mut line = Line::default();
        let (one, reply) = submission(Kind::Encode, 1);
        line.push(one);
        drop(reply);
        line.drop_gone();
        assert!(line.oldest().is_none());
    }
}
