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

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind};

    /// Parts hold tokens 0..2, 2..4 and none; the sum of what they lay out is tokens 3, 0, 2.
    #[test]
    fn tokens_laid_out_by_their_owners_add_up() {
        let latents_nd = Tensor::from_slice(&[10.0f64, 11.0, 12.0, 13.0]).view([4, 1]);
        let mut sum = Tensor::zeros([4, 1], (Kind::Double, Device::Cpu));
        for (start, end) in [(0, 2), (2, 4), (4, 4)] {
            let part_nd = latents_nd.narrow(0, start as i64, (end - start) as i64);
            let mut out_rd = sum.zeros_like();
            lay_out_tokens(&[3, 0, 2], start..end, &part_nd, &mut out_rd);
            sum += out_rd;
        }
        assert_eq!(Vec::<f64>::try_from(sum.flatten(0, 1)).unwrap(), [13.0, 10.0, 12.0, 0.0]);
    }
}
