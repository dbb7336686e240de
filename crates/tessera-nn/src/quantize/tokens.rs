//! Tokens of the global batch, laid out so that a sum over ranks holds them all.

use std::ops::Range;

use tch::Tensor;

use crate::vqvae::to_device;

/// Copies the latents of those `tokens` that are in `mine`, this rank's range of the global
/// batch's tokens, to the rows of their places in `out_rd`; all other rows stay as they are, so
/// that over zeros the sum over ranks holds every token's latent.
pub fn lay_out_tokens(
    tokens: &[usize],
    mine: Range<usize>,
    latents_nd: &Tensor,
    out_rd: &mut Tensor,
) {
    let (mut rows, mut sources) = (Vec::new(), Vec::new());
    for (row, token) in tokens.iter().enumerate() {
        if mine.contains(token) {
            rows.push(row as i64);
            sources.push((token - mine.start) as i64);
        }
    }
    let device = latents_nd.device();
    let sources = to_device(Tensor::from_slice(&sources), device);
    let rows = to_device(Tensor::from_slice(&rows), device);
    let _ = out_rd.index_copy_(0, &rows, &latents_nd.index_select(0, &sources));
}
