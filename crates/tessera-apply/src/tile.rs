//! The one size of batch that a model in use runs on.
//!
//! Libraries choose other kernels for other sizes, and one sample alone can come out 1e-5 away from the same sample in a
//! larger batch: enough for another code. So every model in use, encoder and decoder alike, sees [`TILE`] samples at a
//! time, whatever there is to do: missing ones are made up, and what comes of them is left out. With one thread a rank the
//! bytes are the same for every batch and every number of ranks, on the same build and the same kind of CPU.
//!
//! A sample's place in its tile is its number modulo [`TILE`], whoever asks for it.

use tch::Tensor;
use tessera_nn::{VqVae, from_vectors, to_vectors};

/// Samples of a tile.
pub const TILE: usize = 16;

/// What a tile of samples is in codes: of each level, the finest first, `[TILE, positions, L]` int64.
pub type Codes = Vec<Tensor>;

/// The codes of a whole tile of samples `[TILE, C, ..]`, by the rule of an evaluation; none where a latent is not finite.
///
/// # Panics
///
/// If it is no whole tile.
pub fn encode(model: &VqVae, samples_nc: &Tensor) -> Option<Codes> {
    assert_whole(samples_nc);
    let _no_grad = tch::no_grad_guard();
    let (mut codes, mut is_finite) = (Vec::new(), true);
    drop(model.descend(samples_nc, |level, latents| {
        let latents_nd = to_vectors(latents);
        is_finite &= latents_nd.isfinite().all().int64_value(&[]) == 1;
        let quantizer = &model.quantizers[level];
        let indices_nl = quantizer.tokenize(&model.parameters, &latents_nd);
        let codes_nd = quantizer.look_up(&model.parameters, &indices_nl);
        codes.push(indices_nl.view([TILE as i64, -1, indices_nl.size()[1]]));
        from_vectors(&codes_nd, latents)
    }));
    codes.reverse();
    is_finite.then_some(codes)
}

/// The samples `[TILE, C, ..]` that a tile of codes stands for, clamped to the range of their signal.
///
/// # Panics
///
/// If it is no whole tile, or a code is none of its level's.
pub fn decode(model: &VqVae, codes: &[Tensor]) -> Tensor {
    let _no_grad = tch::no_grad_guard();
    codes.iter().for_each(assert_whole);
    model.decode_indices(codes)
}

fn assert_whole(tile: &Tensor) {
    assert_eq!(tile.size()[0], TILE as i64, "a tile is whole");
}

/// A tile whose first rows these are; the others are zeros.
pub fn padded(rows: &Tensor) -> Tensor {
    let mut shape = rows.size();
    let num = std::mem::replace(&mut shape[0], TILE as i64);
    if num == TILE as i64 {
        return rows.shallow_clone();
    }
    let tile = Tensor::zeros(shape.as_slice(), (rows.kind(), rows.device()));
    tile.narrow(0, 0, num).copy_(rows);
    tile
}
