//! How well a head finds classes, over a split.

use tch::{Kind, Reduction, Tensor};
use tessera_nn::Signal;

use super::{Probe, labels};
use crate::engine::figures::Figure;
use crate::task::{Measure, Part};

/// Bins of confidence.
const BINS: i64 = 15;

/// A probe under measurement. Sums: cross-entropy; of each bin of confidence the samples, their confidence, and the hits
/// among them; and the confusion matrix, row by row.
pub(super) struct Classification<'a> {
    pub(super) probe: &'a Probe,
}

impl Measure for Classification<'_> {
    fn len(&self) -> i64 {
        1 + 3 * BINS + self.probe.num_classes * self.probe.num_classes
    }

    fn add(&self, part: &Part, sums: &Tensor) {
        let labels_n = labels(part);
        let logits_nk = self.probe.logits(&self.probe.features(part));
        let logits_nk = logits_nk.to_kind(Kind::Double);
        let cross_entropy =
            logits_nk.cross_entropy_loss(labels_n, None::<Tensor>, Reduction::Sum, -100, 0.0);
        let _ = sums.get(0).g_add_(&cross_entropy);
        let (confidence_n, found_n) = logits_nk.softmax(1, Kind::Double).max_dim(1, false);
        let hit_n = found_n.eq_tensor(labels_n).to_kind(Kind::Double);
        // (0, 1/15], (1/15, 2/15] and so on.
        let bin_n = (&confidence_n * BINS as f64).ceil().to_kind(Kind::Int64) - 1;
        let bin_n = bin_n.clamp(0, BINS - 1);
        for (row, values_n) in
            [confidence_n.ones_like(), confidence_n, hit_n].into_iter().enumerate()
        {
            let mut of_bins = sums.narrow(0, 1 + row as i64 * BINS, BINS);
            let _ = of_bins.index_add_(0, &bin_n, &values_n);
        }
        let num_classes = self.probe.num_classes;
        let cell_n = labels_n * num_classes + &found_n;
        let cells = cell_n.bincount(None::<Tensor>, num_classes * num_classes);
        let _ = sums.narrow(0, 1 + 3 * BINS, num_classes * num_classes).g_add_(&cells);
    }

    fn figures(&self, sums: &[f64], num_samples: u64, _signal: Signal) -> Vec<Figure> {
        let (cross_entropy, rest) = (sums[0], &sums[1..]);
        let (bins, cells) = rest.split_at(3 * BINS as usize);
        let samples = num_samples as f64;
        let confusion: Vec<Vec<u64>> = cells
            .chunks(self.probe.num_classes as usize)
            .map(|row| row.iter().map(|&count| count as u64).collect())
            .collect();
        let hits: u64 = confusion.iter().enumerate().map(|(class, row)| row[class]).sum();
        vec![
            Figure::number("accuracy", hits as f64 / samples).charted("eval").shown(4),
            Figure::number("cross_entropy", cross_entropy / samples).charted("eval").shown(5),
            Figure::number("calibration_error", calibration_error(bins, samples))
                .charted("eval")
                .shown(4),
            Figure::table("confusion", confusion),
        ]
    }

    fn finite(&self) -> &'static [(&'static str, &'static str)] {
        &[("cross_entropy", "cross-entropy")]
    }
}

/// Expected calibration error: the mean over samples of how far the accuracy of their bin is from its mean confidence
/// (Guo et al. 2017, <https://arxiv.org/abs/1706.04599>, equation 5). `bins`: samples, sums of confidence, hits.
fn calibration_error(bins: &[f64], samples: f64) -> f64 {
    let of = |row: usize, bin: usize| bins[row * BINS as usize + bin];
    let gap = |bin: usize| (of(2, bin) - of(1, bin)).abs();
    (0..BINS as usize).map(gap).sum::<f64>() / samples
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By hand: three samples with confidence 0.9, two of them right; one with 0.5, right:
    /// (|2 - 2.7| + |1 - 0.5|) / 4.
    #[test]
    fn calibration_error_is_the_gap_between_confidence_and_accuracy() {
        let mut bins = vec![0.0; 45];
        for (row, values) in [(0, [3.0, 1.0]), (1, [2.7, 0.5]), (2, [2.0, 1.0])] {
            bins[row * 15 + 13] = values[0];
            bins[row * 15 + 7] = values[1];
        }
        assert!((calibration_error(&bins, 4.0) - 1.2 / 4.0).abs() < 1e-12);
    }
}
