//! The one size of batch that a model in use runs on.
//!
//! Libraries choose other kernels for other sizes, and one sample alone can come out 1e-5 away from the same sample in a
//! larger batch: enough for another code. So every model in use, encoder and decoder alike, sees a tile of samples at a
//! time, whatever there is to do: missing ones are made up, and what comes of them is left out. With one thread a rank the
//! bytes are the same for every batch and every number of ranks, on the same build and the same kind of CPU.
//!
//! How many samples a tile has follows from their shape alone ([`size`]): [`MOST`] small ones, which are a fifth faster
//! together than [`LEAST`] are, and fewer large ones, whose activations would not fit. A sample's place in its tile is its
//! number modulo the size, whoever asks for it.

use tch::Tensor;
use tessera_nn::{Signal, VqVae, from_vectors, to_vectors};

/// Fewest samples of a tile, and ids that a prior sees together.
pub const LEAST: usize = 16;
/// Most samples of a tile.
pub const MOST: usize = 64;
/// Values of a tile that has more samples than the fewest: 64 pictures of 64 x 64 in gray, or 16 in colour.
const VALUES: i64 = 1 << 18;

/// Samples of a tile where they are of this signal: a power of two.
pub fn size(signal: &Signal) -> usize {
    let values: i64 = signal.shape(1).iter().product();
    let mut size = MOST;
    while size > LEAST && size as i64 * values > VALUES {
        size /= 2;
    }
    size
}

/// What a tile of samples is in codes: of each level, the finest first, `[tile, positions, L]` int64.
pub type Codes = Vec<Tensor>;

/// The codes of a whole tile of samples `[tile, C, ..]`, by the rule of an evaluation; none where a latent is not finite.
///
/// # Panics
///
/// If it is no whole tile.
pub fn encode(model: &VqVae, samples_nc: &Tensor) -> Option<Codes> {
    assert_whole(model, samples_nc);
    let _no_grad = tch::no_grad_guard();
    let (mut codes, mut is_finite) = (Vec::new(), true);
    drop(model.descend(samples_nc, |level, latents| {
        let latents_nd = to_vectors(latents);
        is_finite &= latents_nd.isfinite().all().int64_value(&[]) == 1;
        let quantizer = &model.quantizers[level];
        let indices_nl = quantizer.tokenize(&model.parameters, &latents_nd);
        let codes_nd = quantizer.look_up(&model.parameters, &indices_nl);
        codes.push(indices_nl.view([samples_nc.size()[0], -1, indices_nl.size()[1]]));
        from_vectors(&codes_nd, latents)
    }));
    codes.reverse();
    is_finite.then_some(codes)
}

/// The samples `[tile, C, ..]` that a tile of codes stands for, clamped to the range of their signal.
///
/// # Panics
///
/// If it is no whole tile, or a code is none of its level's.
pub fn decode(model: &VqVae, codes: &[Tensor]) -> Tensor {
    let _no_grad = tch::no_grad_guard();
    codes.iter().for_each(|codes| assert_whole(model, codes));
    model.decode_indices(codes)
}

fn assert_whole(model: &VqVae, tile: &Tensor) {
    assert_eq!(tile.size()[0], size(&model.signal) as i64, "a tile is whole");
}

/// A tile of so many rows, of which these are the first; the others are zeros.
pub fn padded(rows: &Tensor, size: usize) -> Tensor {
    let mut shape = rows.size();
    let num = std::mem::replace(&mut shape[0], size as i64);
    if num == size as i64 {
        return rows.shallow_clone();
    }
    let tile = Tensor::zeros(shape.as_slice(), (rows.kind(), rows.device()));
    tile.narrow(0, 0, num).copy_(rows);
    tile
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By hand: 2^18 values are 334 pictures of 28 x 28, 21 of 64 x 64 x 3, 85 of 32 x 32 x 3.
    #[test]
    fn small_samples_come_in_larger_tiles() {
        let image = |channels, side| Signal::Image { channels, height: side, width: side };
        let sizes = [(1, 28, 64), (3, 32, 64), (1, 64, 64), (1, 90, 32), (3, 64, 16), (3, 512, 16)];
        for (channels, side, expected) in sizes {
            assert_eq!(size(&image(channels, side)), expected, "{channels} of {side}");
        }
    }
}
