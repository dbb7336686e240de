//! Sums over a logging interval, kept on the device until the interval ends.

use tch::{Device, Kind, Tensor};
use tessera_nn::loss::perplexity;

/// Running sums: reconstruction, commitment, gradient norm, steps; and how often each code was
/// taken.
#[derive(Debug)]
pub struct Window {
    sums: Tensor,
    counts_k: Tensor,
}

/// Means over a logging interval.
#[derive(Debug, Clone, PartialEq)]
pub struct WindowMeans {
    /// Mean squared error.
    pub recon_mse: f64,
    /// Weighted commitment loss.
    pub commitment: f64,
    /// Norm of the whole gradient, before clipping.
    pub grad_norm: f64,
    /// Perplexity of the codes taken in the interval, over all ranks.
    pub perplexity: f64,
    /// Codes taken at least once in the interval, over all ranks.
    pub codes_used: u64,
}

impl Window {
    /// An empty interval for a codebook of `num_codes`.
    pub fn new(num_codes: i64, device: Device) -> Self {
        Self {
            sums: Tensor::zeros([4], (Kind::Double, device)),
            counts_k: Tensor::zeros([num_codes], (Kind::Double, device)),
        }
    }

    /// Adds a step: its reduced scalars (reconstruction first, then commitment), the norm of its
    /// gradient, and its reduced counts.
    pub fn add(&mut self, scalars: &Tensor, norm: &Tensor, counts_k: &Tensor) {
        let _ = self.sums.narrow(0, 0, 2).g_add_(&scalars.narrow(0, 0, 2).to_kind(Kind::Double));
        let _ = self.sums.get(2).g_add_(norm);
        let _ = self.sums.get(3).g_add_scalar_(1.0);
        self.counts_k += counts_k.to_kind(Kind::Double);
    }

    /// The means, read to the host; the next interval starts empty.
    pub fn take(&mut self) -> WindowMeans {
        let sums: Vec<f64> = Vec::try_from(&self.sums).expect("four numbers");
        let counts: Vec<f64> = Vec::try_from(&self.counts_k).expect("a number a code");
        let _ = self.sums.zero_();
        let _ = self.counts_k.zero_();
        let steps = sums[3].max(1.0);
        WindowMeans {
            recon_mse: sums[0] / steps,
            commitment: sums[1] / steps,
            grad_norm: sums[2] / steps,
            perplexity: perplexity(&counts),
            codes_used: counts.iter().filter(|&&count| count > 0.0).count() as u64,
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
        let mut window = Window::new(3, Device::Cpu);
        for (loss, counts) in [(1.0f64, [2.0f64, 0.0, 0.0]), (3.0, [0.0, 2.0, 0.0])] {
            let scalars = Tensor::from_slice(&[loss, 10.0 * loss, 0.0]);
            let norm = Tensor::from(5.0f64);
            window.add(&scalars, &norm, &Tensor::from_slice(&counts));
        }
        let means = window.take();
        assert_eq!((means.recon_mse, means.commitment, means.grad_norm), (2.0, 20.0, 5.0));
        assert!((means.perplexity - 2.0).abs() < 1e-12); // two codes, equally often
        assert_eq!(means.codes_used, 2);
        assert_eq!(window.take().codes_used, 0);
    }
}
