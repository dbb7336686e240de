//! The encoder alone, timed: what there is to do when nothing is read or written.

use std::time::Instant;

use serde::Serialize;
use tch::{Kind, Tensor};
use tessera_model::OpenModel;

use crate::error::ApplyError;
use crate::tile;

/// Samples of a call.
const SAMPLES: usize = 1024;

/// How fast the encoder is alone.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EncodeFigures {
    /// Samples of a tile.
    pub tile: usize,
    /// Samples a second, of the call with the median time.
    pub samples_per_second: f64,
}

/// Encodes the same random tile over and over, from values to codes on the host.
///
/// # Errors
///
/// [`ApplyError::NotFinite`] if the model makes no numbers of it.
pub fn bench_encode(
    model: &OpenModel,
    warmup: usize,
    calls: usize,
) -> Result<EncodeFigures, ApplyError> {
    let vqvae = &model.vqvae;
    let tile = tile::size(&model.signal());
    let shape = model.signal().shape(tile as i64);
    let values = Tensor::rand(shape.as_slice(), (vqvae.kind(), vqvae.device()));
    let values = vqvae.signal.from_raw(&vqvae.signal.to_raw(&values), vqvae.kind());
    let mut seconds = Vec::with_capacity(calls);
    for call in 0..warmup + calls {
        let begun = Instant::now();
        for _ in 0..SAMPLES / tile {
            let codes = tile::encode(vqvae, &values);
            let codes = codes.ok_or(ApplyError::NotFinite { sample: 0 })?;
            drop(codes[0].to_device(tch::Device::Cpu).to_kind(Kind::Int));
        }
        if call >= warmup {
            seconds.push(begun.elapsed().as_secs_f64());
        }
    }
    seconds.sort_by(f64::total_cmp);
    let median = seconds[seconds.len() / 2];
    Ok(EncodeFigures { tile, samples_per_second: SAMPLES as f64 / median })
}
