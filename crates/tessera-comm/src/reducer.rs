//! One flat buffer for everything that a training step reduces.
//!
//! Six to ten small collectives a step cost more than their bytes; here gradients, codebook
//! statistics and scalars are pieces of one tensor that is summed once. The layout is a pure
//! function of the list of pieces, so every rank has the same one; [`Reducer::layout_hash`] is
//! what ranks compare.

use tch::{Device, Kind, Tensor};

use crate::{CommError, Communicator};

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
        Self { pieces, offsets, flat: Tensor::zeros([end], (kind, device)) }
    }

    /// The piece called `name`, as a view `[len]` of the buffer.
    ///
    /// # Panics
    ///
    /// If there is no such piece.
    pub fn piece(&self, name: &str) -> Tensor {
        let at = self
            .pieces
            .iter()
            .position(|piece| piece.name == name)
            .expect("pieces are named by the code that made the layout");
        self.flat.narrow(0, self.offsets[at], self.pieces[at].len)
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

    /// Sums the whole buffer over the ranks, in place.
    ///
    /// # Errors
    ///
    /// [`CommError`] as the communicator gives it; the run is over then.
    pub fn all_reduce(&mut self, comm: &dyn Communicator) -> Result<(), CommError> {
        self.flat = comm.all_reduce(self.flat.shallow_clone())?.wait()?;
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

    #[test]
    fn another_order_or_length_is_another_layout() {
        let hash = |pieces| Reducer::new(pieces, Kind::Float, Device::Cpu).layout_hash();
        let mut turned = pieces();
        turned.reverse();
        assert_ne!(hash(pieces()), hash(turned));
        assert_eq!(hash(pieces()), hash(pieces()));
    }
}
