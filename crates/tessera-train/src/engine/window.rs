//! Sums over a logging interval, kept on the device until the interval ends.

use tch::{Device, Kind, Tensor};

use crate::task::Totals;

/// Running sums: losses, gradient norm, steps, the task's numbers, samples skipped; and the task's vector.
#[derive(Debug)]
pub struct Window {
    sums: Tensor,
    vector: Tensor,
    num_losses: i64,
}

/// Means and sums over a logging interval; means are NaN where none of its steps was done, since all were skipped.
#[derive(Debug, Clone, PartialEq)]
pub struct WindowMeans {
    /// Mean of each loss.
    pub losses: Vec<f64>,
    /// Mean norm of the whole gradient, before clipping.
    pub grad_norm: f64,
    /// Sums of the task's numbers.
    pub numbers: Vec<f64>,
    /// Sum of the task's vector.
    pub vector: Vec<f64>,
    /// Samples that could not be read in the whole interval: a sum over ranks.
    pub samples_skipped: u64,
}

impl Window {
    /// An empty interval.
    pub fn new(num_losses: usize, totals: Totals, device: Device) -> Self {
        let num_losses = num_losses as i64;
        let num_sums = num_losses + 2 + totals.numbers as i64 + 1;
        Self {
            sums: Tensor::zeros([num_sums], (Kind::Double, device)),
            vector: Tensor::zeros([totals.vector], (Kind::Double, device)),
            num_losses,
        }
    }

    /// Adds a step: its reduced scalars (losses, stop, samples skipped), the norm of its gradient, and what the task
    /// adds to its totals.
    pub fn add(
        &mut self,
        scalars: &Tensor,
        norm: &Tensor,
        numbers: &[Option<Tensor>],
        vector: &Tensor,
    ) {
        let losses = scalars.narrow(0, 0, self.num_losses).to_kind(Kind::Double);
        let _ = self.sums.narrow(0, 0, self.num_losses).g_add_(&losses);
        self.add_skipped(scalars);
        let _ = self.sums.get(self.num_losses).g_add_(norm);
        let _ = self.sums.get(self.num_losses + 1).g_add_scalar_(1.0);
        for (at, number) in (self.num_losses + 2..).zip(numbers) {
            if let Some(number) = number {
                let _ = self.sums.get(at).g_add_(number);
            }
        }
        self.vector += vector.to_kind(Kind::Double);
    }

    /// Adds a step that was skipped: of its reduced scalars, samples that could not be read.
    pub fn add_skipped(&mut self, scalars: &Tensor) {
        let skipped = scalars.get(self.num_losses + 1).to_kind(Kind::Double);
        let _ = self.sums.get(-1).g_add_(&skipped);
    }

    /// The means, read to the host; the next interval starts empty.
    pub fn take(&mut self) -> WindowMeans {
        let sums: Vec<f64> = Vec::try_from(&self.sums).expect("numbers");
        let vector: Vec<f64> = Vec::try_from(&self.vector).expect("numbers");
        let _ = self.sums.zero_();
        let _ = self.vector.zero_();
        let (losses, rest) = sums.split_at(self.num_losses as usize);
        let (steps, rest) = (rest[1], [&rest[..1], &rest[2..]].concat());
        WindowMeans {
            losses: losses.iter().map(|sum| sum / steps).collect(),
            grad_norm: rest[0] / steps,
            numbers: rest[1..rest.len() - 1].to_vec(),
            vector,
            samples_skipped: rest[rest.len() - 1] as u64,
        }
    }

    /// Canonical name and tensor of the state that a checkpoint holds; writing restores it.
    pub fn state(&self) -> [(&'static str, &Tensor); 2] {
        [("metrics.window_sums", &self.sums), ("metrics.window_counts", &self.vector)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_are_over_the_steps_of_the_interval() {
        let mut window = Window::new(2, Totals { numbers: 1, vector: 3 }, Device::Cpu);
        for (loss, vector) in [(1.0f64, [2.0f64, 0.0, 0.0]), (3.0, [0.0, 2.0, 0.0])] {
            let scalars = Tensor::from_slice(&[loss, 10.0 * loss, 0.0, 3.0]);
            let norm = Tensor::from(5.0f64);
            let numbers = [Some(Tensor::from(4.0f64))];
            window.add(&scalars, &norm, &numbers, &Tensor::from_slice(&vector));
        }
        let means = window.take();
        assert_eq!((means.losses, means.grad_norm), (vec![2.0, 20.0], 5.0));
        assert_eq!((means.numbers, means.vector), (vec![8.0], vec![2.0, 2.0, 0.0]));
        assert_eq!(means.samples_skipped, 6);
        window.add_skipped(&Tensor::from_slice(&[f64::NAN, f64::NAN, 0.0, 2.0]));
        let empty = window.take();
        assert_eq!((empty.numbers, empty.vector), (vec![0.0], vec![0.0; 3]));
        assert_eq!(empty.samples_skipped, 2);
        for mean in empty.losses.into_iter().chain([empty.grad_norm]) {
            assert!(mean.is_nan(), "of no step there is no mean: {mean}");
        }
    }
}
