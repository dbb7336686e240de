//! Outputs against inputs as sets of features: Frechet distance, precision, recall, density, coverage; and the mean
//! distance of a pair.
//!
//! What ranks sum is exact: moments in float64, and for the figures that need all vectors at once a table with a row for
//! each of the first samples of the split, which the rank that has the sample fills in.

use tch::{Device, Kind, Tensor};
use tessera_nn::Signal;
use tessera_nn::features::{FeatureNetwork, Seen};
use tessera_nn::metrics::{Manifold, add_moments, frechet, manifold, moments_len};

use crate::config::TrainConfig;
use crate::engine::figures::Figure;
use crate::error::TrainError;
use crate::task::Part;
use crate::task::networks::{self, Opened, Shown};

/// A network that an evaluation compares sets by.
#[derive(Debug)]
pub(super) struct Features {
    opened: Opened,
    /// Features of a sample.
    len: i64,
    /// Most samples with a row.
    most: u64,
    neighbors: i64,
}

/// Where its numbers lie among those of an evaluation.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layout {
    /// Features of a sample, F.
    len: i64,
    /// Samples with a row.
    rows: i64,
}

impl Features {
    /// The network of `[eval.features]`, where there is one.
    ///
    /// # Errors
    ///
    /// [`TrainError::BadInput`] where it cannot be opened.
    pub(super) fn open(
        config: &TrainConfig,
        shown: Shown<'_>,
        device: Device,
    ) -> Result<Option<Self>, TrainError> {
        let Some(opened) = networks::of_evaluation(config, shown, device)? else {
            return Ok(None);
        };
        let zeros = Tensor::zeros(shown.0.shape(1), (Kind::Float, device));
        let len = opened.seen.vector(&zeros).size()[1];
        let features = &config.eval.features;
        let (most, neighbors) = (features.num_samples, features.neighbors);
        Ok(Some(Self { opened, len, most, neighbors }))
    }

    pub(super) fn layout(&self, num_samples: u64) -> Layout {
        Layout { len: self.len, rows: num_samples.min(self.most) as i64 }
    }

    /// Adds the samples of a part and the outputs made of them.
    pub(super) fn add(
        &self,
        samples_nc: &Tensor,
        outputs_nc: &Tensor,
        part: &Part,
        (layout, sums): (Layout, &Tensor),
    ) {
        let seen = &self.opened.seen;
        let first = (part.first + part.samples.start) as i64;
        for (set, values_nc) in [samples_nc, outputs_nc].into_iter().enumerate() {
            let vectors_nf = seen.vector(values_nc).to_kind(Kind::Double);
            add_moments(&vectors_nf, &mut layout.moments(set, sums));
            let here = (layout.rows - first).clamp(0, vectors_nf.size()[0]);
            if here > 0 {
                let mut table = layout.table(set, sums).narrow(0, first, here);
                // The last column says that there is such a sample.
                let ones_n1 = Tensor::ones([here, 1], (Kind::Double, vectors_nf.device()));
                table += Tensor::cat(&[vectors_nf.narrow(0, 0, here), ones_n1], 1);
            }
        }
        if seen.has_maps() {
            let distance = seen.original_distance_sum(outputs_nc, samples_nc);
            let _ = layout.distance(sums).g_add_(&distance.to_kind(Kind::Double));
        }
    }

    /// The figures of a split of `num_samples`, from its sums.
    pub(super) fn figures(&self, layout: Layout, sums: &[f64], num_samples: u64) -> Vec<Figure> {
        let sums = Tensor::from_slice(sums);
        let chart = |name: &'static str, value: f64| Figure::number(name, value).charted("eval");
        let distance = frechet(&layout.moments(0, &sums), &layout.moments(1, &sums));
        let mut figures = vec![
            Figure::text("features", self.opened.name.as_str()),
            chart("frechet", distance).shown(3),
        ];
        let sets = [0, 1].map(|set| layout.vectors(set, &sums));
        let Manifold { precision, recall, density, coverage } =
            manifold(&sets[0], &sets[1], self.neighbors);
        figures.extend([
            Figure::count("feature_samples", sets[0].size()[0] as u64),
            chart("precision", precision).shown(3),
            chart("recall", recall).shown(3),
            chart("density", density).shown(3),
            chart("coverage", coverage).shown(3),
        ]);
        if self.opened.seen.has_maps() {
            let name = name_of_distance(&self.opened.seen);
            let mean = layout.distance(&sums).double_value(&[]) / num_samples as f64;
            figures.push(chart(name, mean).shown(4));
        }
        figures
    }
}

/// What the mean distance of a pair is called: a spectrogram has no LPIPS.
fn name_of_distance(seen: &Seen) -> &'static str {
    match (&seen.network, seen.view.signal()) {
        (FeatureNetwork::Vgg(_), Signal::Image { .. } | Signal::Video { .. }) => "lpips",
        _ => "feature_distance",
    }
}

impl Layout {
    /// Numbers of both sets.
    pub(super) fn num_sums(self) -> i64 {
        1 + 2 * (moments_len(self.len) + self.num_in_table())
    }

    fn num_in_table(self) -> i64 {
        self.rows * (self.len + 1)
    }

    /// The sum of distances, a scalar.
    fn distance(self, sums: &Tensor) -> Tensor {
        sums.get(0)
    }

    /// The moments of samples (0) or outputs (1).
    fn moments(self, set: usize, sums: &Tensor) -> Tensor {
        let len = moments_len(self.len);
        sums.narrow(0, 1 + set as i64 * len, len)
    }

    /// A row for each sample: its features, and 1.
    fn table(self, set: usize, sums: &Tensor) -> Tensor {
        let start = 1 + 2 * moments_len(self.len) + set as i64 * self.num_in_table();
        sums.narrow(0, start, self.num_in_table()).view([self.rows, self.len + 1])
    }

    /// The features of the samples that are there, `[N, F]`.
    fn vectors(self, set: usize, sums: &Tensor) -> Tensor {
        let table = self.table(set, sums);
        let is_there = table.select(1, self.len).gt(0.5).nonzero().flatten(0, -1);
        table.narrow(1, 0, self.len).index_select(0, &is_there)
    }
}
