//! Sums over a logging interval, kept on the device until the interval ends.

use tch::{Device, Kind, Tensor};

use super::usage::Usage;

/// Running sums: reconstruction, the quantiser's losses, gradient norm, steps, codes replaced,
/// samples skipped; and
/// how often each code was taken.
#[derive(Debug)]
pub struct Window {
    sums: Tensor,
    counts_k: Tensor,
    /// K of each level.
    num_codes: Vec<i64>,
}

/// Means over a logging interval: NaN where none of its steps was done, since all were skipped.
#[derive(Debug, Clone, PartialEq)]
pub struct WindowMeans {
    /// Mean squared error.
    pub recon_mse: f64,
    /// The quantiser's weighted losses.
    pub quantizer_loss: f64,
    /// Norm of the whole gradient, before clipping.
    pub grad_norm: f64,
    /// How codes were taken in the whole interval, over all ranks.
    pub usage: Usage,
    /// Dead codes replaced in the whole interval: a sum.
    pub codes_replaced: u64,
    /// Samples that could not be read in the whole interval: a sum over ranks.
    pub samples_skipped: u64,
}

impl Window {
    /// An empty interval for levels of `num_codes` codes.
    pub fn new(num_codes: &[i64], device: Device) -> Self {
        Self {
            sums: Tensor::zeros([6], (Kind::Double, device)),
            counts_k: Tensor::zeros([num_codes.iter().sum::<i64>()], (Kind::Double, device)),
            num_codes: num_codes.to_vec(),
        }
    }

    /// Adds a step: its reduced scalars (reconstruction, the quantiser's losses, stop, samples skipped), the
    /// norm of its gradient, its reduced counts, and the number of codes replaced in it.
    pub fn add(
        &mut self,
        scalars: &Tensor,
        norm: &Tensor,
        counts_k: &Tensor,
        replaced: Option<&Tensor>,
    ) {
        let _ = self.sums.narrow(0, 0, 2).g_add_(&scalars.narrow(0, 0, 2).to_kind(Kind::Double));
        let _ = self.sums.get(5).g_add_(&scalars.get(3).to_kind(Kind::Double));
        let _ = self.sums.get(2).g_add_(norm);
        let _ = self.sums.get(3).g_add_scalar_(1.0);
        if let Some(replaced) = replaced {
            let _ = self.sums.get(4).g_add_(replaced);
        }
        self.counts_k += counts_k.to_kind(Kind::Double);
    }

    /// Adds a step that was skipped: of its reduced scalars, samples that could not be read.
    pub fn add_skipped(&mut self, scalars: &Tensor) {
        let _ = self.sums.get(5).g_add_(&scalars.get(3).to_kind(Kind::Double));
    }

    /// The means, read to the host; the next interval starts empty.
    pub fn take(&mut self) -> WindowMeans {
        let sums: Vec<f64> = Vec::try_from(&self.sums).expect("six numbers");
        let counts: Vec<f64> = Vec::try_from(&self.counts_k).expect("a number a code");
        let _ = self.sums.zero_();
        let _ = self.counts_k.zero_();
        let steps = sums[3];
        WindowMeans {
            recon_mse: sums[0] / steps,
            quantizer_loss: sums[1] / steps,
            grad_norm: sums[2] / steps,
            usage: Usage::of(&counts, &self.num_codes),
            codes_replaced: sums[4] as u64,
            samples_skipped: sums[5] as u64,
        }
    }

    /// Canonical name and tensor of the state that a checkpoint holds; writing restores it.
    pub fn state(&self) -> [(&'static str, &Tensor); 2] {
        [("metrics.window_sums", &self.sums), ("metrics.window_counts", &self.counts_k)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_are_over_the_steps_of_the_interval() {
        let mut window = Window::new(&[3], Device::Cpu);
        for (loss, counts) in [(1.0f64, [2.0f64, 0.0, 0.0]), (3.0, [0.0, 2.0, 0.0])] {
            let scalars = Tensor::from_slice(&[loss, 10.0 * loss, 0.0, 3.0]);
            let norm = Tensor::from(5.0f64);
            let replaced = Tensor::from(4.0f64);
            window.add(&scalars, &norm, &Tensor::from_slice(&counts), Some(&replaced));
        }
        let means = window.take();
        assert_eq!((means.recon_mse, means.quantizer_loss, means.grad_norm), (2.0, 20.0, 5.0));
        assert!((means.usage.perplexity - 2.0).abs() < 1e-12); // two codes, equally often
        assert_eq!((means.usage.codes_used, means.codes_replaced), (2, 8));
        assert_eq!(means.samples_skipped, 6);
        window.add_skipped(&Tensor::from_slice(&[f64::NAN, f64::NAN, 0.0, 2.0]));
        let empty = window.take();
        assert_eq!((empty.usage.codes_used, empty.codes_replaced), (0, 0));
        assert_eq!(empty.samples_skipped, 2);
        for mean in [empty.recon_mse, empty.quantizer_loss, empty.grad_norm] {
            assert!(mean.is_nan(), "of no step there is no mean: {mean}");
        }
    }
}
