//! Pictures of reconstructions: input, output and error of samples from all over the test split, or the
//! training's where there is none.

use std::ops::Range;

use tch::Tensor;
use tessera_data::{DataErrorKind, Draw, OnCorrupt, Source};
use tessera_nn::{Signal, VqVae, to_device};

use super::reconstruct;
use crate::engine::metrics::picture::{EncodedPng, ImageShape};
use crate::error::TrainError;
use crate::task::grid::reconstruction_png;

/// Samples in a picture, at most.
const NUM_SAMPLES: u64 = 16;
/// Samples side by side.
const COLUMNS: usize = 8;

/// Draws a picture; rank 0's business. `None` where samples have neither one channel nor
/// three: there is no picture of them. Samples that cannot be read are passed over where
/// `on_corrupt` says so.
pub(crate) fn draw(
    model: &VqVae,
    source: &dyn Source,
    on_corrupt: OnCorrupt,
) -> Result<Option<EncodedPng>, TrainError> {
    let signal = model.signal;
    let Signal::Image { channels: channels @ (1 | 3), height, width } = signal else {
        return Ok(None);
    };
    let [height, width, channels] = [height, width, channels].map(|size| size as usize);
    let size = ImageShape { height, width, channels };
    let (mut num, mut pixels) = (0, Vec::new());
    let mut sample = vec![0u8; source.shape().num_bytes()];
    for mut ids in spread(source.num_samples()) {
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
            num += 1;
            pixels.extend_from_slice(&sample);
        }
    }
    if num == 0 {
        return Ok(None);
    }
    let sizes = [num, height, width, channels].map(|size| size as i64);
    let bytes_nhwc = to_device(Tensor::from_slice(&pixels).view(sizes), model.device());

    let _no_grad = tch::no_grad_guard();
    let images_nchw = signal.from_raw(&bytes_nhwc, model.kind());
    let (outputs_nchw, _) = reconstruct(model, &images_nchw, None);
    let outputs: Vec<u8> = Vec::try_from(signal.to_raw(&outputs_nchw).flatten(0, -1))?;
    let picture = reconstruction_png(&pixels, &outputs, size, COLUMNS);
    Ok(Some(picture.expect("one output of one size for each of some inputs")))
}

/// Places that are as far apart as they can be, each as the samples from there to the next one.
fn spread(num_samples: u64) -> impl Iterator<Item = Range<u64>> {
    let places = num_samples.min(NUM_SAMPLES);
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
    fn samples_of_a_picture_are_spread_over_the_split() {
        let all: Vec<_> = spread(5).collect();
        assert_eq!(all, [0..1, 1..2, 2..3, 3..4, 4..5]);
        let some: Vec<_> = spread(40).map(|ids| ids.start).collect();
        assert_eq!(some, [0, 2, 5, 7, 10, 12, 15, 17, 20, 22, 25, 27, 30, 32, 35, 37]);
        assert_eq!(spread(0).count(), 0);
    }
}
