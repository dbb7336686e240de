//! Reconstructions to look at and to listen to: samples from all over the test split, or the training's where there is none.

use std::ops::Range;

use tch::Tensor;
use tessera_data::{DataErrorKind, Draw, OnCorrupt, Source};
use tessera_model::raw_samples;
use tessera_nn::{Signal, VqVae, to_device};

use super::reconstruct;
use crate::engine::metrics::picture::Exhibit;
use crate::error::TrainError;
use crate::task::exhibits::{self, Kind};

/// Pictures, sounds and films that are shown, at most.
const PICTURES: u64 = 16;
const SOUNDS: u64 = 5;
const FILMS: u64 = 4;

/// Reconstructs samples of a split; rank 0's business. Nothing where there is no way to show them. Samples that cannot be
/// read are passed over where `on_corrupt` says so. Of residual quantisers the first `num_levels` levels take part, or all.
pub(crate) fn reconstructions(
    model: &VqVae,
    source: &dyn Source,
    on_corrupt: OnCorrupt,
    num_levels: Option<usize>,
) -> Result<Vec<Exhibit>, TrainError> {
    let (signal, shape) = (model.signal, source.shape());
    let most = match signal {
        Signal::Image { .. } => PICTURES,
        Signal::Audio { .. } => SOUNDS,
        Signal::Video { .. } => FILMS,
        Signal::Tokens { .. } => 0,
    };
    let mut bytes = Vec::new();
    let mut sample = vec![0u8; shape.num_bytes()];
    for mut ids in spread(source.num_samples(), most) {
        let read = ids.find_map(|id| match source.read(id, Draw::NONE, &mut sample) {
            // The evaluation, which reads them all, names it.
            Err(error)
                if on_corrupt == OnCorrupt::Skip && error.kind() != DataErrorKind::BadInput =>
            {
                None
            }
            read => Some(read),
        });
        if let Some(read) = read {
            read?;
            bytes.extend_from_slice(&sample);
        }
    }
    if bytes.is_empty() {
        return Ok(Vec::new());
    }
    let _no_grad = tch::no_grad_guard();
    let raw = to_device(raw_samples(&bytes, shape), model.device());
    let samples_nc = signal.from_raw(&raw, model.kind());
    let (outputs_nc, _) = reconstruct(model, &samples_nc, num_levels);
    let [inputs, outputs] = [&samples_nc, &outputs_nc]
        .map(|values: &Tensor| signal.to_raw(values).to_device(tch::Device::Cpu));
    exhibits::reconstructions(Kind { signal, sample_rate: shape.sample_rate }, &inputs, &outputs)
}

/// At most so many places that are as far apart as they can be, each as the samples from there to the next one.
fn spread(num_samples: u64, most: u64) -> impl Iterator<Item = Range<u64>> {
    let places = num_samples.min(most);
    (0..places).map(move |place| {
        let [start, end] = [place, place + 1].map(|place| place * num_samples / places);
        start..end
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By hand: 5 samples are all shown; of 40 each 16th part begins at 0, 2, 5, 7, 10 and so on.
    #[test]
    fn samples_that_are_shown_are_spread_over_the_split() {
        let all: Vec<_> = spread(5, 16).collect();
        assert_eq!(all, [0..1, 1..2, 2..3, 3..4, 4..5]);
        let some: Vec<_> = spread(40, 16).map(|ids| ids.start).collect();
        assert_eq!(some, [0, 2, 5, 7, 10, 12, 15, 17, 20, 22, 25, 27, 30, 32, 35, 37]);
        assert_eq!(spread(0, 16).count(), 0);
        assert_eq!(spread(40, 0).count(), 0);
    }
}
