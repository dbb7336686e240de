//! Pictures of reconstructions: inputs over outputs for the first samples of the test split, or of
//! the training's where there is none.

use tch::Tensor;
use tessera_data::{DataErrorKind, Draw, OnCorrupt, Source};
use tessera_nn::{Signal, VqVae, to_device};

use super::grid::reconstruction_png;
use super::reconstruct;
use crate::engine::metrics::picture::{EncodedPng, ImageShape};
use crate::error::TrainError;

/// Samples in a picture, at most.
const NUM_SAMPLES: usize = 16;
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
    for id in 0..source.num_samples() {
        if num == NUM_SAMPLES {
            break;
        }
        match source.read(id, Draw::NONE, &mut sample) {
            Ok(()) => {
                num += 1;
                pixels.extend_from_slice(&sample);
            }
            // The evaluation, which reads them all, names it.
            Err(error)
                if on_corrupt == OnCorrupt::Skip && error.kind() != DataErrorKind::BadInput => {}
            Err(error) => return Err(error.into()),
        }
    }
    if num == 0 {
        return Ok(None);
    }
    let sizes = [num, height, width, channels].map(|size| size as i64);
    let bytes_nhwc = to_device(Tensor::from_slice(&pixels).view(sizes), model.device());

    let _no_grad = tch::no_grad_guard();
    let images_nchw = signal.from_raw(&bytes_nhwc, model.kind());
    let levels = model.quantizer.num_residual_levels();
    let (outputs_nchw, _) = reconstruct(model, &images_nchw, levels);
    let outputs: Vec<u8> = Vec::try_from(signal.to_raw(&outputs_nchw).flatten(0, -1))?;
    let picture = reconstruction_png(&pixels, &outputs, size, COLUMNS);
    Ok(Some(picture.expect("one output of one size for each of some inputs")))
}
