//! Figures of whole sets of samples, in float64: how far reconstructions are from what they
//! reconstruct, as sets and channel by channel.
//!
//! Film is measured by the number of a frame as well: causal networks are often worse after the first
//! one.
//!
//! [`sound`] has figures of single sounds. Similarity, PSNR and perplexity are in [`crate::loss`], which trains with some of them.
//!
//! A Frechet distance is called FID only over the features of one network, the Inception of 2015
//! with its own resizing, and rFID where the sets are pictures and their reconstructions. Over
//! [features of ours](crate::features) it is neither: name the features beside the number.

pub mod film;
pub mod manifold;
pub mod moments;
pub mod sound;

use tch::{Kind, Tensor};

pub use self::film::{FilmFigures, add_film, film_len};
pub use self::manifold::{Manifold, manifold};
pub use self::moments::{add_moments, frechet, moments_len};

/// Sum of squared errors of each channel, `[C]` in float64; `outputs` and `targets` are
/// `[N, C, ..]`.
pub fn squared_error_by_channel(outputs: &Tensor, targets: &Tensor) -> Tensor {
    let along: Vec<i64> = (0..outputs.dim() as i64).filter(|axis| *axis != 1).collect();
    let errors = outputs.to_kind(Kind::Double) - targets.to_kind(Kind::Double);
    errors.square().sum_dim_intlist(along.as_slice(), false, Kind::Double)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    /// By hand: errors (1, 2) and (3, 0) in channel 0, (0, 0) and (1, 1) in channel 1.
    #[test]
    fn errors_are_summed_in_each_channel() {
        let outputs = Tensor::from_slice(&[1.0, 2.0, 0.0, 0.0, 3.0, 0.0, 1.0, 1.0]);
        for shape in [vec![2, 2, 2], vec![2, 2, 1, 2], vec![2, 2, 1, 1, 2]] {
            let outputs = outputs.view(shape.as_slice());
            let found = squared_error_by_channel(&outputs, &outputs.zeros_like());
            assert_eq!(found, Tensor::from_slice(&[14.0, 2.0]));
        }
        let none = Tensor::zeros([0, 3, 4], (Kind::Float, Device::Cpu));
        assert_eq!(squared_error_by_channel(&none, &none), Tensor::from_slice(&[0.0; 3]));
    }
}
