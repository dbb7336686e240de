//! One flat buffer for everything that a training step reduces.
//!
//! Six to ten small collectives a step cost more than their bytes; here gradients, codebook
//! statistics and scalars are pieces of one tensor that is summed once. Where the communicator
//! makes progress while the rank computes, parts that are ready can be sent early, and the end
//! sends what is left; elsewhere the end sends it all in one call. The layout is a pure function
//! of the list of pieces, so every rank has the same one; [`Reducer::layout_hash`] is what ranks
//! compare.

use std::ops::Range;

use tch::{Device, Kind, Tensor};

use crate::{CommError, Communicator, InFlight};

/// Elements between the starts of two pieces are a multiple of this: 64 bytes of f32.
const ALIGNMENT: i64 = 16;

/// One named piece of the buffer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Canonical name, such as `gradients`.
    pub name: &'static str,
    /// Number of elements.
    pub len: i64,
}

/// The buffer and its layout.
#[derive(Debug)]
pub struct Reducer {
    pieces: Vec<Piece>,
    offsets: Vec<i64>,
    flat: Tensor,
    /// Parts of the buffer that have been sent in this round, in the order of sending; without a
    /// flight where the sum has been waited for.
    sent: Vec<(Range<i64>, Option<InFlight>)>,
}

impl Reducer {
    /// A buffer of zeros with these pieces, in this order.
    pub fn new(pieces: Vec<Piece>, kind: Kind, device: Device) -> Self {
        let mut offsets = Vec::with_capacity(pieces.len());
        let mut end = 0;
        for piece in &pieces {
            offsets.push(end);
            end += (piece.len + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
        }
        Self { pieces, offsets, flat: Tensor::zeros([end], (kind, device)), sent: Vec::new() }
    }

    /// The piece called `name`, as a view `[len]` of the buffer.
    ///
    /// # Panics
    ///
    /// If there is no such piece.
    pub fn piece(&self, name: &str) -> Tensor {
        let at = self.index(name);
        self.flat.narrow(0, self.offsets[at], self.pieces[at].len)
    }

    fn index(&self, name: &str) -> usize {
        self.pieces
            .iter()
            .position(|piece| piece.name == name)
            .expect("pieces are named by the code that made the layout")
    }

    /// Bytes that one reduction sends.
    pub fn num_bytes(&self) -> usize {
        self.flat.numel() * self.flat.kind().elt_size_in_bytes()
    }

    /// A number that differs where the layout does.
    pub fn layout_hash(&self) -> u64 {
        // FNV-1a, 64 bits, over names and lengths.
        let mut hash = 0xcbf2_9ce4_8422_2325u64;
        for piece in &self.pieces {
            for byte in piece.name.bytes().chain([0]).chain(piece.len.to_le_bytes()) {
                hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
            }
        }
        hash
    }

    /// The elements of the buffer from the start of one piece to the end of another.
    ///
    /// # Panics
    ///
    /// If there is no such piece.
    pub fn span(&self, first: &str, last: &str) -> Range<i64> {
        let last = self.index(last);
        self.offsets[self.index(first)]..self.offsets[last] + self.pieces[last].len
    }

    /// Sets everything before a piece to zero.
    ///
    /// # Panics
    ///
    /// If there is no such piece.
    pub fn clear_before(&self, name: &str) {
        let _ = self.flat.narrow(0, 0, self.offsets[self.index(name)]).zero_();
    }

    /// Begins to sum these elements of the buffer, which are ready, where that pays: nothing may
    /// touch them before [`Self::all_reduce`] has returned.
    ///
    /// # Errors
    ///
    /// [`CommError`] as the communicator gives it; the run is over then.
    ///
    /// # Panics
    ///
    /// If some of them have been sent in this round.
    pub fn send_early(
        &mut self,
        comm: &dyn Communicator,
        part: Range<i64>,
    ) -> Result<(), CommError> {
        if !comm.overlaps() || part.is_empty() {
            return Ok(());
        }
        let is_free =
            |(other, _): &(Range<i64>, _)| part.end <= other.start || other.end <= part.start;
        assert!(self.sent.iter().all(is_free), "a part is sent once");
        let tensor = self.flat.narrow(0, part.start, part.end - part.start);
        self.sent.push((part, Some(comm.all_reduce(tensor)?)));
        Ok(())
    }

    /// Sums the pieces from `first` to `last` over the ranks, in place, and waits for them;
    /// [`Self::all_reduce`] leaves them as they are then. What is being summed with them, as
    /// [`Self::send_early`] has sent it, is waited for too.
    ///
    /// # Errors
    ///
    /// [`CommError`] as the communicator gives it; the run is over then.
    ///
    /// # Panics
    ///
    /// If some of them have been sent in this round, and others not.
    pub fn finish(
        &mut self,
        comm: &dyn Communicator,
        first: &str,
        last: &str,
    ) -> Result<(), CommError> {
        let part = self.span(first, last);
        for (sent, flight) in &mut self.sent {
            if sent.start <= part.start && part.end <= sent.end {
                if let Some(flight) = flight.take() {
                    let _ = flight.wait()?; // a view of the buffer
                }
                return Ok(());
            }
            assert!(part.end <= sent.start || sent.end <= part.start, "sent whole or not at all");
        }
        let tensor = self.flat.narrow(0, part.start, part.end - part.start);
        let _ = comm.all_reduce(tensor)?.wait()?;
        self.sent.push((part, None));
        Ok(())
    }

    /// Sums over the ranks, in place, what has not been sent yet, and waits for everything.
    ///
    /// # Errors
    ///
    /// [`CommError`] as the communicator gives it; the run is over then.
    pub fn all_reduce(&mut self, comm: &dyn Communicator) -> Result<(), CommError> {
        let sent = std::mem::take(&mut self.sent);
        let mut taken: Vec<_> = sent.iter().map(|(part, _)| part.clone()).collect();
        taken.sort_by_key(|part| part.start);
        let (mut rest, mut start) = (Vec::new(), 0);
        for part in taken.into_iter().chain(std::iter::once(self.flat.size()[0]..i64::MAX)) {
            if start < part.start {
                rest.push(self.flat.narrow(0, start, part.start - start));
            }
            start = part.end;
        }
        let rest = comm.all_reduce_group(rest)?;
        for flight in sent.into_iter().filter_map(|(_, flight)| flight).chain(rest) {
            let _ = flight.wait()?; // a view of the buffer
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::Threads;

    fn pieces() -> Vec<Piece> {
        vec![Piece { name: "a", len: 3 }, Piece { name: "b", len: 20 }]
    }

    #[test]
    fn pieces_are_summed_over_ranks_without_touching_each_other() {
        let answers = Threads::run(3, Duration::from_secs(20), |comm| {
            let mut reducer = Reducer::new(pieces(), Kind::Double, Device::Cpu);
            let _ = reducer.piece("a").fill_(1.0 + comm.rank() as f64);
            let _ = reducer.piece("b").fill_(10.0);
            reducer.all_reduce(&comm)?;
            let a: Vec<f64> = Vec::try_from(reducer.piece("a"))?;
            let b: Vec<f64> = Vec::try_from(reducer.piece("b"))?;
            Ok((a, b))
        });
        for answer in answers {
            let (a, b) = answer.expect("no rank fails");
            assert_eq!(a, [6.0; 3]); // 1 + 2 + 3
            assert_eq!(b, [30.0; 20]);
        }
    }

    /// By hand: the piece is summed once, 1 + 2, and not once more with the rest.
    #[test]
    fn a_piece_that_was_finished_is_not_summed_again() {
        let answers = Threads::run(2, Duration::from_secs(20), |comm| {
            let mut reducer = Reducer::new(pieces(), Kind::Double, Device::Cpu);
            let mut early = Vec::new();
            for _ in 0..2 {
                reducer.clear_before("b");
                let _ = reducer.piece("a").fill_(1.0 + comm.rank() as f64);
                let _ = reducer.piece("b").fill_(10.0);
                reducer.finish(&comm, "a", "a")?;
                early.push(reducer.piece("a").double_value(&[0]));
                reducer.all_reduce(&comm)?;
                early.push(reducer.piece("a").double_value(&[0]));
                early.push(reducer.piece("b").double_value(&[0]));
            }
            Ok(early)
        });
        for answer in answers {
            assert_eq!(answer.expect("no rank fails"), [3.0, 3.0, 20.0, 3.0, 3.0, 20.0]);
        }
    }

    #[test]
    fn another_order_or_length_is_another_layout() {
        let hash = |pieces| Reducer::new(pieces, Kind::Float, Device::Cpu).layout_hash();
        let mut turned = pieces();
        turned.reverse();
        assert_ne!(hash(pieces()), hash(turned));
        assert_eq!(hash(pieces()), hash(pieces()));
    }
}
